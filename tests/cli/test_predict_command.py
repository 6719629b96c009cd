"""``tagmask predict`` through the command line: options, going on, what is skipped, exit codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask import cli


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (50, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "broken.jpg").write_text("no image")
    return folder


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        cli.main(["predict", *map(str, arguments), "--device", "cpu", "--plain"])
    result = capsys.readouterr()
    return int(left.value.code or 0), result.out, result.err


def test_a_folder_with_everything(
    finished: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import tagmask

    first = tagmask.load(finished, device="cpu").classes[1]
    (tmp_path / "tags.csv").write_text(f"image,tags\na.png,{first}\n")
    options = ("--tags", tmp_path / "tags.csv", "--scales", "1.0,0.5", "--no-flip", "--tile", "64")
    for said in ("predict: 3 to do", "predict: 3 to do, 2 already done"):
        code, out, err = call(capsys, finished, photos, "--output", tmp_path / "out", *options)
        assert code == 0
        assert out.splitlines() == [f"2 of 3 masks in {tmp_path / 'out' / 'masks'}"]
        assert said in err
        assert f"skipped: {photos / 'broken.jpg'}" in err
    with Image.open(tmp_path / "out" / "masks" / "a.png") as mask:
        assert set(np.unique(np.asarray(mask))) <= {0, 1}


def test_a_working_size_is_predicted_as_a_copy_of_that_size(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    small = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
    Image.fromarray(small).save(folder / "small.png")
    Image.fromarray(small).resize((540, 360), Image.Resampling.BICUBIC).save(folder / "large.png")
    assert call(capsys, finished, folder, "--output", tmp_path / "out", "--max-side", "54")[0] == 0
    masks = {}
    for name in ("small", "large"):
        with Image.open(tmp_path / "out" / "masks" / f"{name}.png") as mask:
            masks[name] = np.asarray(mask)
    assert masks["large"].shape == (360, 540)
    assert (masks["large"][5::10, 5::10] == masks["small"]).mean() > 0.97


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--scales", "big"), "numbers between commas"),
        (("--tile", "8"), "at least 64 pixels"),
        (("--max-side", "8"), "at least 32 pixels"),
        (("--crf", "deeplap"), "Did you mean 'deeplab'"),
        (("--tags", "none.csv"), "no such table"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_one_line(
    finished: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, str],
    said: str,
) -> None:
    code, _, err = call(capsys, finished, photos, "--output", tmp_path / "out", *options)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_nothing_readable_is_an_error(
    finished: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, finished, photos / "broken.jpg", "--output", tmp_path / "out")
    assert code == 2
    assert "none of the 1 images could be read" in err
