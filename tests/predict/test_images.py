"""Many images at once: names, what cannot be read, known tags, and going on where an earlier call stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tagmask.engine.engine import Engine
from tagmask.errors import DataError, InputError, UnknownNameError
from tagmask.models.inference import Inference
from tagmask.predict.images import KnownTags, collect, overlay_jpeg, predict_images
from tagmask.settings.engine import EngineSettings
from tagmask.storage.images import image_size, read_image
from tagmask.types import Problem, UInt8Array


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for name in ("a.png", "a.jpg", "sub/a.png", "sub/größe.bmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (200, 10, 10)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


class Halves:
    """A predictor that finds class 1 in the right half of every image, or the highest of the known tags."""

    classes = ("background", "a", "b")
    pixels, trained_long_side = None, 0

    def __init__(self, fingerprint: str = "one", *, stop_at: int | None = None) -> None:
        self.engine = Engine(EngineSettings(device="cpu", precision="float32", threads=1), seed=0)
        self.inference, self.fingerprint, self.stop_at = Inference(), fingerprint, stop_at
        self.calls = 0

    def read(self, path: Path) -> tuple[UInt8Array, tuple[int, int]]:
        return read_image(path, max_side=self.inference.max_side), image_size(path)

    def labels(
        self, image: UInt8Array, *, tags: Sequence[int] | None = None, size: tuple[int, int] | None = None
    ) -> UInt8Array:
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        height, width = size or (image.shape[0], image.shape[1])
        mask = np.zeros((height, width), dtype=np.uint8)
        mask[:, width // 2 :] = 1 if tags is None else max(tags, default=0)
        return mask


def predict(images: Path, output: Path, predictor: Any = None, **options: Any) -> list[Problem]:
    return predict_images(predictor or Halves(), collect([str(images)]), output, **options)


def test_a_folder_is_searched_and_names_stay_apart(images: Path) -> None:
    result = collect([str(images)])
    assert {name: path.relative_to(images).as_posix() for name, path in result.items()} == {
        "a": "a.jpg",
        "a.png": "a.png",
        "sub/a": "sub/a.png",
        "sub/größe": "sub/größe.bmp",
    }


def test_what_an_earlier_call_wrote_among_the_images_is_no_image(images: Path) -> None:
    """Nor is a hidden file, such as macOS's copies of attributes."""
    expected = collect([str(images)])
    (images / "._a.jpg").write_text("attributes")
    (images / ".cache").mkdir()
    Image.new("RGB", (4, 4)).save(images / ".cache" / "thumbnail.png")
    assert not predict_images(Halves(), collect([str(images)], images / "out"), images / "out")
    assert set(collect([str(images / "**" / "*.jpg")], images / "out")) == {"a"}
    assert not predict_images(Halves(), collect([str(images)], images), images)
    assert collect([str(images)], images) == collect([str(images)]) == expected
    assert len(collect([str(images / "out" / "masks")], images / "out")) == len(expected)  # asked for by name


