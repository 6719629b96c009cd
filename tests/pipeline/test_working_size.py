"""``max_side``: every stage sees smaller images, whatever is made of them has the size of the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tagmask
from progress_recorder import ProgressRecorder
from tagmask.contracts.refiner import Instance, Instances
from tagmask.data import loading
from tagmask.data.working_size import working_size_for
from tagmask.pipeline.execute import run
from tagmask.pipeline.plan import plan
from tagmask.runs.workspace import Workspace
from tagmask.settings.loading import load_recipe
from tagmask.stages.refine.instance_masks import at_size
from tagmask.storage.images import read_image
from tagmask.storage.pictures import load_grey, load_mask
from tagmask.storage.weights import read_description

SIDE, FULL = 32, 48


@pytest.fixture
def recipe(short: dict[str, Any]) -> dict[str, Any]:
    """Everything that reads stored masks: rounds, weights by confidence, saliency, learnt patches, real masks."""
    segment = {
        **short["segment"],
        "epochs": 1,
        "rounds": 2,
        "confidence": {},
        "loss": "aamr",
        "saliency": "minimum_barrier",
        "class_balanced": "pixels",
    }
    localize = {"name": "lpcam", "scales": [1.0]}
    return {**short, "max_side": SIDE, "localize": localize, "refine": ["colour_walk", "threshold"], "segment": segment}


def test_stages_see_the_working_size_and_leave_the_full_one(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = set()

    def noted(path: Path, **options: Any) -> Any:
        image = read_image(path, **options)
        sizes.add(image.shape[:2])
        return image

    monkeypatch.setattr(loading, "read_image", noted)
    done = run(recipe, output=tmp_path / "run")
    assert sizes == {(SIDE, SIDE)}
    assert not [line for line in Workspace(done.path).problems() if line.left_out]
    space, (sample, *_) = Workspace(done.path), done.recipe.data.open().split("val")
    stored = space.load_maps(sample.id)
    assert stored.image_size == (FULL, FULL)
    assert stored.maps.shape[1:] == (SIDE // 4, SIDE // 4)
    (train, *_) = done.recipe.data.open().split("train")
    assert load_mask(space.mask_path(train.id)).shape == (FULL, FULL)
    assert load_mask(space.mask_path(train.id, "segment/2")).shape == (FULL, FULL)
    assert load_grey(space.grey_path(train.id, "segment/2", "margins")).shape == (SIDE, SIDE)
    scores = done.metrics["splits"]["val"]
    assert set(scores) == {
        "maps", "refined_maps", "pseudo_masks", "segmentation_1", "segmentation", "segmentation_full"
    }  # fmt: skip
    # Learnt patches lie in the files, whose pages show them.
    groups = json.loads((done.path / "localize" / "lpcam.json").read_text())["groups"]
    boxes = np.array([patch["box"] for group in groups for patch in group["patches"]])
    assert SIDE < boxes.max() <= FULL

    for stage in ("segment", "segment/2", "segment/full"):
        description = read_description(space.model_path(stage))
        assert (description["max_side"], description["trained_long_side"]) == (SIDE, SIDE)
    predictor = tagmask.load(done.path, device="cpu")
    for image in (sample.image_path, read_image(sample.image_path)):
        prediction = predictor(image)
        assert prediction.probabilities.shape == (9, SIDE, SIDE)
        assert prediction.mask.shape == (FULL, FULL)
        predicted = load_mask(space.prediction_path(sample.id, "segment/2"))
        assert (prediction.mask == predicted).mean() > 0.99
    whole = tagmask.load(done.path, device="cpu", max_side=0)(sample.image_path)
    assert whole.probabilities.shape == (9, FULL, FULL)


def test_images_that_are_small_enough_are_left_alone(short: dict[str, Any], tmp_path: Path) -> None:
    plain = run(short, output=tmp_path / "plain").path
    same = run({**short, "max_side": FULL}, output=tmp_path / "same").path
    masks = sorted(path.relative_to(plain) for path in plain.rglob("*.png"))
    assert len(masks) >= 16
    for path in masks:
        assert (plain / path).read_bytes() == (same / path).read_bytes()


def test_another_working_size_redoes_everything_and_none_is_as_before(short: dict[str, Any]) -> None:
    def fingerprints(max_side: int | None) -> dict[str, str]:
        recipe = load_recipe({**short, "max_side": max_side})
        return {step.name: step.fingerprint for step in plan(recipe, recipe.data.open(), "float32")}

    recipe = load_recipe(short)
    before = {step.name: step.fingerprint for step in plan(recipe, recipe.data.open(), "float32")}
    assert fingerprints(None) == before
    for other in (fingerprints(64), fingerprints(96)):
        assert all(other[name] != before[name] for name in before)
    assert all(fingerprints(64)[name] != fingerprints(96)[name] for name in before)


@pytest.mark.parametrize(
    ("long_sides", "expected"),
    [
        ([320], 512),  # a photograph that is predicted later may be larger than all of these
        ([512] * 20, 512),
        ([513] * 20, 544),  # as they are, up to a multiple of 32
        ([768], 768),
        ([769], 512),
        ([4032] * 19 + [320] * 81, 512),
        ([640] * 19 + [4032], 640),  # 95 % are enough
        ([], 512),
    ],
)
def test_working_size_follows_from_the_long_sides(long_sides: list[int], expected: int) -> None:
    assert working_size_for(long_sides).max_side == expected


def test_auto_is_told_kept_and_stays_auto(short: dict[str, Any], tmp_path: Path) -> None:
    recorder, root = ProgressRecorder(), tmp_path / "auto"
    done = run({**short, "max_side": "auto"}, output=root, progress=recorder)
    line = "working size: max_side 512 (auto: 95 % of the training images have a long side of up to 48 px)"
    assert line in recorder.lines
    images = len(done.recipe.data.open().split("train"))
    expected = {"max_side": 512, "long_side": FULL, "images": images}
    assert json.loads((root / "manifest.json").read_text())["working_size"] == expected
    assert load_recipe(root / "recipe.yaml").max_side == "auto"
    description = read_description(Workspace(root).model_path("segment"))
    assert (description["max_side"], description["trained_long_side"]) == (512, FULL)

    again = ProgressRecorder()
    run(root, overrides=["max_side=512"], progress=again)  # the number itself is the same run
    assert set(again.stages.values()) == {"up to date"}


def test_instances_are_measured_where_they_are_stored() -> None:
    ids = np.zeros((4, 6), np.uint8)
    ids[1:3, 2:5] = 1
    found = at_size(Instances(ids, (Instance(1, 7, 0.5, 6, (1, 2, 3, 5)),)), (40, 60))
    assert found.ids.shape == (40, 60)
    (one,) = found.instances
    assert one.area == (found.ids == 1).sum()
    assert abs(one.area - 600) <= 40  # corners are cut
    assert one.box == (10, 20, 30, 50)
    assert (one.label, one.score) == (7, 0.5)
