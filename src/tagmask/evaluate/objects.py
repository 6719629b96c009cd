"""Localisation of a run: its maps against the boxes of the data source. Part of the evaluate stage."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from tagmask.context import TRAIN, VAL, Context
from tagmask.errors import TagmaskError
from tagmask.evaluate.localization_scores import LocalizationScores
from tagmask.interfaces import Problem, Sample


def localization(context: Context, problems: list[Problem]) -> dict[str, Any] | None:
    """The ``localization`` object of metrics.json: by split, val alone where it has boxes.

    Images with exactly one tag and a box of it are counted. Images whose map or mask cannot be read are added to
    ``problems``.
    """
    if context.recipe.segment is not None and context.recipe.segment.supervision == "full":
        return None  # no maps are made
    for split in (VAL, TRAIN):
        samples = [sample for sample in context.samples(split) if _boxes(sample)]
        if samples and (found := _scores(context, split, samples, problems)) is not None:
            return {split: found}
    return None


def _boxes(sample: Sample) -> tuple[Any, ...]:
    """Boxes of the only tag of an image; () where it has several or none."""
    return tuple(box for box in sample.boxes if (box.label,) == sample.tags)


def _scores(context: Context, split: str, samples: list[Sample], problems: list[Problem]) -> dict[str, Any] | None:
    """Count all images, several at a time whatever the device: this is work for the CPU."""
    settings, workspace, source = context.recipe.evaluate.boxes, context.workspace, context.source

    def empty() -> LocalizationScores:
        return LocalizationScores(settings.component, settings.thresholds, settings.iou, inclusive=settings.inclusive)

    def work(sample: Sample) -> LocalizationScores | Problem:
        counted, (label,) = empty(), sample.tags
        try:
            stored = workspace.load_maps(sample.id)
            counted.update(
                stored.maps[stored.classes.tolist().index(label)],
                label,
                _boxes(sample),
                stored.image_size,
                ranking=stored.ranking,
                mask=source.read_mask(sample) if source.has_mask(sample) else None,
            )
        except TagmaskError as error:
            return Problem("evaluate", sample.id, str(sample.image_path), str(error))
        return counted

    whole = empty()
    located = [sample for sample in samples if workspace.map_path(sample.id).exists()]
    context.progress.start(f"evaluate boxes of {split}", len(located))
    with closing(context.engine.in_threads(work, located)) as results:
        for found in results:
            if isinstance(found, Problem):
                problems.append(found)
            else:
                whole.merge(found)
            context.progress.advance()
    context.progress.finish()
    return whole.result(None if settings.threshold == "best" else settings.threshold)
