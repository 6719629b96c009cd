"""A class's threshold from the area that its objects usually cover, chosen without any mask. Ours.

Whoever tags photographs mostly knows how large a thing is in them, and size is what a single threshold for all classes
gets wrong: the blob over a pore is many times the pore, the map of a stain covers a part of the stain. Sizes as
supervision beside tags: Pathak, Krähenbühl and Darrell, "Constrained Convolutional Neural Networks for Weakly
Supervised Segmentation", ICCV 2015; there they constrain a network's outputs, here they choose a number.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Thresholds that are tried, i / _STEPS.
_STEPS = 200
_UNIT = float(1 << 40)


class AreaThreshold:
    """Mean share of the image above each threshold, over the images of one class."""

    def __init__(self) -> None:
        self.thresholds: NDArray[np.float64] = np.arange(_STEPS) / _STEPS
        # Whole numbers add up to the same in any order and over any number of processes.
        self.above: NDArray[np.int64] = np.zeros(_STEPS, np.int64)
        self.n_images = 0

    def update(self, values: Tensor) -> None:
        """Count one image's map [h, w] in [0, 1] of the class."""
        scores = values.float().cpu().numpy().ravel()
        below = np.searchsorted(self.thresholds.astype(np.float32), scores, side="left")
        counts = np.bincount(below, minlength=_STEPS + 1)
        # A score exceeds the first so many thresholds.
        exceeding = counts[::-1].cumsum()[::-1][1:]
        self.above += np.rint(exceeding / scores.size * _UNIT).astype(np.int64)
        self.n_images += 1

    def merge(self, other: AreaThreshold) -> None:
        """Count what another process counted."""
        self.above += other.above
        self.n_images += other.n_images

    def choose(self, area: float) -> float:
        """The threshold above which the mean share is nearest to ``area``; the higher one of two as near.

        Raises:
            ValueError: no image was counted.
        """
        if not self.n_images:
            msg = "no image has the class, so its threshold cannot be chosen by an area"
            raise ValueError(msg)
        shares = self.above / _UNIT / self.n_images
        distance = np.abs(shares - area)
        return float(self.thresholds[np.flatnonzero(distance == distance.min())[-1]])


def threshold_for_area(maps: Tensor | list[Tensor], area: float) -> float:
    """The threshold above which maps cover a share of their images in the mean.

    Args:
        maps: maps [h, w] of one class, in [0, 1], one an image, of any sizes.
        area: share of the image, in (0, 1).

    Returns:
        A threshold in [0, 1), in steps of 0.005.

    Raises:
        ValueError: no map.
    """
    statistic = AreaThreshold()
    for values in maps:
        statistic.update(torch.as_tensor(values))
    return statistic.choose(area)
