"""The refine stage: maps are refined, a threshold is chosen on train alone, masks are written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tagmask import registry
from tagmask.errors import RunError, UnknownNameError
from tagmask.functional import colour_walk, maps_to_labels, upsample_maps
from tagmask.runs.context import Context
from tagmask.stages.refine.stage import refined_map_path, run
from tagmask.storage.images import read_image
from tagmask.storage.pictures import load_mask

ContextOf = Callable[..., Context]


@pytest.fixture
def located(context_of: ContextOf, finished: Path, tmp_path: Path) -> Callable[..., Context]:
    """A context whose localize stage is done."""

    def make(values: dict[str, Any], **options: Any) -> Context:
        root = tmp_path / "run"
        if not root.exists():
            shutil.copytree(finished / "localize", root / "localize")
        return context_of(values, root=root, **options)

    return make


def thresholds(context: Context) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((context.workspace.stage("refine") / "thresholds.json").read_text())
    return found


def test_masks_are_what_the_functions_say(located: Callable[..., Context], tiny: dict[str, Any]) -> None:
    """The stage's colour walk and threshold by hand on one image."""
    context = located(tiny)
    assert run(context) == []
    sample = context.source.split("train")[4]
    stored = context.workspace.load_maps(sample.id)
    walked = colour_walk(torch.from_numpy(stored.maps), read_image(sample.image_path))
    kept = context.workspace.load_maps(sample.id, stage="refine")
    np.testing.assert_allclose(kept.maps, walked.numpy(), atol=1e-3)  # stored as float16
    assert np.array_equal(kept.peak, stored.peak)
    expected = maps_to_labels(upsample_maps(torch.from_numpy(kept.maps), (48, 48)), torch.from_numpy(kept.classes), 0.4)
    assert np.array_equal(load_mask(context.workspace.mask_path(sample.id)), expected)


def test_masks_hold_the_images_tags_only(located: Callable[..., Context], tiny: dict[str, Any]) -> None:
    tiny["refine"] = [{"name": "threshold", "value": 0.2, "band": 0.05}]
    context = located(tiny)
    run(context)
    for sample in context.samples("train", "val"):
        found = np.unique(load_mask(context.workspace.mask_path(sample.id)))
        assert set(found.tolist()) <= {0, 255, *sample.tags}


def test_a_lone_threshold_makes_no_maps(located: Callable[..., Context], tiny: dict[str, Any]) -> None:
    tiny["refine"] = "threshold"
    context = located(tiny)
    assert refined_map_path(context, "x") == context.workspace.map_path("x")
    run(context)
    assert not (context.workspace.stage("refine") / "maps").exists()
    assert len(list((context.workspace.stage("refine") / "masks").iterdir())) == 16


def test_a_fixed_threshold_is_written_down(located: Callable[..., Context], tiny: dict[str, Any]) -> None:
    context = located(tiny)
    run(context)
    assert thresholds(context) == {"value": 0.4, "rule": "fixed"}


def test_a_class_may_have_its_own_threshold(located: Callable[..., Context], tiny: dict[str, Any]) -> None:
    """By name; in every image of the class, and in no other."""
    tiny["refine"] = [{"name": "threshold", "value": 0.4, "band": [0.1, 0.05]}]
    context = located(tiny)
    run(context)
    sample = context.source.split("train")[0]
    name, others = context.source.classes.names[sample.tags[0]], context.source.split("train")
    plain = {s.id: load_mask(context.workspace.mask_path(s.id)) for s in others}
    shutil.rmtree(context.workspace.stage("refine"))
    tiny["refine"][0]["per_class"] = {name: 1.0}
    run(located(tiny))
    assert thresholds(context) == {"value": 0.4, "rule": "fixed", "per_class": {name: 1.0}, "band": [0.1, 0.05]}
    for other in others:
        mask = load_mask(context.workspace.mask_path(other.id))
        if sample.tags[0] in other.tags:
            assert sample.tags[0] not in mask
        else:
            assert np.array_equal(mask, plain[other.id])


