"""The page of published figures: every row of the papers' tables with a command that resolves, or with a reason.

The page is written from ``tests/published/rows.yaml`` and the tables beside it, so a figure that is changed on the page
alone, or there alone, fails here.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from scripts import load_script
from tagmask.cli.recipes import find_recipe
from tagmask.errors import RecipeError
from tagmask.settings.loading import load_recipe

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reproduction.md"
FOLDERS = ("voc12", "coco14", "cub", "ilsvrc")
TABLES: Any = load_script("docs/tables/reproduction.py")
ROWS = TABLES.table("rows")
#: Tables and sections of each paper that print figures.
PRINTED = {
    "InferCam": ["Table 1", "Table 2", "Table 3", "Table 4", "Table 5", "section 3.1", "section 4.4", "section 4.5"],
    "VWE": ["Table 1", "Table 2", "Table 3", "per class"],
    "ReCAM": ["Table 1", "Table 2", "Table 3", "Table 4", "Table S1", "Table S2", "Table S3"],
    "SSA": ["Table 1", "Table 2", "Table 3", "Table 4", "Table 5", "Figure 6"],
    "LPCAM": ["Table 1", "Table 2", "Table 3", "Table 4"],
}


def rows() -> list[list[str]]:
    """Cells of the rows of every table with a column 'measured here'."""
    found, inside = [], False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if cells and cells[-1] == "measured here":
            inside = True
        elif not cells:
            inside = False
        elif inside and not cells[0].startswith("---"):
            found.append(cells)
    return found


def commands() -> list[str]:
    return [cells[0].strip("`") for cells in rows() if cells[0]]


def sources() -> list[str]:
    """Where each row is printed, offered or not."""
    offered = [where for section in TABLES.table("rows") if section != "not offered" for group in ROWS[section]
               for _, _, where in group["rows"]]  # fmt: skip
    return offered + [where for _, others in ROWS["not offered"] for where, _ in others]


def test_the_page_is_what_the_script_writes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert TABLES.page(text) == text, "run: python docs/tables/reproduction.py"


@pytest.mark.parametrize("figure", ["54.8", "69.6", "19.4", "316.3"])
def test_a_changed_figure_is_noticed(figure: str) -> None:
    text = PAGE.read_text(encoding="utf-8").replace(f"| {figure}", f"| {float(figure) + 0.1:.1f}")
    text = text.replace(f"/ {figure} |", f"/ {float(figure) + 0.1:.1f} |").replace(f"and {figure} |", "and 99.9 |")
    assert text != PAGE.read_text(encoding="utf-8")
    assert TABLES.page(text) != text


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_recipe_is_on_the_page(folder: str) -> None:
    shipped = {f"{folder}/{path.stem}" for path in (ROOT / "recipes" / folder).glob("*.yaml")}
    assert shipped, f"no recipe in recipes/{folder}"
    named = {command.split()[0] for command in commands()}
    assert sorted(shipped - named) == []
    assert sorted(name for name in named if name.startswith(f"{folder}/") and name not in shipped) == []


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_command_is_a_recipe_with_valid_changes(command: str) -> None:
    name, *overrides = shlex.split(command)
    path = find_recipe(name).path
    changed = load_recipe(path, overrides).dump()
    for place in range(len(overrides)):  # each asks for something that the recipe does not do by itself
        others = overrides[:place] + overrides[place + 1 :]
        try:
            assert load_recipe(path, others).dump() != changed, overrides[place]
        except RecipeError:  # a setting of the method that it names
            assert "name" in overrides[place]


def test_every_table_of_the_papers_is_there() -> None:
    printed = " ".join(re.sub(r"Tables (\d) and (\d)", r"Table \1 Table \2", where) for where in sources())
    for paper, places in PRINTED.items():
        own = re.findall(rf"{paper}(?: and LPCAM)?,? ?([^;]*)", printed)
        missing = [place for place in places if not any(place in where for where in own)]
        assert missing == [], paper


def test_no_row_stands_twice() -> None:
    figures = [
        (section, group["run"][:3], figure, where)
        for section in ROWS
        if section != "not offered"
        for group in ROWS[section]
        for figure, _, where in group["rows"]
        if where.split(",")[0] in PRINTED
    ]
    assert len(figures) == len(set(figures))


def test_hosts_that_are_not_offered_have_a_reason() -> None:
    for reason, others in ROWS["not offered"]:
        assert len(reason.split()) > 3
        assert others


def test_every_row_says_what_it_needs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    marks = set(re.findall(r"^\| ([A-Z]) \|", text, flags=re.M))
    assert len(rows()) > 180
    for cells in rows():
        status = cells[-1]
        assert re.fullmatch(r"no: [A-Z]|as a test only|yes: .+", status), cells
        if status.startswith("no: "):
            assert status[-1] in marks, f"{status} is not explained"
    assert not [cells for cells in rows() if cells[-1].startswith("yes")] or "None of them was measured" not in text


def test_every_recipe_says_what_is_as_published_and_what_is_not() -> None:
    block = TABLES.agreement()
    for name in TABLES.published():
        assert f"| `{name}` |" in block
        assert TABLES.reasons_of(name).keys().isdisjoint(TABLES.rows_of(name)), name
    for recipes, _, *others in TABLES.table("deviations"):
        assert set(recipes) | set(others[0] if others else ()) <= set(TABLES.published())
