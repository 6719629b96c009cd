"""Localisation of whole runs: from a recipe to metrics.json, the page and the tables."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tagmask.errors import RecipeError
from tagmask.pipeline.execute import run
from tagmask.pipeline.plan import plan
from tagmask.report.run.box_layers import box_masks, frames
from tagmask.report.run.objects import objects
from tagmask.report.several.run_scores import COLUMNS, read_run
from tagmask.report.summary import summary_rows
from tagmask.runs.context import Context
from tagmask.runs.workspace import Workspace
from tagmask.settings.loading import load_recipe
from tagmask.stages.evaluate.stage import measure as evaluate
from tagmask.types import ActivationMaps, Box, ClassList, DataSource, Sample


@pytest.fixture(scope="module")
def located(tmp_path_factory: pytest.TempPathFactory, short: dict[str, Any]) -> Path:
    """A run that ends at its maps, on the embedded data with one object an image."""
    recipe = copy.deepcopy(short)
    recipe["data"]["variant"] = "single"
    recipe["localize"] = {"name": "scg", "scales": [1.0], "flip": False, "size": 48, "ranking": "ten_crops"}
    recipe.update(refine=[], segment=None)
    return run(recipe, output=tmp_path_factory.mktemp("located") / "run").path


def test_a_run_with_boxes(located: Path) -> None:
    metrics = json.loads((located / "metrics.json").read_text())
    ((split, found),) = metrics["localization"].items()
    assert (split, found["n_images"], found["n_masks"]) == ("val", 4, 4)
    assert 0 <= found["gt_known"] <= found["top5"] <= found["top1"] <= 1
    assert found["classification"]["top1"] >= found["classification"]["top5"]
    assert set(found["by_component"]) == {"union", "largest", "contour"}
    assert "pseudo_masks" not in metrics["splits"]["val"]
    assert not (located / "refine").exists()
    page = (located / "report.html").read_text()
    assert "Localisation (val)" in page
    assert "IoU curve" in page
    assert page.count("Box of the map") >= 4
    section = objects(metrics)
    assert section is not None
    assert [len(errors) for _, _, errors in section.rows] == [3, 3, 3]
    assert len(section.charts) == 2
    assert [row[0] for row in summary_rows(metrics)][-3:] == [
        "boxes, GT-known error",
        "boxes, Top-1 error",
        "boxes, Top-5 error",
    ]
    scores = read_run(located)
    values = {column.name: column.read(scores, "void_ignored") for column in COLUMNS}
    assert values["GT-known error"] == found["gt_known"]


def test_boxes_as_frames(located: Path) -> None:
    mask = frames([[2, 1, 12, 9]], (20, 30), 7)
    assert mask.sum() == 7 * (10 * 8 - 6 * 4)
    assert not mask[3:7, 4:10].any()
    recipe = load_recipe(located / "recipe.yaml")
    sample = recipe.data.open().split("val")[0]
    (own_kind, _, own), (kind, _, true) = box_masks(Workspace(located), sample)
    assert (own_kind, kind) == ("prediction", "truth")
    assert own.shape == true.shape == (48, 48)
    box = sample.boxes[0]
    assert true[box.y0, box.x0] == true[box.y1 - 1, box.x1 - 1] == sample.tags[0]
    assert box_masks(Workspace(located), replace(sample, boxes=())) == []
    assert box_masks(Workspace(located / "gone"), sample) == []


def test_no_boxes_no_section(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["localization"] is None
    assert objects(metrics) is None
    assert "Localisation (" not in (finished / "report.html").read_text()


def test_a_recipe_that_ends_at_its_maps_trains_no_network(short: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="makes no masks for the segmentation network"):
        load_recipe({**short, "refine": []})
    recipe = load_recipe({**short, "refine": None, "segment": None})
    assert recipe.dump()["refine"] == []
    assert load_recipe(recipe.dump()) == recipe


def test_settings_of_later_leave_old_fingerprints_alone(short: dict[str, Any]) -> None:
    recipe = load_recipe(short)
    values = recipe.fingerprint_values()
    for key in ("size", "ranking", "bias"):
        assert key not in values["localize"]
    assert "neck" not in values["classify"]
    assert "nesterov" not in values["classify"]["optimizer"]
    assert "bias" not in values["classify"]["head"]
    changed = load_recipe({**short, "localize": {**short["localize"], "size": 40}})
    assert changed.fingerprint_values()["localize"]["size"] == 40
    source = recipe.data.open()
    prints = [{step.name: step.fingerprint for step in plan(one, source, "float32")} for one in (recipe, changed)]
    assert prints[0]["classify"] == prints[1]["classify"]
    assert prints[0]["localize"] != prints[1]["localize"]


def maps(value: Any, **more: Any) -> ActivationMaps:
    stack = np.asarray(value, np.float32)[None]
    return ActivationMaps(np.array([1]), stack, np.ones(1, np.float32), (8, 8), **more)


def test_boxes_of_masks_where_they_are_asked_for(context_of: Any, tiny: dict[str, Any]) -> None:
    """Two pieces: the true box is that of the larger one. An image without a pixel of its tag is not counted."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:, :4], mask[0, 6:] = 1, 1
    samples = tuple(Sample(name, Path(f"{name}.png"), (1,), Path(f"{name}.m")) for name in ("a", "b"))
    source = DataSource(
        "t",
        ClassList(("background", "x", "y")),
        {"train": (), "val": samples},
        "f",
        mask_reader=lambda sample: mask if sample.id == "a" else np.zeros((8, 8), np.uint8),
    )
    for wanted in (False, True):
        tiny.update(refine=[], segment=None, evaluate={"boxes": {"from_masks": wanted, "threshold": 0.5}})
        context: Context = context_of(tiny, source)
        for sample in samples:
            context.workspace.save_maps(sample.id, maps([[1, 0], [1, 0]]))
        assert evaluate(context) == []
        found = json.loads((context.workspace.root / "metrics.json").read_text())["localization"]
        if not wanted:
            assert found is None
            continue
        assert (found["val"]["n_images"], found["val"]["gt_known"]) == (1, 0.0)
        assert found["val"]["pxap"] > 0


