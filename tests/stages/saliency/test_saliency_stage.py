"""Where saliency comes from, what becomes of maps that are missing or wrong, and how it reaches the training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from progress_recorder import ProgressRecorder
from tagmask.data.loading import ImageLoader
from tagmask.errors import InputError, RecipeError, RunError, UnreadableImageError
from tagmask.methods.saliency_folder.saliency import FolderSaliency
from tagmask.methods.saliency_function.saliency import FunctionSaliency
from tagmask.pipeline.execute import run, status
from tagmask.runs.workspace import Workspace
from tagmask.settings.loading import load_recipe
from tagmask.stages.planes import planes_of
from tagmask.stages.segment.guides import check_saliency, weights_reader
from tagmask.stages.segment.stage import MaskSet, SegmentationTask
from tagmask.storage.pictures import load_mask, save_grey
from tagmask.types import IMAGENET

IMAGE = np.zeros((8, 12, 3), np.uint8)


def bright(image: Any) -> Any:
    return image.mean(axis=2) / 255


def broken(image: Any) -> Any:
    raise RuntimeError("no\nluck")


def wrong(image: Any) -> Any:
    return image.mean(axis=2)


# -- sources -----------------------------------------------------------------------------------------------


def test_a_picture_of_any_size_is_stretched(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    half = np.zeros((40, 60), np.uint8)
    half[:, 30:] = 255
    Image.fromarray(half).save(tmp_path / "a" / "b.png")
    found = FolderSaliency(path=tmp_path).find("a/b", IMAGE)
    assert found.shape == (8, 12)
    assert found.dtype == np.float32
    assert (found[:, :5] < 0.1).all()
    assert (found[:, 7:] > 0.9).all()
    np.testing.assert_allclose(FolderSaliency(path=tmp_path, invert=True).find("a/b", IMAGE), 1 - found)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "1", "P"])
def test_every_kind_of_grey_is_read(tmp_path: Path, mode: str) -> None:
    values = np.zeros((8, 12), np.uint8)
    values[2:5] = 255
    picture = Image.fromarray(values)
    picture = Image.fromarray(values.astype(np.uint16) * 257) if mode == "I;16" else picture.convert(mode)
    picture.save(tmp_path / "x.png")
    np.testing.assert_allclose(FolderSaliency(path=tmp_path).find("x", IMAGE), values / 255, atol=0.01)


def test_missing_and_torn_pictures_are_said(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"none\.png: no saliency map"):
        FolderSaliency(path=tmp_path).find("none", IMAGE)
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    with pytest.raises(UnreadableImageError, match=r"torn\.png"):
        FolderSaliency(path=tmp_path).find("torn", IMAGE)


def test_an_edited_folder_is_another_one(tmp_path: Path) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "x.png")
    source = FolderSaliency(path=tmp_path)
    before = source.state()
    assert source.state() == before
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "y.png")
    assert source.state() != before


def test_a_function_is_called() -> None:
    source = FunctionSaliency(function=f"{__name__}:bright")
    np.testing.assert_array_equal(source.find("x", IMAGE + np.uint8(255)), np.ones((8, 12), np.float32))


@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        ("no_such_module:f", InputError, "cannot be imported"),
        (f"{__name__}:nothing", InputError, "cannot be imported"),
        (f"{__name__}:IMAGE", InputError, "is a ndarray, not a function"),
        (f"{__name__}:broken", UnreadableImageError, "RuntimeError: no luck"),
        (f"{__name__}:wrong", UnreadableImageError, r"wanted finite values in \[0, 1\]"),
    ],
)
def test_a_function_that_fails_is_one_line(function: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as raised:
        FunctionSaliency(function=function).find("x", IMAGE + np.uint8(9))
    assert "\n" not in str(raised.value)


# -- the stage ---------------------------------------------------------------------------------------------


@pytest.fixture
def salient(tiny: dict[str, Any]) -> dict[str, Any]:
    tiny["segment"].update(supervision="weak", epochs=1, loss="aamr", saliency="minimum_barrier")
    return tiny


def test_a_loss_that_needs_saliency_says_so(salient: dict[str, Any]) -> None:
    del salient["segment"]["saliency"]
    with pytest.raises(RecipeError, match=r"aamr needs saliency maps; set segment.saliency \(.*folder.*\)"):
        load_recipe(salient)
    with pytest.raises(InputError, match=r"unknown loss 'aamrr'\. Did you mean 'aamr'"):
        load_recipe(salient, ["segment.loss=aamrr"])
    recipe = load_recipe(salient, ["segment.saliency=minimum_barrier", "segment.loss.alpha=0.2"])
    assert recipe.segment is not None
    assert recipe.segment.loss.alpha == 0.2
    assert load_recipe(recipe.dump()) == recipe


def test_maps_are_made_once_and_reach_the_loss(salient: dict[str, Any], tmp_path: Path, finished: Path) -> None:
    done = run(salient, output=tmp_path / "run", reuse=finished)
    stages = [row["stage"] for row in status(done.path)]
    assert stages == ["classify", "localize", "refine", "saliency", "segment", "evaluate"]
    maps = sorted((done.path / "saliency" / "maps").iterdir())
    assert [path.stem for path in maps] == [f"train_{n:05}" for n in range(12)]
    line = json.loads((done.path / "segment" / "history.jsonl").read_text().splitlines()[0])
    assert line["loss"] > line["segmentation"] > 0
    assert {"saliency", "tau"} <= line.keys()
    assert json.loads((done.path / "segment" / "saliency.json").read_text())["images"] == 12

    times = {path: path.stat().st_mtime_ns for path in maps}
    maps[3].unlink()
    (done.path / "segment" / "saliency.json").unlink()
    run(done.path)
    assert {path for path in maps if path.stat().st_mtime_ns != times[path]} == {maps[3]}
    assert {row["status"] for row in status(done.path)} == {"done"}

    run(done.path, overrides=["segment.loss.alpha=0.5"], until="segment")
    reasons = {row["stage"]: row["reason"] for row in status(done.path)}
    assert reasons["segment"] == "changed: loss.alpha 0.08 -> 0.5"
    assert "changed" not in reasons["saliency"]


def test_an_image_without_a_map_is_listed_and_trained(salient: dict[str, Any], tmp_path: Path, finished: Path) -> None:
    folder = tmp_path / "maps"
    folder.mkdir()
    for number in range(11):
        Image.fromarray(np.full((5, 5), 200, np.uint8)).save(folder / f"train_{number:05}.png")
    salient["segment"]["saliency"] = {"name": "folder", "path": str(folder)}
    done = run(salient, output=tmp_path / "run", reuse=finished)
    (problem,) = [problem for problem in Workspace(done.path).problems() if problem.stage == "saliency"]
    assert (problem.id, problem.left_out) == ("train_00011", False)
    assert "plain cross entropy" in problem.reason
    assert not [p for p in Workspace(done.path).problems() if p.stage.startswith("segment")]

    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(RunError, match=f"none of 12 training images has a map from {folder}") as raised:
        run(done.path)
    assert "\n" not in str(raised.value)


# -- what the training sees --------------------------------------------------------------------------------


def test_padding_and_missing_maps_are_not_valid(context_of: Any, salient: dict[str, Any]) -> None:
    context = context_of(salient)
    samples, settings = context.samples("train")[:2], context.recipe.segment
    workspace = context.workspace
    save_grey(workspace.grey_path(samples[0].id, "saliency", "maps"), np.full((48, 48), 0.6))
    settings = settings.model_copy(
        update={"augment": settings.augment.model_copy(update={"crop": 64, "scale": (1, 1)})}
    )
    dataset = MaskSet(
        ImageLoader("segment", max_pixels=10**6), samples, settings, lambda s: np.ones((48, 48), np.uint8),
        statistics=IMAGENET, planes={"saliency"}, read_planes=lambda s: planes_of(workspace, {"saliency"}, s),
        read_weights=lambda s: np.full((48, 48), 0.5, np.float32),
    )  # fmt: skip
    first, second = (dataset.item(index, np.random.default_rng(index)) for index in range(2))
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    inside = first["labels"] != 255
    assert torch.equal(first["valid"], inside)
    assert int(inside.sum()) == 48 * 48
    assert torch.equal(first["saliency"], torch.where(inside, 153 / 255, 0.0))
    assert torch.equal(first["weights"], torch.where(inside, 0.5, 0.0))
    assert not second["valid"].any()
    assert not second["saliency"].any()


def test_the_loss_does_not_see_the_saliency_of_padding(context_of: Any, salient: dict[str, Any]) -> None:
    """Zeros around an image are no background that somebody has marked."""
    settings = context_of(salient).recipe.segment
    torch.manual_seed(0)
    model = settings.network.build(9, pretrained=False).eval()
    task = SegmentationTask(settings, model, None)  # type: ignore[arg-type]
    inside = torch.zeros(2, 64, 64, dtype=torch.bool)
    inside[:, 8:56, 4:52] = True
    labels = torch.randint(0, 9, (2, 64, 64)).where(inside, torch.tensor(255))
    batch = {"image": torch.randn(2, 3, 64, 64), "labels": labels, "saliency": torch.rand(2, 64, 64), "valid": inside}
    changed = {**batch, "saliency": torch.where(inside, batch["saliency"], 1 - batch["saliency"])}
    with torch.no_grad():
        terms, again = task.losses(model, batch), task.losses(model, changed)
        unmasked = task.losses(model, {**batch, "valid": torch.ones_like(inside)})
    assert float(terms["saliency"]) == pytest.approx(float(again["saliency"]), rel=1e-6)
    assert float(terms["saliency"]) != pytest.approx(float(unmasked["saliency"]), rel=1e-3)


def test_weights_come_from_the_maps_and_the_threshold(context_of: Any, salient: dict[str, Any], finished: Path) -> None:
    salient["segment"]["confidence"] = {"width": 1.0}
    context = context_of(salient, root=finished)
    read = weights_reader(context, context.recipe.segment.confidence, "segment")
    workspace = Workspace(finished)
    for sample in context.samples("train")[:4]:
        weights, found = read(sample), workspace.load_maps(sample.id, stage="refine")
        assert weights is not None
        assert weights.shape == found.image_size
        assert 0 <= weights.min() <= weights.max() <= 1
        mask = load_mask(workspace.mask_path(sample.id))
        top = np.asarray(found.maps.max(axis=0))
        if mask.any() and top.max() > 0.9:
            assert weights[mask > 0].max() > 0.3


@pytest.mark.parametrize(
    ("front", "back", "said"),
    [
        (0.9, 0.1, None),
        (0.1, 0.9, "set segment.saliency.invert=true"),
        (0.1, 0.2, "look at some maps"),
        (0.1, 0.1, "look at some maps"),  # blank
        (0.6, 0.9, None),  # poor, but not inverted: the temperature takes care of it
    ],
)
def test_inverted_saliency_is_noticed(
    context_of: Any, salient: dict[str, Any], tmp_path: Path, front: float, back: float, said: str | None
) -> None:
    (tmp_path / "maps").mkdir()
    salient["segment"]["saliency"] = {"name": "folder", "path": str(tmp_path / "maps")}
    recorder = ProgressRecorder()
    context = context_of(salient, progress=recorder)
    mask = np.zeros((8, 12), np.uint8)
    mask[2:6, 2:8] = 3
    mask[0] = 255
    check_saliency(
        context, context.samples("train"), lambda s: mask,
        lambda s: np.where(mask == 3, front, back).astype(np.float32), "segment",
    )  # fmt: skip
    record = json.loads((context.workspace.stage("segment") / "saliency.json").read_text())
    assert record["foreground_salient"] == float(front >= 0.5)
    assert record["background_salient"] == float(back >= 0.5)
    if said is None:
        assert recorder.warnings == []
    else:
        (warning,) = recorder.warnings
        assert said in warning
        assert str(tmp_path / "maps") in warning


def test_dark_maps_that_are_right_are_no_reason_to_warn(context_of: Any, salient: dict[str, Any]) -> None:
    recorder = ProgressRecorder()
    context = context_of(salient, progress=recorder)
    mask = np.zeros((8, 12), np.uint8)
    mask[2:6, 2:8] = 3
    plane = np.zeros((8, 12), np.float32)
    plane[2:6, 2:4] = 0.9  # a third of the foreground, nothing else
    check_saliency(context, context.samples("train"), lambda s: mask, lambda s: plane, "segment")
    assert recorder.warnings == []
