"""The evaluate stage: the only one that opens ground truth. One pass over the images with masks."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np
import torch

from tagmask.context import TRAIN, VAL, Context
from tagmask.errors import DataError, InputError, TagmaskError
from tagmask.evaluate.segmentation import VOID_RULES, ConfusionCounter, Void, scores
from tagmask.evaluate.threshold_sweep import ThresholdSweep
from tagmask.interfaces import Problem, Sample, UInt8Array
from tagmask.refine.labels import upsample_maps
from tagmask.settings import Recipe
from tagmask.workspace import SCHEMA, Workspace, read_json, read_jsonl, write_json

STAGE = "evaluate"
NO_MASKS = "no masks, no mIoU: the data source has no ground truth, so nothing could be scored"
_SWEPT = {"maps": "localize", "refined_maps": "refine"}
_PREDICTED = {"segmentation": "segment", "segmentation_full": "segment/full"}


class _SplitScores:
    """Everything counted on one split; ``keys`` name what the recipe makes, for older artifacts may lie beside it."""

    def __init__(self, keys: Set[str], n_classes: int, thresholds: int) -> None:
        self.sweeps = {key: ThresholdSweep(n_classes, thresholds) for key in _SWEPT if key in keys}
        self.counters = {key: ConfusionCounter(n_classes + 1) for key in ("pseudo_masks", *_PREDICTED) if key in keys}

    def update(self, workspace: Workspace, sample: Sample, mask: UInt8Array) -> None:
        """Count every artifact that exists for this image, or none of them.

        Raises:
            DataError: an artifact is of another size than the ground truth.
            RunError: an artifact is broken.
        """
        stages = {key: _SWEPT[key] for key in self.sweeps if workspace.map_path(sample.id, stage=_SWEPT[key]).exists()}
        maps = {key: workspace.load_maps(sample.id, stage=stage) for key, stage in stages.items()}
        paths = {"pseudo_masks": workspace.mask_path(sample.id)}
        paths |= {key: workspace.prediction_path(sample.id, stage) for key, stage in _PREDICTED.items()}
        masks = {
            key: workspace.load_mask(path) for key, path in paths.items() if key in self.counters and path.exists()
        }
        size = (mask.shape[0], mask.shape[1])
        sizes: dict[str, tuple[int, ...]] = {key: stored.image_size for key, stored in maps.items()}
        sizes |= {key: labels.shape for key, labels in masks.items()}
        for key, found in sizes.items():
            if found != size:
                msg = (
                    f"{sample.mask_path}: the ground truth is {size[1]}x{size[0]}, its {key.replace('_', ' ')} "
                    f"{found[1]}x{found[0]} (width x height)"
                )
                raise DataError(msg)
        for key, stored in maps.items():
            full = upsample_maps(torch.from_numpy(stored.maps), size)
            self.sweeps[key].update(full, stored.classes - 1, mask)
        for key, labels in masks.items():
            self.counters[key].update(labels, mask, n_tags=len(sample.tags))

    def result(self, names: tuple[str, ...], average: Any) -> dict[str, Any]:
        """Scores objects by what was scored and void rule; see docs/artifacts.md."""
        found: dict[str, Any] = {}
        for key, sweep in self.sweeps.items():
            if sweep.n_images:
                found[key] = {rule: _sweep_scores(sweep, names, average, void) for rule, void in VOID_RULES}
        for key, counter in self.counters.items():
            if counter.n_images:
                found[key] = {
                    rule: scores(
                        counter.confusion(void),
                        names,
                        average=average,
                        n_images=counter.n_images,
                        by_class_count=counter.by_class_count(void),
                    )
                    for rule, void in VOID_RULES
                }
        return found


def _sweep_scores(sweep: ThresholdSweep, names: tuple[str, ...], average: Any, void: Void) -> dict[str, Any]:
    """Scores at the threshold that is best on this very split, and the curve."""
    curve = sweep.compute(classes=average, void=void)
    best = int(np.nanargmax(curve)) if not np.isnan(curve).all() else 0
    result = scores(
        sweep.confusions(void=void)[best],
        names,
        average=average,
        n_images=sweep.n_images,
        by_class_count=sweep.by_class_count(best, void=void),
    )
    result["threshold"] = float(sweep.thresholds[best])
    result["threshold_curve"] = {
        "thresholds": [float(t) for t in sweep.thresholds],
        "miou": [None if np.isnan(v) else float(v) for v in curve],
    }
    return result


def run(context: Context) -> list[Problem]:
    """Write metrics.json; returns masks that could not be read or do not fit."""
    settings, workspace, source = context.recipe.evaluate, context.workspace, context.source
    names = source.classes.names
    problems: list[Problem] = []
    splits: dict[str, Any] = {}
    for split in (TRAIN, VAL):
        samples = [sample for sample in context.samples(split) if source.has_mask(sample)]
        counted = _SplitScores(_made(context.recipe), len(names) - 1, settings.thresholds)
        context.progress.start(f"evaluate {split}", len(samples))
        for sample in samples:
            try:
                counted.update(workspace, sample, source.read_mask(sample))
            except TagmaskError as error:
                problems.append(Problem(STAGE, sample.id, str(sample.mask_path or ""), str(error)))
            context.progress.advance()
        context.progress.finish()
        if result := counted.result(names, settings.average):
            splits[split] = result
    metrics = {
        "schema": SCHEMA,
        "classes": list(names),
        "tags": _tag_precision(workspace, list(context.recipe.trainings)[-1]),
        "threshold": _threshold(workspace),
        "splits": splits,
        "ratio_to_full": _ratio(context, splits),
        "without_masks": None if splits else NO_MASKS,
    }
    write_json(workspace.root / "metrics.json", metrics)
    return problems


def _made(recipe: Recipe) -> set[str]:
    """What the recipe's stages leave to be scored."""
    supervision = recipe.segment.supervision if recipe.segment else None
    made = set() if supervision == "full" else {"maps", "pseudo_masks"}
    if made and recipe.refine.makes_maps:
        made.add("refined_maps")
    if supervision in ("weak", "both"):
        made.add("segmentation")
    if supervision in ("full", "both"):
        made.add("segmentation_full")
    return made


def _tag_precision(workspace: Workspace, stage: str) -> dict[str, Any] | None:
    lines = [line for line in read_jsonl(workspace.stage(stage) / "history.jsonl") if "val_ap" in line]
    return {"map": lines[-1]["val_map"], "ap": lines[-1]["val_ap"]} if lines else None


def _threshold(workspace: Workspace) -> dict[str, Any] | None:
    path = workspace.stage("refine") / "thresholds.json"
    if not path.exists():
        return None
    stored = read_json(path)
    return {key: stored[key] for key in ("value", "rule", "per_class", "band") if key in stored}


def _ratio(context: Context, splits: dict[str, Any]) -> dict[str, float] | None:
    """Weak mIoU over full mIoU on val, where both were run (here, or full in another run)."""
    val = splits.get(VAL, {})
    full = val.get("segmentation_full")
    other = context.recipe.evaluate.full_run
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
