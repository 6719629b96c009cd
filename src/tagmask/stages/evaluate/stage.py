"""The evaluate stage: the only one that opens ground truth. One pass over the images with masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.errors import DataError, InputError, TagmaskError
from tagmask.metrics.counting import VOID_RULES, Counts
from tagmask.metrics.map_scores import MapScores
from tagmask.metrics.mask_scores import MaskCounts, MaskScores, count_mask
from tagmask.metrics.segmentation import Average
from tagmask.ops.map_grids import MapGrids
from tagmask.runs.context import TRAIN, VAL, Context
from tagmask.runs.image_counts import SplitCounts, write_split_counts
from tagmask.runs.stage_names import EVALUATE, LOCALIZE, REFINE, SEGMENT_FULL
from tagmask.runs.workspace import Workspace
from tagmask.settings.recipe import Recipe
from tagmask.stages.evaluate.counting_images import count_each
from tagmask.stages.evaluate.marked import marked_masks
from tagmask.stages.evaluate.objects import localization
from tagmask.storage.arrays import SCHEMA
from tagmask.storage.pictures import load_mask
from tagmask.storage.records import read_json, read_jsonl, write_json
from tagmask.types import Problem, Sample, UInt8Array

STAGE = EVALUATE
NO_MASKS = "no masks, no mIoU: the data source has no ground truth, so nothing could be scored"
ONLY_BOXES = "no masks, no mIoU: the data source has boxes only"
_SWEPT = {"maps": LOCALIZE, "refined_maps": REFINE}


@dataclass(frozen=True)
class _Counted:
    """One image: channels and histogram of its maps, counts of its masks, by what was scored."""

    sample: Sample
    maps: dict[str, tuple[NDArray[np.int64], Counts]]
    masks: dict[str, MaskCounts]


class _SplitScores:
    """Everything counted on one split; ``made``: what the recipe makes, and where (older artifacts may lie beside)."""

    def __init__(self, stages: Mapping[str, str], n_classes: int, thresholds: int) -> None:
        self.stages, self.n_classes = stages, n_classes
        self.maps = {key: MapScores(n_classes - 1, thresholds) for key in _SWEPT if key in stages}
        self.masks = {
            key: MaskScores(n_classes, know_tags=key.startswith("pseudo_masks")) for key in stages if key not in _SWEPT
        }

    def count(self, workspace: Workspace, sample: Sample, mask: UInt8Array) -> _Counted:
        """Count every artifact that exists for this image; changes nothing, so threads may do it at once.

        Raises:
            DataError: an artifact is of another size than the ground truth.
            RunError: an artifact is broken.
        """
        stages = {key: _SWEPT[key] for key in self.maps if workspace.map_path(sample.id, stage=_SWEPT[key]).exists()}
        maps = {key: workspace.load_maps(sample.id, stage=stage) for key, stage in stages.items()}
        paths = {
            key: (workspace.mask_path if key.startswith("pseudo_masks") else workspace.prediction_path)(
                sample.id, self.stages[key]
            )
            for key in self.masks
        }
        masks = {key: load_mask(path) for key, path in paths.items() if path.exists()}
        size = (mask.shape[0], mask.shape[1])
        sizes: dict[str, tuple[int, ...]] = {key: stored.image_size for key, stored in maps.items()}
        sizes |= {key: labels.shape for key, labels in masks.items()}
        # Never resized to fit: a mask of another size was made of another image, or by another tool.
        for key, shape in sizes.items():
            if shape != size:
                msg = (
                    f"{sample.mask_path}: the ground truth is {size[1]}x{size[0]}, its {key.replace('_', ' ')} "
                    f"{shape[1]}x{shape[0]} (width x height)"
                )
                raise DataError(msg)
        histograms: dict[str, tuple[NDArray[np.int64], Counts]] = {}
        for key, stored in maps.items():
            channels, sweep = stored.classes - 1, self.maps[key].sweep
            bands = MapGrids.of(stored).bands(size)
            counts = [sweep.histogram(part, channels, mask[rows]) for rows, part in bands]
            histograms[key] = channels, np.sum(counts, axis=0)
        return _Counted(
            sample, histograms, {key: count_mask(labels, mask, self.n_classes) for key, labels in masks.items()}
        )

    def add(self, counted: _Counted) -> None:
        """Add one image."""
        for key, (channels, histogram) in counted.maps.items():
            self.maps[key].add(counted.sample.id, channels, histogram)
        for key, counts in counted.masks.items():
            self.masks[key].add(counted.sample.id, counts, n_tags=len(counted.sample.tags))

    def result(self, names: tuple[str, ...], average: Average, thresholds: Mapping[str, float]) -> dict[str, Any]:
        """Scores objects by what was scored and void rule; see docs/artifacts.md.

        Args:
            names: C + 1 names, background first.
            average: over which classes the means go.
            thresholds: of the run's masks, by the maps that they are made of.
        """
        scores: dict[str, Any] = {}
        for key, maps in self.maps.items():
            if maps.n_images:
                scores[key] = maps.result(names, average, thresholds.get(key))
        scores |= {key: masks.result(names, average) for key, masks in self.masks.items() if masks.n_images}
        return scores

    def split_counts(self, names: tuple[str, ...], average: Average, data: str) -> SplitCounts:
        """The counts of every image; those of maps at the threshold that is best with void ignored."""
        # The threshold that is best for all: one per image would be an oracle.
        measures = {key: maps.images(maps.best(average)) for key, maps in self.maps.items() if maps.n_images}
        measures |= {key: masks.images() for key, masks in self.masks.items() if masks.n_images}
        return SplitCounts(names, data, measures)


def run(context: Context, stage: str = EVALUATE) -> list[Problem]:
    """Write metrics.json and each image's counts on the first rank, see :func:`measure`."""
    del stage
    return measure(context) if context.engine.is_main else []


