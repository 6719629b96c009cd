"""Calibration of maps: does a score of 0.7 mean that 7 of 10 such pixels are of the class?

A reliability diagram and the expected calibration error (Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural
Networks", ICML 2017, equations 2, 3 and 5) of the score of a pixel's strongest map, made of the histogram that the
threshold sweep keeps anyway. Two readings of the score s:

* of maps: s is the confidence that the pixel is of the class of its strongest map (``object``);
* of pseudo masks at a threshold t: s where s > t, and 1 - s for the background below it (``label``).

The fine bins are the sweep's; a bin's mean score is taken as its middle, so the error is known to half a step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.metrics.counting import Array, Counts, Void
from tagmask.types import BACKGROUND

BINS = 20


def bin_scores(thresholds: Array) -> NDArray[np.float64]:
    """The middle of each of the m + 1 bins that m ascending thresholds in [0, 1] make, float64 [m + 1]."""
    edges = np.concatenate([[0.0], np.clip(np.asarray(thresholds, np.float64), 0, 1), [1.0]])
    middles: NDArray[np.float64] = (edges[:-1] + edges[1:]) / 2
    return middles


def calibration(
    counts: Counts, thresholds: Array, *, threshold: float | None = None, void: Void = "ignored", bins: int = BINS
) -> dict[str, Any]:
    """Reliability of the scores of a split.

    Args:
        counts: int64 [C + 2, C, m + 1]: ground truth (0..C, then void), strongest map's class, number of thresholds
            below the score; the sum over the first axis of ``ThresholdSweep.counts``.
        thresholds: the m ascending thresholds.
        threshold: where masks divide object and background; None leaves the label's calibration out.
        void: what becomes of void pixels.
        bins: number of equal bins of the diagram.

    Returns:
        JSON-ready: ``confidence``, ``accuracy``, ``pixels`` (share of all) of each bin of the object's confidence that
        is not empty, ``ece`` in [0, 1] over all pixels, and with a threshold ``label_ece``; ``None`` without a pixel.
    """
    known = counts[:-1].copy()
    if void == "background":
        known[BACKGROUND] += counts[-1]
    scores = bin_scores(thresholds)
    pixels = known.sum((0, 1))
    right = np.trace(known[1:], axis1=0, axis2=1)
    result: dict[str, Any] = _diagram(scores, right, pixels, bins)
    if threshold is not None:
        above = np.concatenate([[False], np.asarray(thresholds, np.float64) >= threshold])
        correct = np.where(above, right, known[BACKGROUND].sum(0))
        result["label_ece"] = _diagram(np.where(above, scores, 1 - scores), correct, pixels, bins)["ece"]
    return result


def _diagram(
    scores: NDArray[np.float64], right: Counts, pixels: Counts, bins: int
) -> dict[str, list[float] | float | None]:
    # Bins ((k - 1) / m, k / m] as in equation 2; a score on a bound stays in the lower one in spite of rounding.
    place = np.clip(np.ceil(scores * bins - 1e-9).astype(int) - 1, 0, bins - 1)
    total, hits, sums = (
        np.bincount(place, weights=values, minlength=bins) for values in (pixels, right, pixels * scores)
    )
    nonempty = total > 0
    if not nonempty.any():
        return {"confidence": [], "accuracy": [], "pixels": [], "ece": None}
    accuracy, confidence = hits[nonempty] / total[nonempty], sums[nonempty] / total[nonempty]
    shares = total[nonempty] / total.sum()
    return {
        "confidence": confidence.tolist(),
        "accuracy": accuracy.tolist(),
        "pixels": shares.tolist(),
        "ece": float((shares * np.abs(accuracy - confidence)).sum()),
    }