def test_a_class_that_does_not_exist_is_named_at_once(located: Callable[..., Context], tiny: dict[str, Any]) -> None:
    context = located(tiny)
    wrong = context.source.classes.names[1] + "x"
    tiny["refine"] = ["colour_walk", {"name": "threshold", "per_class": {wrong: 0.3}}]
    with pytest.raises(UnknownNameError, match=rf"per_class: unknown class '{wrong}'. Did you mean"):
        run(located(tiny))
    assert not (context.workspace.stage("refine") / "maps").exists()


def test_thresholds_by_the_area_that_classes_cover(located: Callable[..., Context], tiny: dict[str, Any]) -> None:
    context = located(tiny)
    samples = context.source.split("train")
    label = samples[0].tags[0]
    name = context.source.classes.names[label]

    def marked(area: float) -> tuple[float, float]:
        shutil.rmtree(context.workspace.stage("refine"), ignore_errors=True)
        tiny["refine"] = [{"name": "threshold", "value": 0.4, "areas": {name: area}}]
        assert run(located(tiny)) == []
        stored = [context.workspace.load_maps(sample.id) for sample in samples if label in sample.tags]
        own = thresholds(context)["per_class"][name]
        maps = [maps.maps[maps.classes.tolist().index(label)] for maps in stored]
        return own, float(np.mean([(values > own).mean() for values in maps]))

    small, large = marked(0.05), marked(0.3)
    assert small[0] > large[0]
    assert small[1] == pytest.approx(0.05, abs=0.03)
    assert large[1] == pytest.approx(0.3, abs=0.05)
    tiny["refine"][0]["areas"] = {name + "x": 0.1}
    with pytest.raises(UnknownNameError, match=rf"threshold.areas: unknown class '{name}x'. Did you mean"):
        run(located(tiny))


def test_a_refiner_of_some_classes_alone(located: Callable[..., Context], tiny: dict[str, Any]) -> None:
    context = located(tiny)
    sample = context.source.split("train")[0]
    name = context.source.classes.names[sample.tags[0]]
    tiny["refine"] = [{"name": "local_contrast", "classes": [name]}, {"name": "threshold", "value": 0.4}]
    assert run(located(tiny)) == []
    for other in context.source.split("train"):
        plain, refined = (context.workspace.load_maps(other.id, stage=stage) for stage in ("localize", "refine"))
        for label, before, after in zip(plain.classes, plain.maps, refined.maps, strict=True):
            assert np.array_equal(before, after) == (label != sample.tags[0])
    tiny["refine"][0]["classes"] = [name + "x"]
    with pytest.raises(UnknownNameError, match=rf"local_contrast.classes: unknown class '{name}x'. Did you mean"):
        run(located(tiny))


@pytest.mark.parametrize("damage", ["not finite", "another grid", "another image"])
def test_maps_that_are_not_the_images_are_a_problem(
    located: Callable[..., Context], tiny: dict[str, Any], damage: str
) -> None:
    """One line of problems.jsonl; the run goes on, and the threshold is chosen on the others."""
    tiny["refine"] = ["colour_walk", "threshold"]
    context = located(tiny)
    stored = context.workspace.load_maps("train_00002")
    broken = {
        "not finite": replace(stored, maps=stored.maps * np.nan),
        "another grid": replace(stored, maps=np.repeat(stored.maps, 2, axis=2)),
        "another image": replace(stored, image_size=(50, 48)),
    }[damage]
    context.workspace.save_maps("train_00002", broken)
    (problem,) = run(context)
    assert (problem.stage, problem.id) == ("refine", "train_00002")
    wanted = {"not finite": "finite", "another grid": "do not fit", "another image": "48x48"}[damage]
    assert wanted in problem.reason
    assert not context.workspace.mask_path("train_00002").exists()
    assert context.workspace.mask_path("train_00003").exists()