def test_globs_files_and_equal_names_from_two_folders(images: Path) -> None:
    result = collect([str(images / "*.png"), str(images / "sub" / "a.png"), str(images / "a.png")])
    assert {name: path.relative_to(images).as_posix() for name, path in result.items()} == {
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
    problems = predict(images, output)
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
    predict(images, tmp_path / "out", overlay=False)
    assert not (tmp_path / "out" / "overlays").exists()


def test_overlay_leaves_the_background_alone(images: Path, tmp_path: Path) -> None:
    path, image = tmp_path / "overlay.jpg", read_image(images / "a.png")
    path.write_bytes(overlay_jpeg(image, Halves().labels(image)))
    shown = np.asarray(Image.open(path)).astype(int)
    assert shown.shape == (4, 6, 3)
    assert abs(shown[2, 0] - (200, 10, 10)).max() < 40
    assert shown[2, 5, 0] < 190, "half of the object's red comes from the palette (128, 0, 0)"


# -- going on --------------------------------------------------------------------------------------------


def test_what_is_finished_is_not_done_again(images: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        predict(images, tmp_path / "out", Halves(stop_at=2))
    assert len(list((tmp_path / "out" / "masks").rglob("*.png"))) == 2
    again = Halves()
    predict(images, tmp_path / "out", again)
    assert again.calls == 2
    nothing = Halves()
    predict(images, tmp_path / "out", nothing)
    assert nothing.calls == 0


def test_missing_overlays_are_made_later(images: Path, tmp_path: Path) -> None:
    predict(images, tmp_path / "out", overlay=False)
    later = Halves()
    predict(images, tmp_path / "out", later, overlay=True)
    assert later.calls == 4


def test_a_changed_image_is_done_again(images: Path, tmp_path: Path) -> None:
    predict(images, tmp_path / "out")
    Image.new("RGB", (6, 4)).save(images / "a.png")
    later = (images / "a.png").stat().st_mtime_ns + 10**9
    os.utime(images / "a.png", ns=(later, later))
    again = Halves()
    predict(images, tmp_path / "out", again)
    assert again.calls == 1


def test_another_model_or_other_settings_start_again(images: Path, tmp_path: Path) -> None:
    """Also when the call that started again was stopped before it came to an end."""
    predict(images, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        predict(images, tmp_path / "out", Halves("other", stop_at=1))
    again = Halves("other")
    predict(images, tmp_path / "out", again)
    assert again.calls == 3
    flipped = Halves("other")
    flipped.inference = Inference(flip=False)
    predict(images, tmp_path / "out", flipped)
    assert flipped.calls == 4


def test_a_bad_image_is_named_each_time(images: Path, tmp_path: Path) -> None:
    (images / "broken.jpg").write_text("this is no image")
    for _ in range(2):
        assert [problem.id for problem in predict(images, tmp_path / "out")] == ["broken"]


def test_nothing_but_bad_images(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "ba":
        (tmp_path / "in" / f"{name}.jpg").write_text("this is no image")
    assert [problem.id for problem in predict(tmp_path / "in", tmp_path / "out")] == ["a", "b"]
    assert len((tmp_path / "out" / "problems.jsonl").read_text().splitlines()) == 2


# -- known tags ------------------------------------------------------------------------------------------


def test_known_tags_are_found_by_any_form_of_the_name(images: Path, tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,b\nsub/a,a|b\nsub/größe.bmp,\n")
    known = KnownTags.read(tmp_path / "tags.csv", Halves.classes)
    problems = predict(images, tmp_path / "out", tags=known)
    result = {
        path.relative_to(tmp_path / "out" / "masks").as_posix(): int(np.asarray(Image.open(path)).max())
        for path in (tmp_path / "out" / "masks").rglob("*.png")
    }
    assert result == {"a.png": 2, "a.png.png": 2, "sub/a.png": 2, "sub/größe.png": 0}
    assert problems == []


def test_known_tags_are_looked_up_as_those_of_training(images: Path, tmp_path: Path) -> None:
    """Folders of another machine in front, another case, another suffix; never where two would be one."""
    table = tmp_path / "tags.csv"
    table.write_text("image,tags\nC:\\\\photos\\\\SUB\\\\Größe.JPG,a\nold/sub/a.tif,b\n")
    problems = predict(images / "sub", tmp_path / "out", tags=KnownTags.read(table, Halves.classes))
    result = {path.stem: int(np.asarray(Image.open(path)).max()) for path in (tmp_path / "out" / "masks").iterdir()}
    assert result == {"a": 2, "größe": 1}
    assert [(problem.left_out, problem.reason.partition(":")[0]) for problem in problems] == [
        (False, "2 names differ from those of the files and are read as theirs")
    ]
    table.write_text("image,tags\nold/GRÖSSE.jpg,a\nnew/GRÖSSE.jpg,b\n")
    problems = predict(images / "sub", tmp_path / "out", tags=KnownTags.read(table, Halves.classes))
    assert {problem.id for problem in problems if "no tags of it" in problem.reason} == {"a", "größe"}


def test_an_image_without_known_tags_is_predicted_freely_and_named(images: Path, tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,b\n")
    known = KnownTags.read(tmp_path / "tags.csv", Halves.classes)
    problems = predict(images / "sub", tmp_path / "out", tags=known)
    assert {(problem.id, problem.left_out) for problem in problems} == {("größe", False)}


def test_what_is_no_table_of_known_tags(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,zebra\n")
    with pytest.raises(UnknownNameError, match="not one tag is known"):
        KnownTags.read(tmp_path / "tags.csv", Halves.classes)
    with pytest.raises(DataError, match="no such table"):
        KnownTags.read(tmp_path / "none.csv", Halves.classes)


@pytest.mark.parametrize(
    ("trained", "inference", "noted"),
    [
        (320, Inference(), True),
        (400, Inference(), False),  # twice as long is no reason
        (320, Inference(max_side=512), False),
        (320, Inference(tile=256), False),
        (0, Inference(), False),  # files of earlier versions do not say
    ],
)
def test_an_image_far_larger_than_those_of_the_training_is_noted(
    tmp_path: Path, trained: int, inference: Inference, noted: bool
) -> None:
    Image.new("RGB", (800, 40)).save(tmp_path / "a.png")
    predictor = Halves()
    predictor.trained_long_side, predictor.inference = trained, inference
    problems = predict_images(predictor, {"a": tmp_path / "a.png"}, tmp_path / "out")  # type: ignore[arg-type]
    reasons = [(problem.reason, problem.left_out) for problem in problems]
    said = (
        "800 pixels long, the network was trained on images of up to 320: things look unlike what it learnt. "
        "--max-side 512 predicts it smaller"
    )
    assert reasons == ([(said, False)] if noted else [])


def test_a_working_size_gives_full_masks_and_overlays_to_look_at(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of a predictor without one is what it always was: finished work stays finished."""
    monkeypatch.setattr("tagmask.predict.images.OVERLAY_SIDE", 5)
    full = {name: image_size(path) for name, path in collect([str(images)]).items()}
    small = Halves("two")
    small.inference = Inference(max_side=4)
    predict(images, tmp_path / "small", small)
    predict(images, tmp_path / "whole", Halves("two"))
    assert max(max(size) for size in full.values()) > 5
    for name, (height, width) in full.items():
        with Image.open(tmp_path / "small" / "masks" / f"{name}.png") as mask:
            assert mask.size == (width, height)
        with Image.open(tmp_path / "small" / "overlays" / f"{name}.jpg") as overlay:
            assert max(overlay.size) == min(5, max(height, width))
    assert json.loads((tmp_path / "small" / "prediction.json").read_text())["max_side"] == 4
    assert "max_side" not in json.loads((tmp_path / "whole" / "prediction.json").read_text())
