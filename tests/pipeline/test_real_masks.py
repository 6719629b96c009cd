"""A few real masks: which images, who may see them, what is trained on them, and the threshold that suits them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_recorder import walk
from tagmask.errors import DataError, InputError, RecipeError
from tagmask.pipeline.execute import view_for
from tagmask.runs.corrections import NO_CORRECTIONS, with_real_masks
from tagmask.runs.real_masks import chosen_masks, drawn, masks_state
from tagmask.settings.loading import load_recipe
from tagmask.stages.refine.calibration import calibrated, middle_of_best
from tagmask.stages.segment.schedule import with_share
from tagmask.stages.segment.stage import WEAK, _masks
from tagmask.storage.pictures import save_mask
from tagmask.storage.weights import load_tensors
from tagmask.types import ActivationMaps, DataSource, Sample


def source_of(recipe: dict[str, Any]) -> DataSource:
    return load_recipe(recipe).data.open()


# -- in a run --------------------------------------------------------------------------------------------


def test_only_the_network_is_trained_again(copied: Path) -> None:
    before = load_tensors(copied / "segment" / "model.safetensors")
    recorder = walk(copied, "real_masks=4", "segment.hand_made=0.5")
    upstream = ("classify", "localize", "refine", "segment/full")
    assert {recorder.stages[name] for name in upstream} == {"up to date"}
    assert "real_masks None -> 4 masks (" in recorder.stages["segment"]
    after = load_tensors(copied / "segment" / "model.safetensors")
    assert any((after[name] != before[name]).any() for name in before)
    assert set(walk(copied).stages.values()) == {"up to date"}
    # The very masks by name are the same training.
    chosen = chosen_masks(load_recipe(copied / "recipe.yaml"), load_recipe(copied / "recipe.yaml").data.open())
    (copied / "ids.txt").write_text("\n".join(sorted(chosen)))
    assert set(walk(copied, f"real_masks={copied / 'ids.txt'}").stages.values()) == {"up to date"}


def test_the_threshold_is_chosen_on_them_when_asked(copied: Path) -> None:
    recorder = walk(copied, "real_masks=all", "refine.threshold.value=masks")
    assert recorder.stages["classify"] == recorder.stages["localize"] == "up to date"
    assert recorder.stages["refine"] != "up to date"
    record = json.loads((copied / "refine" / "thresholds.json").read_text())
    assert record["rule"] == "masks"
    assert record["masks"] == 12
    assert len(record["miou"]) == 101
    assert record["miou"][round(record["value"] * 100)] >= 0.98 * max(record["miou"])
    assert any(f"background threshold {record['value']:.2f} (masks)" in line for line in recorder.lines)
    fewer = walk(copied, "real_masks=3")
    assert "real_masks" in fewer.stages["refine"]


# -- who sees what ---------------------------------------------------------------------------------------


def test_a_view_has_the_masks_that_are_kept_and_no_other(tiny: dict[str, Any]) -> None:
    source = source_of(tiny)
    train, val = source.split("train"), source.split("val")
    kept = {train[0].id, train[3].id, val[0].id}
    view = source.weak(kept)
    having = [sample.id for split in view.splits.values() for sample in split if view.has_mask(sample)]
    assert having == [train[0].id, train[3].id], "never one of val"
    np.testing.assert_array_equal(view.read_mask(view.split("train")[3]), source.read_mask(train[3]))
    for sample in (train[1], val[0]):  # even with the path at hand
        with pytest.raises(DataError):
            view.read_mask(sample)
    assert not any(sample.boxes for split in view.splits.values() for sample in split)
    assert source.weak().mask_reader is None


@pytest.mark.parametrize("stage", ["classify", "classify/2", "localize", "saliency"])
def test_no_stage_before_refine_sees_one(stage: str, tiny: dict[str, Any]) -> None:
    source = source_of(tiny)
    ids = [sample.id for sample in source.split("train")]
    assert view_for(stage, source, ids).mask_reader is None
    for other in ("refine", "segment", "segment/2"):
        assert view_for(other, source, ids[:2]).has_mask(source.split("train")[0])
        assert not view_for(other, source, ids[:2]).has_mask(source.split("train")[5])
    assert view_for("evaluate", source, ()) is source


def test_the_training_reads_real_masks_where_it_has_them(tiny: dict[str, Any], context_of: Callable[..., Any]) -> None:
    source = source_of(tiny)
    first, second, *_ = source.split("train")
    context = context_of(tiny, source.weak({first.id}))
    for sample in (first, second):
        save_mask(context.workspace.mask_path(sample.id), np.full(source.read_mask(sample).shape, 255, np.uint8))
    drawn_masks = with_real_masks(NO_CORRECTIONS, context.source)
    assert drawn_masks.ids == {first.id}
    samples, read, _ = _masks(context, context.recipe.segment, WEAK, drawn_masks)
    assert [sample.id for sample in samples] == [first.id, second.id]
    np.testing.assert_array_equal(read(samples[0]), source.read_mask(first))
    assert (read(samples[1]) == 255).all()


# -- which images ----------------------------------------------------------------------------------------

TAGS = st.lists(st.integers(1, 4), max_size=2, unique=True).map(lambda tags: tuple(sorted(tags)))


@given(st.lists(TAGS, min_size=1, max_size=20), st.integers(0, 3), st.data())
def test_drawn_images_spread_over_the_classes(tags: list[tuple[int, ...]], seed: int, data: st.DataObject) -> None:
    samples = [Sample(f"i{number}", Path("x"), own) for number, own in enumerate(tags)]
    n_images = data.draw(st.integers(1, len(samples)))
    chosen = drawn(samples, n_images, seed)
    assert len({sample.id for sample in chosen}) == n_images
    assert chosen == drawn(samples[::-1], n_images, seed)
    assert drawn(samples, max(1, n_images - 1), seed) == chosen[: max(1, n_images - 1)], "more masks keep the old ones"
    classes = {tag for own in tags for tag in own}
    if n_images >= len(classes):
        assert {tag for sample in chosen for tag in sample.tags} == classes
    assert Counter(len(sample.tags) > 0 for sample in chosen)[True] >= min(n_images, sum(map(bool, tags)))


def test_what_cannot_be_had(tiny: dict[str, Any], tmp_path: Path) -> None:
    source = source_of(tiny)
    with pytest.raises(InputError, match=r"real_masks=99: only 12 training images have a mask"):
        chosen_masks(load_recipe(tiny, ["real_masks=99"]), source)
    with pytest.raises(InputError, match="no training image has a mask"):
        chosen_masks(load_recipe(tiny, ["real_masks=all"]), source.weak())
    (tmp_path / "ids.txt").write_text("train_00001\nval_00001\n")
    with pytest.raises(InputError, match="val_00001 is no training image with a mask"):
        chosen_masks(load_recipe(tiny, [f"real_masks={tmp_path / 'ids.txt'}"]), source)
    with pytest.raises(RecipeError, match="set real_masks, such as 20 or all"):
        load_recipe(tiny, ["refine.threshold.value=masks"])
    assert chosen_masks(load_recipe(tiny), source) == frozenset()
    assert masks_state(source, ()) == ""


# -- the threshold, the share ----------------------------------------------------------------------------


def test_the_threshold_by_hand(tiny: dict[str, Any], context_of: Callable[..., Any]) -> None:
    """Maps that are 0.6 on the object and 0.2 elsewhere: every threshold from 0.2 to 0.59 is right."""
    source = source_of(tiny)
    context = context_of(tiny, source)

    def load(sample: Sample) -> ActivationMaps:
        mask = source.read_mask(sample)
        labels = np.unique(mask[(mask > 0) & (mask < 255)]).astype(np.int64)
        maps = np.stack([np.where(mask == label, 0.6, 0.2) for label in labels]).astype(np.float32)
        return ActivationMaps(labels, maps, np.ones(len(labels), np.float32), mask.shape)

    value, record = calibrated(context, list(source.split("train")), load)
    assert value == pytest.approx(0.395, abs=0.011)
    assert record["masks"] == 12
    assert max(record["miou"]) == 1


def test_the_middle_of_the_best() -> None:
    thresholds = np.linspace(0, 1, 6)
    assert middle_of_best(thresholds, np.array([0.1, 0.5, 0.9, 0.899, 0.895, 0.2])) == pytest.approx(0.6)
    assert middle_of_best(thresholds, np.array([0.9, 0.1, 0.9, 0.1, 0.1, np.nan])) == 0


def test_the_share_of_hand_made_masks() -> None:
    samples = [Sample(str(number), Path("x"), ()) for number in range(5)]
    assert with_share(None, samples, {"0"}, 0.0) is None
    assert with_share(None, samples, {"0"}, 0.2) is None, "it has a fifth already"
    assert with_share(None, samples, (), 0.5) is None
    raised = with_share(None, samples, {"0"}, 0.5)
    assert raised == [4, 1, 1, 1, 1]
    assert with_share([2.0, 1, 1, 1, 3], samples, {"0", "1"}, 0.75) == [10, 5, 1, 1, 3]
    assert with_share(None, samples, {"0", "1"}, 1.0) == [1, 1, 0, 0, 0]
