from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tagmask.cli.predict import collect, overlay_jpeg, predict_all
from tagmask.data.images import read_image
from tagmask.errors import InputError
from tagmask.progress import SilentProgress


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for name in ("a.png", "a.jpg", "sub/a.png", "sub/größe.bmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (200, 10, 10)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def halves(path: Path) -> Any:
    """A predictor that finds class 1 in the right half of every image that can be read."""
    image = read_image(path)
    mask = np.zeros(image.shape[:2], dtype=np.uint8)
    mask[:, image.shape[1] // 2 :] = 1
    return SimpleNamespace(mask=mask)


def test_a_folder_is_searched_and_names_stay_apart(images: Path) -> None:
    found = collect([str(images)])
    assert {name: path.relative_to(images).as_posix() for name, path in found.items()} == {
        "a": "a.jpg",
        "a.png": "a.png",
        "sub/a": "sub/a.png",
        "sub/größe": "sub/größe.bmp",
    }


def test_globs_files_and_equal_names_from_two_folders(images: Path) -> None:
    found = collect([str(images / "*.png"), str(images / "sub" / "a.png"), str(images / "a.png")])
    assert {name: path.relative_to(images).as_posix() for name, path in found.items()} == {
        "a": "a.png",
        "a.png": "sub/a.png",
    }


@pytest.mark.parametrize("pattern", ["nowhere.jpg", "*.gif", "empty"])
def test_nothing_found_is_an_error(pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(InputError, match=pattern.replace("*", r"\*")):
        collect([pattern])


def test_bad_images_are_listed_and_the_rest_is_written(images: Path, tmp_path: Path) -> None:
    (images / "broken.jpg").write_text("this is no image")
    output = tmp_path / "out"
    problems = predict_all(halves, collect([str(images)]), output, overlay=True, progress=SilentProgress())
    assert [problem.id for problem in problems] == ["broken"]
    listed = [json.loads(line) for line in (output / "problems.jsonl").read_text().splitlines()]
    assert [line["path"] for line in listed] == [str(images / "broken.jpg")]
    written = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.png"))
    assert written == ["masks/a.png", "masks/a.png.png", "masks/sub/a.png", "masks/sub/größe.png"]
    with Image.open(output / "masks" / "sub" / "größe.png") as mask:
        assert mask.mode == "P"
        assert np.unique(np.asarray(mask)).tolist() == [0, 1]
    assert len(list(output.rglob("overlays/**/*.jpg"))) == 4


def test_no_overlay_writes_none(images: Path, tmp_path: Path) -> None:
    predict_all(halves, collect([str(images)]), tmp_path / "out", overlay=False, progress=SilentProgress())
    assert not (tmp_path / "out" / "overlays").exists()


def test_overlay_leaves_the_background_alone(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "overlay.jpg"
    path.write_bytes(overlay_jpeg(images / "a.png", halves(images / "a.png").mask))
    shown = np.asarray(Image.open(path)).astype(int)
    assert shown.shape == (4, 6, 3)
    assert abs(shown[2, 0] - (200, 10, 10)).max() < 40
    assert shown[2, 5, 0] < 190, "half of the object's red comes from the palette (128, 0, 0)"
