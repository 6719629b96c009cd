from __future__ import annotations

import json
from pathlib import Path

import pytest

from tagmask import cli

TINY = Path(__file__).parent / "tiny.yaml"


def leave(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(list(arguments))
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "world"
    assert leave("data", "make-partsworld", str(folder), "train=6", "val=3") == 0
    return folder


def test_partsworld_is_written_with_the_asked_settings(world: Path) -> None:
    assert len(list((world / "JPEGImages").iterdir())) == 9
    assert (world / "ImageSets" / "Segmentation" / "val.txt").read_text().split() == [
        f"val_{index:05d}" for index in range(3)
    ]


def test_the_written_set_is_checked_as_a_folder_and_as_a_recipe(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.yaml"
    long_enough = "classify: {iterations: auto}\nsegment: {iterations: auto}\n"
    recipe.write_text(f"data: {{format: voc, root: {world}}}\n{long_enough}")
    reports = []
    for source in (world, recipe):
        assert leave("data", "check", str(source)) == 0
        reports.append(capsys.readouterr().out)
    assert reports[0] == reports[1]
    assert "6 train, 3 val" in reports[0]


def test_trainings_that_will_be_too_short_are_known_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("data", "check", str(TINY)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  classify: 3 updates are few for 8 classes, 92 or more are advised; set classify.iterations=auto" in lines
    assert "  segment: 3 updates are few for 8 classes, 280 or more are advised; set segment.iterations=auto" in lines
    enough = ("classify.iterations=auto", "segment.iterations=auto")
    assert leave("data", "check", str(TINY), *enough) == 0
    assert "updates are few" not in capsys.readouterr().out
    assert leave("data", "check", str(TINY), "--json", enough[0]) == 0
    (only,) = json.loads(capsys.readouterr().out)["advice"]
    assert only.startswith("segment: 3 updates are few")


def test_data_alone_trains_enough_unless_it_is_told_otherwise(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("data", "check", str(world), "segment.iterations=7") == 0
    printed = capsys.readouterr().out
    assert "  segment: 7 updates are few" in printed
    assert "classify:" not in printed


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    assert leave("data", "make-partsworld", str(tmp_path), "train=1", "val=1") == 2
    assert (tmp_path / "precious.txt").read_text() == "mine"
    assert str(tmp_path) in capsys.readouterr().err


def test_a_misspelt_setting_offers_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("data", "make-partsworld", str(tmp_path / "w"), "trian=3") == 2
    assert "Did you mean 'train'" in capsys.readouterr().err
