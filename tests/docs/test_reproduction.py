"""The page of published figures names every recipe for the published data sets, and claims nothing that was not run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tagmask.cli.recipes import find_recipe
from tagmask.settings.loading import load_recipe

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reproduction.md"
FOLDERS = ("voc12", "coco14", "cub", "ilsvrc")


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
    load_recipe(find_recipe(name).path, overrides)


def test_every_row_says_what_it_needs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    marks = set(re.findall(r"^\| ([A-Z]) \|", text, flags=re.M))
    assert len(rows()) > 80
    for cells in rows():
        status = cells[-1]
        assert re.fullmatch(r"no: [A-Z]|as a test only|yes: .+", status), cells
        if status.startswith("no: "):
            assert status[-1] in marks, f"{status} is not explained"
    assert not [cells for cells in rows() if cells[-1].startswith("yes")] or "None of them was measured" not in text
