"""A trained network as a function: every form of an image gives one mask; what is no image or no model is one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import tagmask
from tagmask.errors import InputError, RunError, UnknownNameError, UnreadableImageError
from tagmask.predict.predictor import Predictor
from tagmask.runs.workspace import Workspace
from tagmask.storage.pictures import load_mask


@pytest.fixture(scope="module")
def predictor(finished: Path) -> Predictor:
    return tagmask.load(finished, device="cpu")


def noise(height: int = 40, width: int = 50) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_run_and_its_file_are_the_same_predictor(predictor: Predictor, finished: Path) -> None:
    file = tagmask.load(finished / "segment" / "model.safetensors", device="cpu")
    assert file.classes == predictor.classes
    assert file.classes[0] == "background"
    assert len(file.classes) == 9
    one, other = predictor(noise()), file(noise())
    assert np.array_equal(one.probabilities, other.probabilities)


def test_a_run_with_full_supervision_only(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "segment" / "full", tmp_path / "segment" / "full")
    result = tagmask.load(tmp_path, device="cpu")(noise())
    direct = tagmask.load(finished / "segment" / "full" / "model.safetensors", device="cpu")(noise())
    assert np.array_equal(result.probabilities, direct.probabilities)


def test_it_repeats_the_runs_own_predictions(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every image of val, in the precision of the run."""
    from tagmask.engine import engine

    monkeypatch.setattr(engine, "_best_precision", lambda accelerator: "float32")
    exact = tagmask.load(finished, device="cpu")
    source = tagmask.load_recipe(finished / "recipe.yaml").data.open()
    space = Workspace(finished)
    for sample in source.split("val"):
        stored = load_mask(space.prediction_path(sample.id))
        assert np.array_equal(exact(sample.image_path).mask, stored)


def test_a_prediction_is_what_it_says(predictor: Predictor) -> None:
    result = predictor(noise(33, 47))
    assert result.mask.shape == (33, 47)
    assert result.mask.dtype == np.uint8
    assert result.probabilities.shape == (9, 33, 47)
    assert result.probabilities.dtype == np.float32
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(result.probabilities.argmax(0), result.mask)


def test_labels_alone_are_the_mask(predictor: Predictor) -> None:
    """But for rounding, in the precision of this machine."""
    for size in ((40, 50), (97, 33)):
        assert (predictor.labels(noise(*size)) != predictor(noise(*size)).mask).mean() < 1e-3


def test_array_picture_path_and_text_are_one_image(predictor: Predictor, tmp_path: Path) -> None:
    pixels = noise()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = predictor(pixels).probabilities
    with Image.open(tmp_path / "a.png") as opened:
        for image in (Image.fromarray(pixels), opened, tmp_path / "a.png", str(tmp_path / "a.png")):
            assert np.array_equal(predictor(image).probabilities, expected)


def saved_as(kind: str, folder: Path) -> Path:
    picture, path = Image.fromarray(noise()), folder / "image.png"
    if kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        path = folder / "image.jpg"
        picture.save(path, exif=exif)
    elif kind == "transparent":
        picture.putalpha(Image.fromarray(noise()[..., 0]))
        picture.save(path)
    elif kind == "deep":
        Image.fromarray(noise()[..., 0].astype(np.uint16) * 257).save(path)
    else:
        picture.convert({"palette": "P", "grey": "L"}[kind]).save(path)
    return path


@pytest.mark.parametrize("kind", ["rotated", "transparent", "deep", "palette", "grey"])
def test_every_kind_of_picture_is_the_same_opened_and_as_a_path(
    predictor: Predictor, tmp_path: Path, kind: str
) -> None:
    path = saved_as(kind, tmp_path)
    by_path = predictor(path)
    with Image.open(path) as opened:
        assert np.array_equal(predictor(opened).probabilities, by_path.probabilities)
    assert by_path.mask.shape == ((50, 40) if kind == "rotated" else (40, 50))


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (31, 33)])
def test_any_size(predictor: Predictor, size: tuple[int, int]) -> None:
    assert predictor(noise(*size)).mask.shape == size