def test_figures_by_hand(context_of: Any, tiny: dict[str, Any]) -> None:
    """Two images of 8 x 8: the left half is the object; one map says so, the other one says the right half."""
    box = Box(1, 0, 0, 4, 8)
    samples = tuple(Sample(name, Path(f"{name}.png"), (1,), boxes=(box,)) for name in ("a", "b", "gone"))
    crowd = Sample("two", Path("two.png"), (1, 2), boxes=(box,))
    splits = {"train": (samples[0],), "val": (*samples, crowd)}
    source = DataSource("t", ClassList(("background", "x", "y")), splits, "f")
    tiny.update(refine=[], segment=None, evaluate={"boxes": {"threshold": 0.5, "component": "union"}})
    context: Context = context_of(tiny, source)
    context.workspace.save_maps("a", maps([[1, 0], [1, 0]], ranking=(2, 1)))
    context.workspace.save_maps("b", maps([[0, 1], [0, 1]], ranking=(1, 2)))
    context.workspace.save_maps("two", maps([[1, 0], [1, 0]]))
    assert evaluate(context) == []
    metrics = json.loads((context.workspace.root / "metrics.json").read_text())
    assert metrics["without_masks"] == "no masks, no mIoU: the data source has boxes only"
    found = metrics["localization"]["val"]
    assert (found["n_images"], found["n_masks"], found["threshold"]) == (2, 0, 0.5)
    assert (found["gt_known"], found["top1"], found["top5"]) == (0.5, 1.0, 0.5)
    assert found["classification"] == {"top1": 0.5, "top5": 0.0}
    assert found["iou_curve"] is found["pxap"] is None
    context.workspace.map_path("b").write_bytes(b"broken")
    context.workspace.save_maps("a", replace(maps([[1, 0]]), classes=np.array([2])))
    assert [(problem.id, "no map of its tag 'x'" in problem.reason) for problem in evaluate(context)] == [
        ("a", True),
        ("b", False),
    ]
