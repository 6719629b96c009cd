"""Scores of whole images: is an image without any object left clean, and do masks tell which images hold a class?

What users of inspection ask first: how often a faultless part raises a false alarm. An image is *clean* if no pixel of
its ground truth is of a foreground class, and left clean if none of its prediction is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.metrics.counting import Array, Void, divide
from tagmask.metrics.image_counts import ImageCounts
from tagmask.metrics.segmentation import json_number


def roc_auc(scores: Array, positive: Array) -> float:
    """Area under the receiver operating characteristic: how often a positive image scores above a negative one.

    Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
    Radiology 1982: the Mann-Whitney statistic, where a tie counts half.

    Args:
        scores: [N] real numbers, no NaN.
        positive: bool [N].

    Returns:
        In [0, 1]; 0.5 is chance; NaN without an image of either kind.

    Raises:
        ValueError: shapes differ, or a score is NaN.
    """
    values, marks = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if values.shape != marks.shape or values.ndim != 1 or np.isnan(values).any():
        msg = f"roc_auc needs N scores without NaN and N marks, got {list(values.shape)} and {list(marks.shape)}"
        raise ValueError(msg)
    n_positive, n_negative = int(marks.sum()), int((~marks).sum())
    if not n_positive or not n_negative:
        return float("nan")
    negatives = np.sort(values[~marks])
    below = np.searchsorted(negatives, values[marks], side="left")
    not_above = np.searchsorted(negatives, values[marks], side="right")
    # Counts, so the area is exact: a tie is below by half.
    return float((below.sum() + not_above.sum()) / 2 / (n_positive * n_negative))


def image_level(counts: ImageCounts, names: Sequence[str], void: Void = "ignored") -> dict[str, Any]:
    """Clean images, false alarms and the ROC of single images, JSON-ready.

    Args:
        counts: of masks that were predicted without knowing the tags.
        names: n names, background first.
        void: ``ignored`` or ``background``.

    Returns:
        ``clean_images``, ``images``: how many are clean, and scored at all; ``left_clean``: share of the clean images
        without a marked pixel, ``left_clean_by_class``: without one of that class; ``false_alarm_area``: share of all
        pixels of clean images that are marked; ``objects_noticed``: share of the other images with a marked pixel;
        ``auc_any``, ``auc`` (by class), ``auc_mean``: :func:`roc_auc` of the marked share of an image, against whether
        the image holds anything, or the class. ``None`` where there is no image to tell.
    """
    areas = counts.areas(void)
    truth, prediction = areas.truth[counts.scored], areas.prediction[counts.scored]
    pixels = truth.sum(1)
    # An image that is void all over says nothing.
    truth, prediction, pixels = truth[pixels > 0], prediction[pixels > 0], pixels[pixels > 0]
    holds, shares = truth[:, 1:] > 0, prediction[:, 1:] / pixels[:, None]
    clean = ~holds.any(1)
    marked = prediction[:, 1:] > 0
    auc = [roc_auc(shares[:, c], holds[:, c]) for c in range(holds.shape[1])]
    known = [value for value in auc if not np.isnan(value)]
    foreground = names[1:]
    return {
        "images": len(pixels),
        "clean_images": int(clean.sum()),
        "left_clean": _share(~marked[clean].any(1)),
        "left_clean_by_class": {name: _share(~marked[clean, c]) for c, name in enumerate(foreground)},
        "false_alarm_area": json_number(float(divide(prediction[clean, 1:].sum(), pixels[clean].sum()))),
        "objects_noticed": _share(marked[~clean].any(1)),
        "auc_any": json_number(roc_auc(shares.sum(1), ~clean)),
        "auc_mean": json_number(np.mean(known)) if known else None,
        "auc": dict(zip(foreground, map(json_number, auc), strict=True)),
    }


def _share(marks: NDArray[np.bool_]) -> float | None:
    return float(marks.mean()) if marks.size else None