@pytest.mark.parametrize(
    "image",
    [
        noise()[..., 0],
        noise().astype(np.float32),
        noise()[:0],
        np.zeros((5, 5, 4), np.uint8),
        noise().tolist(),
        None,
        3,
        b"bytes",
        torch.zeros(3, 5, 5),
    ],
    ids=lambda image: type(image).__name__,
)
def test_what_is_no_image_is_one_line(predictor: Predictor, image: Any) -> None:
    with pytest.raises(InputError, match="an image") as raised:
        predictor(image)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 150


def test_an_image_that_cannot_be_read_is_named(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    for path in (tmp_path / "text.jpg", tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(UnreadableImageError) as raised:
            predictor(path)
        assert str(path) in str(raised.value)


def test_known_tags_exclude_all_other_classes(predictor: Predictor) -> None:
    result = predictor(noise(), tags=[predictor.classes[2], predictor.classes[5]])
    assert set(np.unique(result.mask)) <= {0, 2, 5}
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(predictor.labels(noise(), tags=[2, 5]), result.mask)
    assert not predictor(noise(), tags=[]).mask.any()
    with pytest.raises(UnknownNameError, match="zebra"):
        predictor(noise(), tags=["zebra"])


def test_the_recipes_inference_can_be_changed(finished: Path) -> None:
    plain = tagmask.load(finished, device="cpu", flip=False)
    assert plain.inference.scales == tagmask.load_recipe(finished / "recipe.yaml").segment.scales
    other = tagmask.load(finished, device="cpu", scales=[0.5, 1.0], tile=64, crf="deeplab")
    assert (other.inference.scales, other.inference.tile, other.inference.crf) == ((0.5, 1.0), 64, "deeplab")
    assert other(noise()).mask.shape == (40, 50)
    off = tagmask.load(finished, device="cpu", tile=0, crf="none").inference
    assert (off.tile, off.crf) == (None, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"crf": "deeplb"}, "Did you mean 'deeplab'"), ({"tile": 3}, "at least 64 pixels"), ({"scales": [0]}, "factors")],
    ids=str,
)
def test_impossible_changes_are_one_line(finished: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tagmask.load(finished, device="cpu", **changes)


# -- what is no model ------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as raised:
        tagmask.load(path, device="cpu")
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)
    return str(raised.value)


def test_a_classifier_is_called_one(finished: Path) -> None:
    assert "holds a classifier, not a segmentation model" in refusal(finished / "classify" / "model.safetensors")


def test_nothing_there(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.safetensors")
    assert "run its recipe to the end first" in refusal(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_pickles_are_refused_and_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    torch.save({"weight": torch.ones(3), "bomb": Bomb()}, path)
    assert "not a model saved by tagmask" in refusal(path)
    assert not (tmp_path / "exploded").exists()


def test_half_a_file(finished: Path, tmp_path: Path) -> None:
    content = (finished / "segment" / "model.safetensors").read_bytes()
    for length in (0, 5, 200, len(content) // 2, len(content) - 1):
        (tmp_path / "m.safetensors").write_bytes(content[:length])
        assert "not a model saved by tagmask" in refusal(tmp_path / "m.safetensors")


WHOLE = {"kind": "segmenter", "classes": ["background", "a"], "scales": [1.0], "flip": True}


@pytest.mark.parametrize(
    ("description", "said"),
    [
        (None, "not a model saved by tagmask"),
        ("no json", "not a model saved by tagmask"),
        ([], "not a segmentation model"),
        (3, "not a model saved by tagmask"),
        ({"kind": "segmenter"}, "not complete"),
        (WHOLE, "not complete"),
        (
            {**WHOLE, "network": {"name": "deeplabv3plu"}},
            "unknown network 'deeplabv3plu'. Did you mean 'deeplabv3plus'",
        ),
        ({**WHOLE, "network": {"name": "deeplabv3plus", "encodr": "x"}}, "Did you mean 'encoder'"),
        ({**WHOLE, "network": {"name": "deeplabv3plus"}}, "does not fit"),
    ],
    ids=str,
)
def test_files_of_somebody_else(tmp_path: Path, description: Any, said: str) -> None:
    text = description if isinstance(description, str) else json.dumps(description)
    metadata = None if description is None else {"tagmask": text}
    save_file({"a": torch.ones(3)}, tmp_path / "m.safetensors", metadata=metadata)
    assert said in refusal(tmp_path / "m.safetensors")


def test_devices_have_names(finished: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'cpu'"):
        tagmask.load(finished, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(RunError, match="this machine has none"):
            tagmask.load(finished, device="cuda")
