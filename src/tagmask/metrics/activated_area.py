"""How much of the objects lies in the activated area {R > 0}: class-wise recall of maps before any threshold is set.

Sun, Zhang, Barnes, "Inferring the Class Conditional Response Map for Weakly Supervised Semantic Segmentation", WACV
2022, section 3.1. What lies outside the activated area is lost to every threshold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tagmask.errors import DataError
from tagmask.metrics.counting import Array, Counts, as_numpy, divide
from tagmask.types import IGNORE_INDEX

OBJECT, HIT, ACTIVATED, SEEN = range(4)


def activated_pixels(
    maps: Array | Tensor, classes: Array | Tensor, mask: Array | Tensor, threshold: float = 0.0
) -> Counts:
    """Pixel counts of one image; void (255) is left out.

    Args:
        maps: float [K, H, W], K >= 0.
        classes: int [K], 0-based classifier channels (mask label - 1) of the maps.
        mask: integer [H, W], labels 0..C and 255.
        threshold: a pixel is activated if its map exceeds this.

    Returns:
        int64 [K, 4]: pixels of the class, those of them that are activated, activated pixels of any class, and all.

    Raises:
        DataError: shapes do not fit, or a map is not finite.
    """
    stack, channels, truth = as_numpy(maps), as_numpy(classes).reshape(-1), as_numpy(mask)
    if stack.ndim != 3 or len(stack) != len(channels) or stack.shape[1:] != truth.shape:
        msg = (
            f"maps {list(stack.shape)}, {len(channels)} classes and mask {list(truth.shape)} do not fit: "
            "wanted [K, H, W], [K] and [H, W]"
        )
        raise DataError(msg)
    if not np.isfinite(stack).all():
        msg = "an activation map is not finite"
        raise DataError(msg)
    known = truth != IGNORE_INDEX
    counts = np.zeros((len(channels), 4), np.int64)
    for row, channel in zip(range(len(channels)), channels, strict=True):
        own, active = truth == channel + 1, (stack[row] > threshold) & known
        counts[row] = own.sum(), (own & active).sum(), active.sum(), known.sum()
    return counts


class ActivatedArea:
    """Activated areas of a split, by class: every class over the images that have a map of it.

    Args:
        n_classes: number C of foreground classes.
        threshold: a pixel is activated if its map exceeds this.

    ``counts`` is int64 [C, 4], sums of :func:`activated_pixels`; sums over ranks are exact, see :meth:`merge`.
    """

    def __init__(self, n_classes: int, threshold: float = 0.0) -> None:
        self.threshold = threshold
        self.counts: Counts = np.zeros((n_classes, 4), np.int64)

    def update(self, maps: Array | Tensor, classes: Array | Tensor, mask: Array | Tensor) -> None:
        """Add one image; arguments and errors as in :func:`activated_pixels`.

        Raises:
            DataError: also if a class is unknown; nothing is counted then.
        """
        channels = as_numpy(classes).reshape(-1)
        if len(channels) and not (channels.min() >= 0 and channels.max() < len(self.counts)):
            msg = f"classes {channels.tolist()} are not channels 0..{len(self.counts) - 1}"
            raise DataError(msg)
        np.add.at(self.counts, channels, activated_pixels(maps, channels, mask, self.threshold))

    def merge(self, other: ActivatedArea) -> None:
        """Add the counts of another rank.

        Raises:
            ValueError: other classes or another threshold.
        """
        if self.counts.shape != other.counts.shape or self.threshold != other.threshold:
            msg = "only activated areas of the same classes and threshold can be merged"
            raise ValueError(msg)
        self.counts += other.counts

    def recall(self) -> NDArray[np.float64]:
        """Share of each class's pixels that its own maps activate, float64 [C]; NaN where it has no pixel."""
        return self._share(HIT, OBJECT)

    def precision(self) -> NDArray[np.float64]:
        """Share of each class's activated pixels that are of the class; NaN where nothing is activated."""
        return self._share(HIT, ACTIVATED)

    def extent(self) -> NDArray[np.float64]:
        """Share of its images' pixels that each class's maps activate; NaN where it has no image."""
        return self._share(ACTIVATED, SEEN)

    def _share(self, part: int, whole: int) -> NDArray[np.float64]:
        return divide(self.counts[:, part], self.counts[:, whole])
