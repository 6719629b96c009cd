"""Class-balanced sampling: images with rare classes are drawn more often.

Source: Gupta, Dollar and Girshick, "LVIS", CVPR 2019, repeat-factor sampling: a class with share f of the images (or of
the labelled pixels) asks for max(1, sqrt(t / f)) repetitions, an image gets the most that any of its classes asks for.

Deviation: the threshold t is the mean share over the classes, not a constant, so that there is nothing to tune.

Crops over objects: nnU-Net's oversampling of foreground (Isensee et al., "nnU-Net", Nature Methods 2021, methods
section, "patches containing foreground"): an object of a few pixels is in hardly any random crop of an enlarged image.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from tagmask.types import BACKGROUND, IGNORE_INDEX, UInt8Array


def repeat_factors(classes: Sequence[Collection[int]], amounts: Sequence[Mapping[int, float]]) -> list[float]:
    """How often each image is drawn, relative to the others.

    Args:
        classes: per image the foreground labels that it holds.
        amounts: per image and label what counts towards the label's share: 1 (images), or pixels.

    Returns:
        One factor >= 1 per image; 1 for an image without classes.
    """
    totals: dict[int, float] = {}
    for amount in amounts:
        for label, value in amount.items():
            totals[label] = totals.get(label, 0.0) + value
    totals = {label: value for label, value in totals.items() if value > 0}
    if not totals:
        return [1.0] * len(classes)
    mean = sum(totals.values()) / len(totals)
    # The root: a class that is a hundred times rarer is drawn ten times as often, so its few images are not all there
    # is.
    factors = {label: max(1.0, (mean / value) ** 0.5) for label, value in totals.items()}
    return [max((factors.get(label, 1.0) for label in labels), default=1.0) for labels in classes]


def label_pixels(mask: UInt8Array) -> dict[int, float]:
    """Share of the mask's labelled foreground that each label has; empty without any."""
    counts = np.bincount(mask.ravel(), minlength=IGNORE_INDEX + 1)
    counts[[BACKGROUND, IGNORE_INDEX]] = 0
    total = int(counts.sum())
    return {int(label): float(counts[label]) / total for label in np.flatnonzero(counts)}


def object_pixel(mask: UInt8Array, rng: np.random.Generator) -> tuple[int, int] | None:
    """A random pixel (y, x) of a random foreground class of a mask uint8 [H, W]; None where there is none.

    The class is drawn first, so that a small one is not drowned by a large one.
    """
    labels = np.unique(mask)
    labels = labels[(labels != BACKGROUND) & (labels != IGNORE_INDEX)]
    if not labels.size:
        return None
    rows, columns = np.nonzero(mask == labels[rng.integers(labels.size)])
    place = int(rng.integers(rows.size))
    return int(rows[place]), int(columns[place])
