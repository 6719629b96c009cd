"""The threshold that suits a few real masks best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.engine.image_loop import gather_images
from tagmask.errors import DataError, RunError
from tagmask.metrics.threshold_sweep import ThresholdSweep
from tagmask.ops.map_grids import MapGrids
from tagmask.ops.transforms import resize_mask, working_size
from tagmask.runs.context import Context
from tagmask.runs.stage_names import REFINE
from tagmask.types import ActivationMaps, Sample

#: Thresholds that reach this share of the best score are as good as it, on so few images; their middle is taken.
AS_GOOD = 0.99
_STEPS = 100


def calibrated(
    context: Context, samples: Sequence[Sample], load: Callable[[Sample], ActivationMaps]
) -> tuple[float, dict[str, Any]]:
    """The threshold, and how it came about as JSON values: the number of masks, and the score at every threshold.

    The score is the mean over the images of each one's mean IoU: of few masks the pooled classes hang on single images.

    Args:
        context: of the refine stage.
        samples: training images that have maps and real masks.
        load: gives those maps.

    Raises:
        RunError: no such image, or not one mask can be read.
    """
    n_classes = len(context.source.classes.foreground)

    def work(sample: Sample) -> NDArray[np.float64] | None:
        try:
            mask = context.source.read_mask(sample)
            size = working_size((mask.shape[0], mask.shape[1]), context.recipe.working_size)
            stored, sweep = load(sample), ThresholdSweep(n_classes, _STEPS)
            sweep.update(MapGrids.of(stored).at(size), stored.classes - 1, resize_mask(mask, size))
        except DataError as error:
            context.progress.warning(f"{REFINE}: a mask is left out of the choice of the threshold: {error}")
            return None
        return sweep.compute(classes="occurring")

    results = gather_images(
        context.engine, samples, work, progress=context.progress, description="choose the threshold on real masks"
    )
    curves = [curve for curve in results if curve is not None and not np.isnan(curve).all()]
    if not curves:
        msg = f"{REFINE}: no image with a readable real mask has maps, so no threshold can be chosen on real_masks"
        raise RunError(msg)
    curve = np.nanmean(curves, axis=0)
    value = middle_of_best(np.linspace(0, 1, _STEPS + 1), curve)
    return value, {"masks": len(curves), "miou": [round(float(score), 6) for score in curve]}


def middle_of_best(thresholds: NDArray[np.float64], curve: NDArray[np.float64]) -> float:
    """Middle of the run of thresholds around the best one that are as good as it."""
    best = int(np.nanargmax(curve))
    good = curve >= AS_GOOD * curve[best]
    first, last = best, best
    while first > 0 and good[first - 1]:
        first -= 1
    while last + 1 < len(good) and good[last + 1]:
        last += 1
    return round(float(thresholds[first] + thresholds[last]) / 2, 6)