def test_without_a_refiner_broken_maps_are_a_problem_too(located: Callable[..., Context], tiny: dict[str, Any]) -> None:
    tiny["refine"] = "threshold"
    context = located(tiny)
    stored = context.workspace.load_maps("train_00002")
    context.workspace.save_maps("train_00002", replace(stored, maps=stored.maps * np.nan))
    (problem,) = run(context)
    assert "finite" in problem.reason
    assert not context.workspace.mask_path("train_00002").exists()


MAPPERS = [name for name in registry.entries("refiner") if registry.get("refiner", name).makes == "maps"]


@pytest.mark.parametrize("chain", [["threshold"], *([name, "threshold"] for name in MAPPERS)], ids="-".join)
def test_an_automatic_threshold_is_written_down_with_its_reasons(
    located: Callable[..., Context], tiny: dict[str, Any], chain: list[str]
) -> None:
    tiny["refine"] = chain
    context = located(tiny)
    run(context)
    found = thresholds(context)
    assert found["rule"] == "auto"
    assert 0 < found["value"] < 1
    assert len(found["curve"]["thresholds"]) == len(found["curve"]["statistic"]) > 10
    assert min(abs(found["value"] - t) for t in found["curve"]["thresholds"]) < 1e-6
    masks = {path.name for path in (context.workspace.stage("refine") / "masks").iterdir()}
    assert len(masks) == 16


def test_an_automatic_threshold_looks_at_train_only(located: Callable[..., Context], tiny: dict[str, Any]) -> None:
    """Whatever the maps of val are, the choice is the same."""
    tiny["refine"] = ["threshold"]
    context = located(tiny)
    run(context)
    before = thresholds(context)
    shutil.rmtree(context.workspace.stage("refine"))
    for sample in context.source.split("val"):
        stored = context.workspace.load_maps(sample.id)
        context.workspace.save_maps(sample.id, stored.with_maps(1 - stored.maps))
    run(context)
    assert thresholds(context) == before


def test_the_choice_is_the_same_after_a_stop(located: Callable[..., Context], tiny: dict[str, Any]) -> None:
    tiny["refine"] = ["colour_walk", "threshold"]
    context = located(tiny)
    run(context)
    before = thresholds(context)
    masks = context.workspace.stage("refine") / "masks"
    whole = {path.name: path.read_bytes() for path in masks.iterdir()}
    for name in list(whole)[::2]:
        (masks / name).unlink()
    (context.workspace.stage("refine") / "maps" / "train_00002.npz").unlink()
    run(context)
    assert thresholds(context) == before
    assert {path.name: path.read_bytes() for path in masks.iterdir()} == whole


def test_images_that_were_not_located_are_left_out_quietly(
    located: Callable[..., Context], tiny: dict[str, Any]
) -> None:
    """The localize stage has listed them already."""
    context = located(tiny)
    context.workspace.map_path("train_00003").unlink()
    assert run(context) == []
    assert not context.workspace.mask_path("train_00003").exists()
    assert context.workspace.mask_path("train_00004").exists()


def test_no_tags_no_choice(located: Callable[..., Context], tiny: dict[str, Any]) -> None:
    tiny["refine"] = ["threshold"]
    plain = located(tiny)
    splits = {name: tuple(replace(s, tags=()) for s in samples) for name, samples in plain.source.splits.items()}
    with pytest.raises(RunError, match=r"set refine\.threshold\.value"):
        run(located(tiny, source=replace(plain.source, splits=splits)))


def test_torn_maps_are_named(located: Callable[..., Context], tiny: dict[str, Any]) -> None:
    context = located(tiny)
    path = context.workspace.map_path("train_00005")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RunError, match=r"train_00005\.npz: not a readable maps file") as raised:
        run(context)
    assert "\n" not in str(raised.value)
