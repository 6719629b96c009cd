"""Write what docs/reproduction.md says of every published row and every recipe, from the tables in tests/published:
python docs/tables/reproduction.py"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tagmask.settings.loading import load_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES, TABLES, PAGE = ROOT / "recipes", ROOT / "tests" / "published", ROOT / "docs" / "reproduction.md"
#: Not of a paper: a smoke test, and a backbone for comparison.
APART = {"voc12/mini", "cub/resnet50-ssa"}
SECTIONS = ("engine", "classify", "retrain", "localize", "refine", "segment", "evaluate")
NOT_OFFERED = "not offered"


@cache
def table(name: str) -> Any:
    """One of the tables in tests/published."""
    return yaml.safe_load((TABLES / f"{name}.yaml").read_text(encoding="utf-8"))


def published() -> list[str]:
    """The recipes that are made for a paper's data set and called published."""
    folders = ("voc12", "coco14", "cub", "ilsvrc")
    names = [f"{folder}/{path.stem}" for folder in folders for path in sorted((RECIPES / folder).glob("*.yaml"))]
    return [name for name in names if name not in APART]


@cache
def resolved(name: str) -> dict[str, Any]:
    """The recipe with every default."""
    return load_recipe(RECIPES / f"{name}.yaml").dump()


@cache
def raw(name: str) -> dict[str, Any]:
    """The recipe's own file."""
    values: dict[str, Any] = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def value_of(recipe: Any, key: str) -> Any:
    """The value behind a dotted key, of a file its name without folder and suffix.

    Raises:
        KeyError, IndexError, TypeError: there is none.
    """
    for part in key.split("."):
        recipe = recipe[int(part)] if isinstance(recipe, list) else recipe[part]
    if isinstance(recipe, str) and "/" in recipe:
        return Path(recipe).stem
    return list(recipe) if isinstance(recipe, tuple) else recipe


def parent_of(name: str) -> str | None:
    """The recipe that a recipe extends."""
    path = raw(name).get("extends")
    return str((RECIPES / name).parent.joinpath(path).resolve().relative_to(RECIPES).with_suffix("")) if path else None


def ancestry(name: str) -> list[str]:
    """The recipe, what it extends, and so on."""
    parent = parent_of(name)
    return [name, *(ancestry(parent) if parent else ())]


def own_rows(name: str) -> dict[str, tuple[Any, str]]:
    """Key -> value and where it is published, of the groups that name the recipe.

    Raises:
        ValueError: two groups give a key two values.
    """
    rows: dict[str, tuple[Any, str]] = {}
    for group in table("values"):
        if name in group["recipes"]:
            for key, (value, where) in group["values"].items():
                if rows.get(key, (value, ""))[0] != value:
                    msg = f"{name} has two values for {key}"
                    raise ValueError(msg)
                rows[key] = value, f"{group['paper']}, {where}"
    return rows


def rows_of(name: str) -> dict[str, tuple[Any, str]]:
    """Own rows, and those of what it extends unless the recipe's own file puts something else in their place."""
    parent = parent_of(name)
    inherited = rows_of(parent) if parent else {}
    return {**{key: row for key, row in inherited.items() if not replaced(name, key)}, **own_rows(name)}


def reasons_of(name: str) -> dict[str, str]:
    """Key -> why the recipe has no published value there, own and inherited."""
    parent = parent_of(name)
    inherited = reasons_of(parent) if parent else {}
    own = own_rows(name)
    kept = {key: reason for key, reason in inherited.items() if not replaced(name, key) and key not in own}
    return {**kept, **table("ours").get(name, {})}


def deviations_of(name: str) -> list[str]:
    """What else differs from the published system."""
    family = ancestry(name)
    return [
        " ".join(what.split())
        for recipes, what, *but in table("deviations")
        if set(recipes) & set(family) and not set(but[0] if but else ()) & set(family)
    ]


def replaced(name: str, key: str) -> bool:
    """Whether a recipe's file writes a key, or another method, preset or list above it."""
    node, above = raw(name), resolved(parent_of(name) or name)
    for part in key.split("."):
        if part not in node:
            return False
        node, above = node[part], above[part]
        if not isinstance(node, dict) or "preset" in node:
            return True
        if "name" in node and node["name"] != above["name"]:
            return True
    return True


