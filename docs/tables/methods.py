"""Write the methods' table of README.md and their pages in mkdocs.yml from what methods declare.

python docs/tables/methods.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from tagmask import registry
from tagmask.registry.declaration import Kind

ROOT = Path(__file__).resolve().parents[2]
README, SITE = ROOT / "README.md", ROOT / "mkdocs.yml"
BEGIN, END = "<!-- methods: python docs/tables/methods.py -->\n", "<!-- end of methods -->\n"
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


def readme(text: str) -> str:
    """README.md with today's table."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


def site(text: str) -> str:
    """mkdocs.yml with today's pages."""
    lines = "".join(f"      - {title(page)}: {page}\n" for page in pages())
    return re.sub(r"(  - Methods:\n)(?: {6}.*\n)*", lambda found: found[1] + lines, text)


if __name__ == "__main__":
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
    SITE.write_text(site(SITE.read_text(encoding="utf-8")), encoding="utf-8")
