"""Write the tables of methods in README.md and docs/recipes.md, and their pages in mkdocs.yml, from what they declare:
python docs/tables/methods.py"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from tagmask import registry
from tagmask.registry import Kind
from tagmask.registry.method import Method
from tagmask.settings.loading import load_recipe

ROOT = Path(__file__).resolve().parents[2]
#: Folders of recipes that are made for a paper's data set.
PUBLISHED = ("voc12", "coco14", "cub", "ilsvrc")
KINDS = [kind for kind in get_args(Kind) if kind != "data"]


def ours(kind: Kind) -> dict[str, registry.Entry]:
    """The methods of a kind that this repository holds, whatever else is installed."""
    return {name: entry for name, entry in registry.entries(kind).items() if entry.where.startswith("tagmask.")}


def table() -> str:
    """Markdown: a row per method, and the names of the data formats."""
    rows = ["| kind | name | what it does | paper |", "|---|---|---|---|"]
    for kind in KINDS:
        for name, entry in ours(kind).items():
            shown = f"[`{name}`](docs/{entry.page})" if entry.page else f"`{name}`"
            rows.append(f"| {kind} | {shown} | {entry.summary} | {entry.paper} |")
    formats = ", ".join(f"`{name}`" for name in ours("data"))
    return "\n".join([*rows, "", f"Data formats: {formats}.", ""])


def pages() -> list[str]:
    """Pages of methods below docs/, by kind, and then those of docs/methods/ that are about none."""
    declared = [entry.page for kind in KINDS for entry in ours(kind).values() if entry.page]
    others = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs" / "methods").glob("*.md"))
    return list(dict.fromkeys([*declared, *others]))


def title(page: str) -> str:
    """The first heading."""
    return (ROOT / "docs" / page).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def between(text: str, what: str, content: str) -> str:
    """A page with this content between its marks."""
    begin, end = f"<!-- {what}: python docs/tables/methods.py -->\n", f"<!-- end of {what} -->\n"
    before, _, rest = text.partition(begin)
    return before + begin + content + end + rest.partition(end)[2]


def readme(text: str) -> str:
    """README.md with today's table."""
    return between(text, "methods", table())


def recipes(text: str) -> str:
    """docs/recipes.md with today's refiners."""
    rows = [f"| [`{name}`]({entry.page}) | {entry.summary} |" for name, entry in ours("refiner").items()]
    return between(text, "refiners", "\n".join(["| refiner | |", "|---|---|", *rows, ""]))


def users() -> dict[tuple[str, str], list[str]]:
    """Shipped recipes that use a method, by kind and name, in all parts of a nest and every training."""
    uses: dict[tuple[str, str], list[str]] = {}
    for path in sorted((ROOT / "recipes").glob("*/*.yaml")):
        if path.parent.name not in PUBLISHED:
            continue
        recipe = load_recipe(path)
        methods: list[tuple[str, Method]] = [("localizer", part) for part in recipe.localize.method.parts()]
        methods += [("head", part) for training in recipe.trainings.values() for part in training.head.parts()]
        methods += [("refiner", refiner) for refiner in recipe.refine.chain]
        if recipe.segment:
            methods += [("network", recipe.segment.network), ("loss", recipe.segment.loss)]
            methods += [("saliency", recipe.segment.saliency)] if recipe.segment.saliency else []
        for kind, method in dict.fromkeys((kind, method.name) for kind, method in methods):
            uses.setdefault((kind, method), []).append(f"{path.parent.name}/{path.stem}")
    return uses


def published(text: str) -> str:
    """docs/reproduction.md with today's index: which method of which paper is in which recipe."""
    uses = users()
    rows = ["| paper | method | recipes |", "|---|---|---|"]
    for kind in KINDS:
        for name, entry in ours(kind).items():
            if entry.paper:
                recipes = ", ".join(f"`{recipe}`" for recipe in uses.get((kind, name), [])) or "none yet"
                rows.append(f"| {entry.paper} | {kind} [`{name}`]({entry.page}) | {recipes} |")
    return between(text, "published", "\n".join([*rows, ""]))


def site(text: str) -> str:
    """mkdocs.yml with today's pages."""
    lines = "".join(f"      - {title(page)}: {page}\n" for page in pages())
    return re.sub(r"(  - Methods:\n)(?: {6}.*\n)*", lambda found: found[1] + lines, text)


WRITTEN = {
    "README.md": readme,
    "docs/recipes.md": recipes,
    "docs/reproduction.md": published,
    "mkdocs.yml": site,
}

if __name__ == "__main__":
    for name, written in WRITTEN.items():
        path = ROOT / name
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
