"""12 bits in files of 16: one range through training, report and prediction; 8 bits as ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tagmask
from progress_recorder import ProgressRecorder
from tagmask.data import loading
from tagmask.errors import InputError
from tagmask.pipeline.execute import run
from tagmask.predict.images import predict_images
from tagmask.storage.images import read_image
from tagmask.storage.pictures import load_mask
from tagmask.types import PixelValues

RANGE = PixelValues((0.0,), (4095.0,))


@pytest.fixture
def recipe(short: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """PartsWorld's images in grey, as 12 bits in 16."""
    flat = run({**short, "segment": None}, output=tmp_path / "flat", until="classify").recipe.data.open()
    rows = ["image,tags,split"]
    (tmp_path / "deep" / "images").mkdir(parents=True)
    for split in ("train", "val"):
        for sample in flat.split(split):
            grey = np.asarray(Image.open(sample.image_path).convert("L")).astype(np.uint16)
            name = sample.id.replace("/", "-")
            Image.fromarray(grey * 16).save(tmp_path / "deep" / "images" / f"{name}.png")
            rows.append(f"{name}.png,{'|'.join(flat.classes.names[tag] for tag in sample.tags)},{split}")
    (tmp_path / "deep" / "labels.csv").write_text("\n".join(rows) + "\n")
    segment = {**short["segment"], "supervision": "weak", "epochs": 1}
    return {**short, "segment": segment, "data": {"format": "table", "root": str(tmp_path / "deep")}}


def test_one_range_for_all(recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brightest = []

    def noted(path: Path, **options: Any) -> Any:
        image = read_image(path, **options)
        brightest.append(int(image.max()))
        return image

    monkeypatch.setattr(loading, "read_image", noted)
    recorder, root = ProgressRecorder(), tmp_path / "run"
    done = run(recipe, output=root, progress=recorder)
    assert "pixel values: 0 to 4095 become 0 to 255 (12 training images read)" in recorder.lines
    assert min(brightest) > 100  # by its type the brightest of them would be 16
    entry = json.loads((root / "manifest.json").read_text())["pixels"]
    assert entry == {"low": [0.0], "high": [4095.0], "channels": None}

    predictor = tagmask.load(root, device="cpu")
    assert predictor.pixels == RANGE
    (sample, *_) = done.recipe.data.open().split("val")
    stored = load_mask(done.workspace.prediction_path(sample.id))
    deep = np.asarray(Image.open(sample.image_path))
    for image in (sample.image_path, Image.open(sample.image_path), deep, deep[..., None]):
        np.testing.assert_array_equal(predictor(image).mask, stored)
    with pytest.raises(InputError, match=r"has 1 or 3 bands here.*got uint16 \[48, 48, 2\]"):
        predictor(np.zeros((48, 48, 2), np.uint16))

    Image.fromarray((deep * 3).clip(0, 9000)).save(tmp_path / "bright.png")
    targets = {"bright": tmp_path / "bright.png", "as trained": Path(sample.image_path)}
    (note,) = predict_images(predictor, targets, tmp_path / "out", overlay=False)
    assert (note.id, note.left_out) == ("bright", False)
    assert (
        "values are at the top of the trained range or beyond (pixel values: 0 to 4095 become 0 to 255)" in note.reason
    )

    again = ProgressRecorder()
    run(root, progress=again)
    assert set(again.stages.values()) == {"up to date"}
    tagmask.run(root, overrides=["data.value_range=[0,2047]"], progress=again, until="classify")
    assert again.stages["classify"].startswith("changed: pixels.high [4095.0] -> [2047.0]")
