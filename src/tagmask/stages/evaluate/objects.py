"""Localisation of a run: its maps against the boxes of the data source. Part of the evaluate stage."""

from __future__ import annotations

from typing import Any

import numpy as np

from tagmask.errors import DataError, TagmaskError
from tagmask.metrics.boxes import boxes_of_levels
from tagmask.metrics.localization_scores import LocalizationScores
from tagmask.ops.map_grids import MapGrids
from tagmask.runs.context import TRAIN, VAL, Context
from tagmask.runs.stage_names import EVALUATE
from tagmask.stages.evaluate.counting_images import count_each
from tagmask.types import Box, DataSource, Problem, Sample, UInt8Array


def localization(context: Context, problems: list[Problem]) -> dict[str, Any] | None:
    """The ``localization`` object of metrics.json: by split, val alone where it has boxes.

    Images with exactly one tag and a box of it are counted; with ``evaluate.boxes.from_masks`` those with a mask of it
    too. Images whose map or mask cannot be read are added to ``problems``.
    """
    if context.recipe.segment is not None and context.recipe.segment.supervision == "full":
        return None  # no maps are made
    for split in (VAL, TRAIN):
        samples = [sample for sample in context.samples(split) if _boxes(sample) or _has_box_in_mask(context, sample)]
        if samples:
            scores = _scores(context, split, samples, problems)
            return None if scores is None else {split: scores}
    return None


def _boxes(sample: Sample) -> tuple[Box, ...]:
    """Boxes of the only tag of an image; () where it has several or none."""
    return tuple(box for box in sample.boxes if (box.label,) == sample.tags)


def _has_box_in_mask(context: Context, sample: Sample) -> bool:
    from_masks = context.recipe.evaluate.boxes.from_masks
    return from_masks and len(sample.tags) == 1 and not sample.boxes and context.source.has_mask(sample)


def _box_in_mask(mask: UInt8Array | None, label: int) -> tuple[Box, ...]:
    """The box around the class's piece with the largest outline; () where the class has no pixel."""
    if mask is None or not (mask == label).any():
        return ()
    ((x0, y0, x1, y1),) = boxes_of_levels((mask == label).astype(np.int32), 1, "contour").tolist()
    return (Box(label, x0, y0, x1, y1),)


def _truth(source: DataSource, sample: Sample) -> tuple[UInt8Array | None, int]:
    """The mask of an image with one tag, if it has one, and the number that its class has there."""
    if source.object_reader is not None and sample.mask_path is not None:
        return source.object_reader(sample), 1
    return source.read_mask(sample) if source.has_mask(sample) else None, sample.tags[0]


def _scores(context: Context, split: str, samples: list[Sample], problems: list[Problem]) -> dict[str, Any] | None:
    """Count all images, several at a time whatever the device: this is work for the CPU."""
    settings, workspace, source = context.recipe.evaluate.boxes, context.workspace, context.source

    def empty() -> LocalizationScores:
        return LocalizationScores(settings.component, settings.thresholds, settings.iou, inclusive=settings.inclusive)

    def work(sample: Sample) -> LocalizationScores | Problem:
        counted, (label,) = empty(), sample.tags
        try:
            stored = workspace.load_maps(sample.id)
            mask, mask_label = _truth(source, sample)
            if label not in stored.classes:
                names = source.classes.names
                msg = f"{sample.image_path}: has no map of its tag '{names[label]}'; its tags changed since it was made"
                raise DataError(msg)
            if boxes := _boxes(sample) or _box_in_mask(mask, label):
                scores = MapGrids.of(stored).scores(stored.classes.tolist().index(label)).numpy()
                options: dict[str, Any] = {"ranking": stored.ranking, "mask": mask, "mask_label": mask_label}
                counted.update(scores, label, boxes, stored.image_size, **options)
        except TagmaskError as error:
            return Problem(EVALUATE, sample.id, str(sample.image_path), str(error))
        return counted

    whole = empty()
    # What localize left out is on its list already.
    located = [sample for sample in samples if workspace.map_path(sample.id).exists()]
    count_each(context, located, work, whole.merge, problems, description=f"evaluate boxes of {split}")
    return whole.result(None if settings.threshold == "best" else settings.threshold)
