"""Five bands of 16 bits through every stage, and whatever looks at colours on the way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import tagmask
from progress_recorder import ProgressRecorder
from tagmask import cli
from tagmask.data.health.check import check
from tagmask.data.pixels import survey_pixels
from tagmask.errors import DataError, InputError
from tagmask.pipeline.execute import run
from tagmask.settings.loading import load_recipe
from tagmask.storage.pictures import load_mask
from tagmask.storage.weights import read_description
from tagmask.types import DataSource

CHANNELS = [4, 2, 3, 1, 5]


def bands_of(path: Path) -> NDArray[np.uint16]:
    """Red, green, blue, their mean, and a constant, as 12 bits in 16."""
    colours = np.asarray(Image.open(path).convert("RGB")).astype(np.uint16)
    grey = colours.mean(axis=2, keepdims=True).astype(np.uint16)
    return np.concatenate([colours, grey, np.full_like(grey, 100)], axis=2) * 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PartsWorld as TIFF of five bands, and its masks."""
    root = tmp_path_factory.mktemp("bands")
    flat: DataSource = load_recipe({"data": {"format": "partsworld", "train": 12, "val": 4, "size": 48}}).data.open()
    rows = ["image,tags,split"]
    for name in ("images", "masks"):
        (root / name).mkdir()
    for split in ("train", "val"):
        for sample in flat.split(split):
            name = sample.id.replace("/", "-")
            planar = "separate" if split == "val" else "contig"
            values = bands_of(sample.image_path)
            stored = values.transpose(2, 0, 1) if planar == "separate" else values
            tifffile.imwrite(root / "images" / f"{name}.tif", stored, photometric="minisblack", planarconfig=planar)
            Image.fromarray(flat.read_mask(sample)).save(root / "masks" / f"{name}.png")
            rows.append(f"{name}.tif,{'|'.join(flat.classes.names[tag] for tag in sample.tags)},{split}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    (root / "classes.txt").write_text("\n".join(flat.classes.foreground) + "\n")
    return root


def data(folder: Path) -> dict[str, Any]:
    return {
        "format": "table", "root": str(folder), "masks": "masks", "classes": "classes.txt", "channels": CHANNELS
    }  # fmt: skip


@pytest.fixture
def widths() -> Iterator[Counter[int]]:
    """Channels of the images that first convolutions have seen."""
    counts: Counter[int] = Counter()

    def watch(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not isinstance(module, nn.Conv2d):
            return
        _, channels, *size = inputs[0].shape
        if channels in (3, 5) and size != [67, 45]:  # whether a backbone takes any size is tried before it is widened
            counts[channels] += 1

    handle = nn.modules.module.register_module_forward_pre_hook(watch)
    yield counts
    handle.remove()


def test_every_stage_of_five_bands(
    short: dict[str, Any], folder: Path, tmp_path: Path, widths: Counter[int], capsys: pytest.CaptureFixture[str]
) -> None:
    learnt = {"batch_size": 4, "epochs": 1, "init": "classifier"}
    segment = {
        **short["segment"],
        "epochs": 1,
        "rounds": 2,
        "loss": "aamr",
        "saliency": "minimum_barrier",
        "tag_gate": 0.05,
        "crf": "deeplab",
    }
    recipe = {
        **short,
        "data": data(folder),
        "max_side": 40,
        "retrain": [{"epochs": 1, "augment": {"crop": 48, "colour_jitter": 0.3}}],
        "localize": {"name": "ssa", "inner": "lpcam", "scales": [1.0]},
        "refine": [
            "colour_walk",
            {"name": "dense_crf"},
            {"name": "affinitynet", "crop": 96, **learnt},
            {"name": "irnet", "crop": 96, **learnt},
            {"name": "threshold", "value": 0.4},
        ],
        "segment": segment,
    }
    recorder, root = ProgressRecorder(), tmp_path / "run"
    done = run(recipe, output=root, progress=recorder)
    assert "bands 4, 2, 3, 1, 5: 0 to 4095, 1600 to 1616 become 0 to 255 (12 training images read)" in recorder.lines
    assert not [problem for problem in done.workspace.problems() if problem.left_out]
    assert widths[5] > 0
    assert widths[3] == 0

    manifest = json.loads((root / "manifest.json").read_text())
    statistics = manifest["pixels"]["input_statistics"]
    assert manifest["pixels"]["channels"] == CHANNELS
    assert (statistics["mean"][4], statistics["std"][4]) == (0, 0.05)  # a band that says nothing
    for stage in ("classify", "classify/2", "segment", "segment/2", "segment/full"):
        description = read_description(done.workspace.model_path(stage))
        for key, values in statistics.items():  # random weights are fed as ImageNet's are
            assert description["input_statistics"][key] == pytest.approx(values)
        assert description["pixels"]["channels"] == CHANNELS

    predictor = tagmask.load(root, device="cpu")
    (sample, *_) = done.recipe.data.open().split("val")
    stored = load_mask(done.workspace.prediction_path(sample.id, "segment/2"))
    whole = tifffile.imread(sample.image_path).transpose(1, 2, 0)
    np.testing.assert_array_equal(predictor(sample.image_path).mask, stored)
    np.testing.assert_array_equal(predictor(whole).mask, stored)
    with pytest.raises(InputError, match=r"at least 5 bands here, as the files have, got uint16 \[48, 48, 3\]"):
        predictor(whole[..., :3])

    with pytest.raises(SystemExit) as left:
        cli.main(["predict", str(root), str(folder / "images"), "--output", str(tmp_path / "out"), "--plain"])
    assert not left.value.code, capsys.readouterr().err
    with Image.open(next((tmp_path / "out" / "overlays").glob("*.jpg"))) as overlay:
        assert overlay.mode == "RGB"

    others = {**recipe, "localize": "cam", "refine": ["pamr", "local_contrast", "threshold"]}
    run(others, output=tmp_path / "others", reuse=root, until="refine")
    assert (tmp_path / "others" / "refine" / "masks").is_dir()

    again = ProgressRecorder()
    run(root, progress=again)
    assert set(again.stages.values()) == {"up to date"}
    run(root, overrides=["data.channels=4"], progress=again, until="classify")
    assert again.stages["classify"].startswith("changed: ")
    assert "pixels.channels" in again.stages["classify"]


def test_other_bands_are_other_images(folder: Path) -> None:
    """The order of the channels is that of the list, and a number means so many of the first."""
    one, first = (
        survey_pixels(load_recipe({"data": {**data(folder), "channels": channels}}).data.open())
        for channels in ([4, 5], 2)
    )
    assert one is not None
    assert first is not None
    assert (one.pixels.channels, first.pixels.channels) == ((4, 5), (1, 2))
    assert one.statistics is not None
    assert one.statistics.mean[1] == 0
    assert one.statistics.mean[0] > 0.2


def test_a_band_that_is_not_there(folder: Path) -> None:
    source = load_recipe({"data": {**data(folder), "channels": [6]}}).data.open()
    with pytest.raises(DataError, match=r"has 5 bands, and data\.channels asks for band 6"):
        survey_pixels(source)
    for wrong in ([], [0], 0):
        with pytest.raises(InputError, match="channels"):
            load_recipe({"data": {**data(folder), "channels": wrong}})


def test_without_channels_the_error_says_how(folder: Path) -> None:
    report = check(load_recipe({"data": {**data(folder), "channels": None}}).data.open())
    assert len(report.unreadable) == 16
    assert "is a TIFF of 5 bands, which are no colours. Name those to read" in report.unreadable[0].reason
    report = check(load_recipe({"data": data(folder)}).data.open())
    assert not report.unreadable
    assert report.pixels.startswith("bands 4, 2, 3, 1, 5: 0 to 4095")