def measure(context: Context, output: Workspace | None = None) -> list[Problem]:
    """Write metrics.json and each image's counts, to the run or another folder.

    Returns:
        Masks that could not be read or do not fit.
    """
    settings, workspace, source = context.recipe.evaluate, context.workspace, context.source
    output = output or workspace
    names = source.classes.names
    problems: list[Problem] = []
    splits: dict[str, Any] = {}
    threshold = _threshold(workspace)
    masks_of = "refined_maps" if context.recipe.refine.makes_maps else "maps"
    thresholds = {masks_of: float(threshold["value"])} if threshold else {}
    for split in (TRAIN, VAL):
        has_masks = any(source.has_mask(sample) for sample in context.samples(split))
        stages = _measured_stages(context.recipe) if has_masks else {}
        counted = _SplitScores(stages, len(names), settings.thresholds)
        problems += _count(context, split, counted)
        if result := counted.result(names, settings.average, thresholds):
            splits[split] = result
            write_split_counts(output, split, counted.split_counts(names, settings.average, source.fingerprint))
    marked = marked_masks(context, _measured_stages(context.recipe), problems)
    located = localization(context, problems)
    metrics = {
        "schema": SCHEMA,
        "classes": list(names),
        "tags": _tag_precision(workspace, list(context.recipe.trainings)[-1]),
        "threshold": threshold,
        "splits": splits,
        "marked": marked,
        "localization": located,
        "ratio_to_full": _ratio(context, splits),
        "without_masks": None if splits else ONLY_BOXES if located else NO_MASKS,
    }
    write_json(output.root / "metrics.json", metrics)
    return problems


def _count(context: Context, split: str, counted: _SplitScores) -> list[Problem]:
    """Count all images of a split, several at a time whatever the device: this is work for the CPU."""
    samples = [sample for sample in context.samples(split) if context.source.has_mask(sample)]
    problems: list[Problem] = []

    def work(sample: Sample) -> _Counted | Problem:
        try:
            return counted.count(context.workspace, sample, context.source.read_mask(sample))
        except TagmaskError as error:
            return Problem(STAGE, sample.id, str(sample.mask_path or ""), str(error))

    count_each(context, samples, work, counted.add, problems, description=f"evaluate {split}")
    return problems


def _measured_stages(recipe: Recipe) -> dict[str, str]:
    """What the recipe's stages leave to be scored, and the stage; the last round of self-training is the result."""
    supervision = recipe.segment.supervision if recipe.segment else None
    stages = {} if supervision == "full" else {"maps": LOCALIZE}
    if stages and recipe.refine.makes_maps:
        stages["refined_maps"] = REFINE
    if stages and recipe.refine.chain:
        stages["pseudo_masks"] = REFINE
    if recipe.segment and supervision in ("weak", "both"):
        *before, last = recipe.segment.stages
        stages |= {f"pseudo_masks_{number}": stage for number, stage in enumerate([*before, last][1:], start=2)}
        stages |= {f"segmentation_{number}": stage for number, stage in enumerate(before, start=1)}
        stages["segmentation"] = last
    if supervision in ("full", "both"):
        stages["segmentation_full"] = SEGMENT_FULL
    return stages


def _tag_precision(workspace: Workspace, stage: str) -> dict[str, Any] | None:
    lines = [line for line in read_jsonl(workspace.stage(stage) / "history.jsonl") if "val_ap" in line]
    if not lines:
        return None
    # A history of an earlier version has no ROC.
    extra = {key: lines[-1][f"val_{key}"] for key in ("auc", "auc_any") if f"val_{key}" in lines[-1]}
    return {"map": lines[-1]["val_map"], "ap": lines[-1]["val_ap"], **extra}


def _threshold(workspace: Workspace) -> dict[str, Any] | None:
    path = workspace.stage(REFINE) / "thresholds.json"
    if not path.exists():
        return None
    record = read_json(path)
    return {key: record[key] for key in ("value", "rule", "per_class", "band") if key in record}


def _ratio(context: Context, splits: dict[str, Any]) -> dict[str, float] | None:
    """Weak mIoU over full mIoU on val, where both were run (here, or full in another run)."""
    val = splits.get(VAL, {})
    full = val.get("segmentation_full")
    other = context.recipe.evaluate.full_run
    # The upper bound may come from another run: it does not depend on the method, and is dear.
    if full is None and other is not None:
        path = other / "metrics.json"
        if not path.is_file():
            msg = f"evaluate.full_run: {other} holds no metrics.json. Run it to its end first, or leave the key out."
            raise InputError(msg)
        full = read_json(path).get("splits", {}).get(VAL, {}).get("segmentation_full")
    if full is None or "segmentation" not in val:
        return None
    pairs = {rule: (val["segmentation"][rule]["miou"], full[rule]["miou"]) for rule, _ in VOID_RULES}
    return {rule: weak / best for rule, (weak, best) in pairs.items() if weak is not None and best}