def written(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Keys and values of everything that is written but files; a list of plain values is one value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from written(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for place, inner in enumerate(value):
            yield from written(inner, f"{key}.{place}")
    elif not isinstance(value, str) or "/" not in value:
        yield key, value


def own_values(name: str) -> dict[str, Any]:
    """What the recipe's own file writes down, without what it extends."""
    values = {}
    for section in SECTIONS:
        for key, value in written(raw(name)[section], section) if section in raw(name) else ():
            method = isinstance(value, str) and isinstance(value_of(resolved(name), key), dict)  # in its short form
            values[f"{key}.name" if method else key] = value
    return values


def networks(name: str) -> list[tuple[str, str]]:
    """(network, where its weights come from) of a recipe, as tests/published/inputs.yaml names them."""
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    pairs = [(recipe.classify.backbone, recipe.classify.weights)]
    if recipe.segment is not None:
        network: Any = recipe.segment.network
        kind = network.layout if network.name == "deeplabv2" else network.encoder
        pairs.append((f"{network.name} {kind}", network.weights))
    return [(network, weights if isinstance(weights, str) else "file") for network, weights in pairs]


def published_rows(section: str) -> str:
    """Markdown: the rows of a data set, a command beside the first of each."""
    lines = ["| recipe (`tagmask run`) | figure | published | source | measured here |", "|---|---|---|---|---|"]
    for group in table("rows")[section]:
        status = "as a test only" if group["needs"] == "test" else f"no: {group['needs']}"
        for place, (figure, value, where) in enumerate(group["rows"]):
            command = f"`{group['run']}`" if place == 0 else ""
            lines.append(f"| {command} | {figure} | {value} | {where} | {status} |")
    return "\n".join([*lines, ""])


def not_offered() -> str:
    """Markdown: the rows without a command, and why."""
    lines = ["| row | published | why not |", "|---|---|---|"]
    for reason, rows in table("rows")[NOT_OFFERED]:
        lines += [f"| {where} | {value} | {reason} |" for where, value in rows]
    return "\n".join([*lines, ""])


def agreement() -> str:
    """Markdown: per recipe, how many settings are checked against published values, and what is not as published."""
    texts = list(dict.fromkeys(what for name in published() for what in deviations_of(name)))
    lines = ["| recipe | settings held to published values | not published, or different |", "|---|---|---|"]
    for name in published():
        rows = rows_of(name)
        papers = list(dict.fromkeys(where.partition(",")[0].partition(" (")[0] for _, where in rows.values()))
        others: dict[str, list[str]] = {}
        for key, reason in reasons_of(name).items():
            others.setdefault(reason, []).append(f"`{key}`")
        numbers = ", ".join(map(str, sorted(texts.index(what) + 1 for what in deviations_of(name))))
        told = [numbers] if numbers else []
        told += [f"{', '.join(keys)}: {reason}" for reason, keys in others.items()]
        lines.append(f"| `{name}` | {len(rows)} ({', '.join(papers)}) | {'; '.join(told) or 'nothing known'} |")
    numbered = [f"{number}. {what}." for number, what in enumerate(texts, 1)]
    return "\n".join([*lines, "", "The numbers stand for:", "", *numbered, ""])


def inputs() -> str:
    """Markdown: what each network of the recipes is fed, and in which recipes."""
    lines = ["| network | weights | images | as in | recipes |", "|---|---|---|---|---|"]
    for row in table("inputs"):
        users = [f"`{name}`" for name in published() if (row["network"], row["weights"]) in networks(name)]
        shown = users if len(users) <= 4 else [*users[:2], f"{len(users) - 2} more"]
        images = f"{row['order']} in 0..{row['top']}, minus {row['mean']}, over {row['std']}"
        lines.append(f"| {row['network']} | {row['weights']} | {images} | {row['source']} | {', '.join(shown)} |")
    return "\n".join([*lines, ""])


def blocks() -> dict[str, str]:
    """What stands between which marks of the page."""
    rows = {f"rows of {section}": published_rows(section) for section in table("rows") if section != NOT_OFFERED}
    return {**rows, "rows that are not offered": not_offered(), "agreement": agreement(), "inputs": inputs()}


def page(text: str) -> str:
    """docs/reproduction.md with today's blocks."""
    for what, content in blocks().items():
        begin, end = f"<!-- {what}: python docs/tables/reproduction.py -->\n", f"<!-- end of {what} -->\n"
        before, found, rest = text.partition(begin)
        if not found:
            msg = f"docs/reproduction.md has no mark '{begin.strip()}'"
            raise ValueError(msg)
        text = before + begin + content + end + rest.partition(end)[2]
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
