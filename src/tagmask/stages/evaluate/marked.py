"""How much masks mark, and whether it fits the tags: what can be said of masks without any ground truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagmask.errors import TagmaskError
from tagmask.runs.context import TRAIN, VAL, Context
from tagmask.runs.stage_names import EVALUATE
from tagmask.stages.evaluate.counting_images import count_each
from tagmask.storage.pictures import load_mask
from tagmask.types import BACKGROUND, IGNORE_INDEX, Problem, Sample, UInt8Array

_MOST_IMAGES = 1000  # shares are means: more images change them by nothing
NEARLY_ALL = 0.95  # of the pixels: a mask that marks more has flooded its image


@dataclass(frozen=True, slots=True)
class Marked:
    """Of one mask: share of the labelled pixels that are foreground; of those, the share whose label is a tag."""

    foreground: float
    in_tags: float | None
    n_tags: int
    n_tags_marked: int

    @classmethod
    def of(cls, mask: UInt8Array, tags: Sequence[int]) -> Marked:
        """Count a mask uint8 [H, W] (labels, 255 = ignore) of an image with these tags (labels 1..C)."""
        pixels = np.bincount(mask.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
        total, foreground = int(pixels.sum()), int(pixels.sum() - pixels[BACKGROUND])
        right = int(pixels[list(tags)].sum())
        return cls(
            foreground=foreground / total if total else 0.0,
            in_tags=right / foreground if foreground else None,
            n_tags=len(tags),
            n_tags_marked=sum(bool(pixels[tag]) for tag in tags),
        )


def summary(marked: Sequence[Marked]) -> dict[str, Any]:
    """Figures over images, for metrics.json; shares in [0, 1], None where no image tells."""
    tagged = [one for one in marked if one.n_tags]
    untagged = [one for one in marked if not one.n_tags]
    n_tags = sum(one.n_tags for one in tagged)
    in_tags = [one.in_tags for one in tagged if one.in_tags is not None]
    return {
        "images": len(marked),
        "foreground": _mean([one.foreground for one in tagged]),
        "foreground_untagged": _mean([one.foreground for one in untagged]),
        "empty": _mean([float(not one.foreground) for one in tagged]),
        "flooded": _mean([float(one.foreground > NEARLY_ALL) for one in tagged]),
        "in_tags": _mean(in_tags),
        "tags_marked": round(sum(one.n_tags_marked for one in tagged) / n_tags, 6) if n_tags else None,
    }


def marked_masks(context: Context, stages: Mapping[str, str], problems: list[Problem]) -> dict[str, Any]:
    """What the pseudo masks of train and the predictions of val mark: {split: {measure: figures}}.

    Args:
        context: of the stage.
        stages: stage that makes each measure.
        problems: takes the masks that cannot be read.
    """
    workspace = context.workspace
    paths: dict[str, tuple[str, Callable[[Sample], Path]]] = {}
    if "pseudo_masks" in stages:
        paths[TRAIN] = "pseudo_masks", lambda sample: workspace.mask_path(sample.id)
    if "segmentation" in stages:
        paths[VAL] = "segmentation", lambda sample: workspace.prediction_path(sample.id, stages["segmentation"])
    figures: dict[str, Any] = {}
    for split, (measure, path_of) in paths.items():
        marked = _count(context, split, path_of, problems)
        if marked:
            figures[split] = {measure: summary(marked)}
    return figures


def _count(context: Context, split: str, path_of: Callable[[Sample], Path], problems: list[Problem]) -> list[Marked]:
    samples = [sample for sample in context.samples(split) if path_of(sample).exists()]
    if len(samples) > _MOST_IMAGES:
        # Drawn, not the first ones: ids are often sorted by class.
        indices = np.random.default_rng(context.recipe.seed).permutation(len(samples))[:_MOST_IMAGES]
        samples = [samples[index] for index in sorted(indices)]
    marked: list[Marked] = []
    unreadable: list[Problem] = []

    def work(sample: Sample) -> Marked | Problem:
        try:
            return Marked.of(load_mask(path_of(sample)), sample.tags)
        except TagmaskError as error:
            return Problem(EVALUATE, sample.id, str(path_of(sample)), str(error))

    count_each(context, samples, work, marked.append, unreadable, description=f"what the masks of {split} mark")
    known = {problem.id for problem in problems}  # where there is ground truth, the scores listed them
    problems += [problem for problem in unreadable if problem.id not in known]
    return marked


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 6) if values else None
