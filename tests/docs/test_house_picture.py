"""The picture of the house is the one that its script draws today, and the page that shows it names every room."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from imports import FLOORS
from scripts import load_script

ROOT = Path(__file__).resolve().parents[2]
house = load_script("docs/pictures/house.py")
NUMBERS = re.compile(r"(?<=>)\d+(?= files<|<| of \d+ arrows)|(?<= of )\d+(?= arrows)")


def test_the_picture_is_todays() -> None:
    # Rooms and arrows; how many files and imports there are changes with every branch, and 'make pages' counts anew.
    picture = house.PICTURE.read_text(encoding="utf-8")
    assert NUMBERS.sub("", picture) == NUMBERS.sub("", house.draw()), "run: python docs/pictures/house.py"


def test_every_room_is_drawn_once_and_none_over_another() -> None:
    picture = house.draw()
    for name in FLOORS:
        assert picture.count(f">{name}</text>") == 1
    places = sorted(house.places().values(), key=lambda place: (place[1], place[0]))
    for (x, y), (next_x, next_y) in pairwise(places):
        assert next_y > y or next_x - x >= house.WIDTH


def test_what_is_left_out_follows_from_what_is_drawn() -> None:
    ways = {name: {last for first, last in house.drawn() if first == name} for name in FLOORS}
    for _ in FLOORS:
        ways = {name: ends.union(*(ways[end] for end in ends)) for name, ends in ways.items()}
    assert {(first, last) for first, ends in ways.items() for last in ends} >= set(house.arrows())
    assert set(house.drawn()) <= set(house.arrows())


def test_arrows_point_down() -> None:
    places = house.places()
    assert [pair for pair in house.drawn() if places[pair[0]][1] >= places[pair[1]][1]] == []


def test_an_arrow_beside_a_longer_way_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    imports = {"tagmask.cli.a": {"tagmask.runs.b", "tagmask.ops.c"}, "tagmask.runs.b": {"tagmask.ops.c"}}
    script = load_script("docs/pictures/house.py")
    monkeypatch.setattr(script, "graph", lambda: imports)
    monkeypatch.setattr(script, "inside", lambda targets: targets)
    assert script.drawn() == {("cli", "runs"): 1, ("runs", "ops"): 1}
    assert script.level("cli") == 2


def test_the_page_has_a_row_for_every_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, flags=re.M) == list(FLOORS)


def test_the_page_walks_an_image_through_files_that_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walk = page.partition("## One image")[2].partition("\n## ")[0]
    assert re.findall(r"^(\d+)\.", walk, flags=re.M) == [str(number) for number in range(1, 11)]
    files = re.findall(r"`([\w/]+\.py)`", walk)
    assert len(files) > 15
    assert [name for name in files if not (ROOT / "src" / "tagmask" / name).is_file()] == []
