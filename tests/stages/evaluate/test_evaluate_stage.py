"""The evaluate stage against known artifacts: every figure of metrics.json can be computed by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tagmask.errors import InputError, RunError, UnreadableMaskError
from tagmask.report.summary import summary_rows
from tagmask.runs.context import Context
from tagmask.runs.image_counts import read_split_counts
from tagmask.runs.workspace import Workspace
from tagmask.stages.evaluate.stage import measure as run
from tagmask.storage.pictures import save_mask
from tagmask.storage.records import write_json
from tagmask.types import ActivationMaps, ClassList, DataSource, Sample

ContextOf = Callable[..., Context]
# Two images of 4x4; classes 1 and 2; one void pixel.
TRUTH = {
    "a": np.array([[1, 1, 0, 0]] * 4, np.uint8),
    "b": np.array([[2, 2, 2, 0]] * 3 + [[2, 2, 2, 255]], np.uint8),
}


@pytest.fixture
def source() -> DataSource:
    samples = {
        name: Sample(name, Path(f"{name}.png"), (1,) if name == "a" else (2,), Path(f"{name}.m")) for name in "ab"
    }
    splits = {"train": (samples["a"],), "val": (samples["b"],)}
    return DataSource("t", ClassList(("background", "x", "y")), splits, "f", mask_reader=lambda s: TRUTH[s.id].copy())


@pytest.fixture
def artifacts(tmp_path: Path) -> Workspace:
    """Pseudo masks = truth shifted by a column; predictions perfect; maps 0.9 on the object, 0.2 beside it."""
    space = Workspace(tmp_path / "run")
    for name, label in (("a", 1), ("b", 2)):
        truth = TRUTH[name]
        save_mask(space.mask_path(name), np.where(np.roll(truth, 1, 1) == label, label, 0).astype(np.uint8))
        save_mask(space.prediction_path(name), np.where(truth == 255, 0, truth).astype(np.uint8))
        on = np.where(truth == label, 0.9, 0.2).astype(np.float32)
        # Stored at stride 4, an image of 4x4 has a single cell; so the object fills it or does not.
        space.save_maps(
            name,
            ActivationMaps(np.array([label]), on.mean((0, 1), keepdims=True)[None], np.ones(1, np.float32), (4, 4)),
        )
    return space


def scored(context: Context) -> dict[str, Any]:
    run(context)
    found: dict[str, Any] = json.loads((context.workspace.root / "metrics.json").read_text())
    return found


def test_every_figure_by_hand(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace
) -> None:
    metrics = scored(context_of(tiny, source, artifacts.root))
    # a: truth columns 1 1 0 0, mask 0 1 1 0: class 1 has 4 of 12, background 4 of 12.
    train = metrics["splits"]["train"]["pseudo_masks"]["void_ignored"]
    assert train["iou"] == {"background": pytest.approx(1 / 3), "x": pytest.approx(1 / 3), "y": None}
    assert train["miou"] == pytest.approx(1 / 3)
    assert train["pixel_accuracy"] == pytest.approx(0.5)
    assert train["precision"]["x"] == train["recall"]["x"] == pytest.approx(0.5)
    assert train["n_images"] == 1
    assert train["confusion"] == [[4, 4, 0], [4, 4, 0], [0, 0, 0]]
    val = metrics["splits"]["val"]["segmentation"]
    assert val["void_ignored"]["miou"] == 1
    # The void pixel is predicted as background, which is right when void counts as background.
    assert val["void_background"]["iou"] == {"background": 1, "x": None, "y": 1}
    assert metrics["without_masks"] is None
    assert metrics["classes"] == ["background", "x", "y"]


def test_maps_are_scored_at_their_best_threshold(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace
) -> None:
    tiny["evaluate"]["thresholds"] = 50
    found = scored(context_of(tiny, source, artifacts.root))["splits"]["train"]["maps"]["void_ignored"]
    # One cell of 0.55: all of the image is class 1 (IoU 1/2, background 0) or background (IoU 1/2, class 0).
    assert found["miou"] == pytest.approx(0.25)
    assert max(found["threshold_curve"]["miou"]) == pytest.approx(found["miou"])
    best = int(np.argmax(found["threshold_curve"]["miou"]))
    assert found["threshold"] == found["threshold_curve"]["thresholds"][best]


def test_only_what_the_recipe_makes_is_scored(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace
) -> None:
    tiny["segment"]["supervision"] = "full"
    assert scored(context_of(tiny, source, artifacts.root))["splits"] == {}
    tiny["segment"] = None
    assert set(scored(context_of(tiny, source, artifacts.root))["splits"]["val"]) == {"maps", "pseudo_masks"}


def test_each_kind_of_void_has_its_figures(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace
) -> None:
    """b: mask columns 0 2 2 2. Where void is background, its pixel is a false object; ignored, it is not there."""
    found = scored(context_of(tiny, source, artifacts.root))["splits"]["val"]["pseudo_masks"]
    assert found["void_ignored"]["iou"]["y"] == pytest.approx(8 / 15)
    assert found["void_background"]["iou"]["y"] == pytest.approx(8 / 16)


def test_images_that_a_stage_left_out_are_not_scored_there(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace
) -> None:
    artifacts.mask_path("a").unlink()
    found = scored(context_of(tiny, source, artifacts.root))["splits"]["train"]
    assert set(found) == {"maps", "segmentation"}


def test_masks_that_cannot_be_used_are_listed_and_the_rest_is_scored(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace
) -> None:
    def read(sample: Sample) -> Any:
        if sample.id == "a":
            msg = "a.m: broken"
            raise UnreadableMaskError(msg)
        return TRUTH["b"]

    context = context_of(tiny, replace(source, mask_reader=read), artifacts.root)
    problems = run(context)
    assert [(problem.stage, problem.id, problem.reason) for problem in problems] == [("evaluate", "a", "a.m: broken")]
    assert set(json.loads((artifacts.root / "metrics.json").read_text())["splits"]) == {"val"}


@pytest.mark.parametrize(
    ("mask", "said"),
    [(np.zeros((3, 4), np.uint8), "ground truth is 4x3"), (np.full((4, 4), 9, np.uint8), "label 9")],
    ids=["size", "label"],
)
def test_masks_that_do_not_fit_are_problems(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace, mask: Any, said: str
) -> None:
    read = {"a": mask, "b": TRUTH["b"]}
    problems = run(context_of(tiny, replace(source, mask_reader=lambda s: read[s.id]), artifacts.root))
    assert [problem.id for problem in problems] == ["a"]
    assert said in problems[0].reason
    metrics = json.loads((artifacts.root / "metrics.json").read_text())
    assert set(metrics["splits"]) == {"val"}, "half an image was counted"


def test_a_torn_artifact_is_a_problem_too(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace
) -> None:
    artifacts.mask_path("a").write_bytes(b"torn")
    problems = run(context_of(tiny, source, artifacts.root))
    assert "not a readable mask" in problems[0].reason


def test_the_ratio_to_full_supervision(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace, tmp_path: Path
) -> None:
    assert scored(context_of(tiny, source, artifacts.root))["ratio_to_full"] is None
    full = {"segmentation_full": {rule: {"miou": 0.8} for rule in ("void_ignored", "void_background")}}
    write_json(tmp_path / "full" / "metrics.json", {"splits": {"val": full}})
    tiny["evaluate"]["full_run"] = str(tmp_path / "full")
    ratio = scored(context_of(tiny, source, artifacts.root))["ratio_to_full"]
    assert ratio == {"void_ignored": pytest.approx(1 / 0.8), "void_background": pytest.approx(1 / 0.8)}
    tiny["evaluate"]["full_run"] = str(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"evaluate\.full_run"):
        scored(context_of(tiny, source, artifacts.root))


def test_without_masks_it_says_so(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace
) -> None:
    found = scored(context_of(tiny, source.weak(), artifacts.root))
    assert found["splits"] == {}
    assert found["without_masks"].startswith("no masks, no mIoU")


def test_what_masks_mark_needs_no_masks_to_compare_with(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace
) -> None:
    """a: two of four columns are x, its tag; b: twelve pixels are y, its tag, and three x."""
    prediction = np.where(TRUTH["b"] == 255, 0, TRUTH["b"]).astype(np.uint8)
    prediction[:3, 3] = 1
    save_mask(artifacts.prediction_path("b"), prediction)
    marked = scored(context_of(tiny, source.weak(), artifacts.root))["marked"]
    assert marked == scored(context_of(tiny, source, artifacts.root))["marked"]
    assert marked["train"] == {
        "pseudo_masks": {
            "images": 1, "foreground": 0.5, "foreground_untagged": None, "empty": 0.0, "flooded": 0.0, "in_tags": 1.0,
            "tags_marked": 1.0,
        }
    }  # fmt: skip
    assert marked["val"]["segmentation"]["foreground"] == pytest.approx(15 / 16)
    assert marked["val"]["segmentation"]["in_tags"] == pytest.approx(12 / 15)


@pytest.mark.parametrize("masks", [True, False])
def test_a_torn_mask_is_listed_once(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace, masks: bool
) -> None:
    artifacts.mask_path("a").write_bytes(b"torn")
    context = context_of(tiny, source if masks else source.weak(), artifacts.root)
    (problem,) = run(context)
    assert (problem.stage, problem.id) == ("evaluate", "a")
    assert "train" not in json.loads((artifacts.root / "metrics.json").read_text())["marked"]


def test_what_came_before_is_summed_up(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace
) -> None:
    write_json(artifacts.root / "refine" / "thresholds.json", {"value": 0.31, "rule": "auto", "curve": {}})
    history = artifacts.root / "classify" / "history.jsonl"
    history.parent.mkdir()
    lines = [
        {"step": 1, "loss": 1.0},
        {"step": 1, "val_map": 0.1, "val_ap": {"x": 0.1}},
        {"step": 2, "val_map": 0.9, "val_ap": {"x": 0.9, "y": None}},
    ]
    history.write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = scored(context_of(tiny, source, artifacts.root))
    assert metrics["threshold"] == {"value": 0.31, "rule": "auto"}
    assert metrics["tags"] == {"map": 0.9, "ap": {"x": 0.9, "y": None}}
    lines[-1] |= {"val_auc": {"x": 0.8, "y": None}, "val_auc_any": 0.7}
    history.write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = scored(context_of(tiny, source, artifacts.root))
    assert (metrics["tags"]["auc"], metrics["tags"]["auc_any"]) == ({"x": 0.8, "y": None}, 0.7)
    assert ("tags, ROC AUC of images with any", "", "n/a", "70.0") in summary_rows(metrics)


def test_boundaries_sizes_outcomes_and_calibration(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace
) -> None:
    splits = scored(context_of(tiny, source, artifacts.root))["splits"]
    right = splits["val"]["segmentation"]["void_ignored"]
    assert right["mean_f1"] == right["boundary"]["miou"] == right["boundary"]["trimap_miou"] == 1
    assert right["boundary"]["iou"]["x"] is None
    assert right["recam_errors"]["tp"] == 1
    assert right["by_object_size"]["shares"]["from 20 %"] == {"objects": 1, "miou": 1.0, "recall": 1.0}
    half = splits["train"]["pseudo_masks"]["void_ignored"]
    assert half["recam_errors"] == {
        "tp": 0.5, "fp_object": 0.0, "fn": 0.25, "fp_background": 0.25, "fp_share_of_found": 0.5
    }  # fmt: skip
    maps = splits["train"]["maps"]["void_ignored"]
    # One cell of 0.55, of which half is the class.
    assert maps["calibration"]["confidence"] == [pytest.approx(0.5475, abs=0.03)]
    assert maps["calibration"]["accuracy"] == [0.5]


def test_counts_of_every_image_are_kept(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace
) -> None:
    metrics = scored(context_of(tiny, source, artifacts.root))
    for split in ("train", "val"):
        stored = read_split_counts(artifacts.image_counts_path(split))
        assert stored.classes == ("background", "x", "y")
        assert stored.data == "f"
        assert set(stored.measures) == set(metrics["splits"][split])
        for measure, counts in stored.measures.items():
            expected = metrics["splits"][split][measure]["void_ignored"]["confusion"]
            assert counts.confusion().tolist() == expected, measure
    lines = (artifacts.root / "evaluate" / "val-images.csv").read_text().splitlines()
    assert lines[0] == "measure,id,miou,pixel_accuracy"
    assert "segmentation,b,1.000000,1.000000" in lines
    assert artifacts.count_files("evaluate") == 5
    artifacts.image_counts_path("val").write_bytes(b"torn")
    with pytest.raises(RunError, match="not a readable image counts file"):
        read_split_counts(artifacts.image_counts_path("val"))


def test_maps_are_scored_at_full_size(
    context_of: ContextOf, tiny: dict[str, Any], source: DataSource, artifacts: Workspace
) -> None:
    """The only strided cell cannot tell one half of the image from the other; the grids can."""
    halves = np.array([[[0.9, 0.2]]], np.float32)
    stored = artifacts.load_maps("a")
    stretched = scored(context_of(tiny, source, artifacts.root))["splits"]["train"]["maps"]["void_ignored"]
    assert stretched["miou"] < 1
    artifacts.save_maps("a", replace(stored, grids=(halves / 2, halves / 2), frame=(4, 4), seen=(4, 4)))
    full = scored(context_of(tiny, source, artifacts.root))["splits"]["train"]["maps"]["void_ignored"]
    assert full["miou"] == 1
