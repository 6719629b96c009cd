from __future__ import annotations

from pathlib import Path

import pytest

from tagmask import cli


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
    recipe.write_text(f"data: {{format: voc, root: {world}}}\n")
    reports = []
    for source in (world, recipe):
        assert leave("data", "check", str(source)) == 0
        reports.append(capsys.readouterr().out)
    assert reports[0] == reports[1]
    assert "6 train, 3 val" in reports[0]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    assert leave("data", "make-partsworld", str(tmp_path), "train=1", "val=1") == 2
    assert (tmp_path / "precious.txt").read_text() == "mine"
    assert str(tmp_path) in capsys.readouterr().err


def test_a_misspelt_setting_offers_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("data", "make-partsworld", str(tmp_path / "w"), "trian=3") == 2
    assert "Did you mean 'train'" in capsys.readouterr().err
