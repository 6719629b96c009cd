"""One background threshold chosen without any mask: the one whose foreground colour tells best.

For each image and threshold t the pixels fall into foreground (max_k map_k > t) and background. An object differs
in colour from what surrounds it, so a split that follows its outline can be read off the colour best. Colour is
one of levels^3 RGB bins; p is the share of foreground, p_c that among pixels of colour c. Two statistics:

* ``variance`` (default): Var(p_c) / sqrt(p (1 - p)), the variance of the split that colour explains per standard
  deviation of the split. It stands between Goodman and Kruskal's tau, which divides by the variance and favours
  tiny peaks, and the plain explained variance, which favours large splits. Splits below 1 % of an image get no
  extra weight.
* ``information``: the mutual information H(colour) + H(split) - H(colour, split).

The statistic is averaged over images. Around its highest mean the curve is flat and its peak is noise, so the
middle of the thresholds that reach 98 % of the peak is taken. Only the order of scores counts, so a monotone
change of the maps and thresholds moves the choice with them.

Activation maps that are blobs on a telling part (heads) do not follow outlines anywhere: their own curve peaks at
that part. ``guide`` maps help there, the same maps spread over regions of one colour: the statistic is taken on the
guide, and the threshold chosen is the one that marks as many pixels of the maps as the guide's best marks of it.

All thresholds are evaluated in one pass over an image: a histogram over (colour, number of thresholds below the
score), summed from the top. The sum over images is kept in integers (units of 2^-40), so that ranks and orders
of images agree to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagmask.errors import DataError
from tagmask.methods.colour_walk.refiner import colour_walk
from tagmask.ops.maps import upsample_maps
from tagmask.types import UInt8Array

Statistic = Literal["variance", "information"]

_UNIT = float(1 << 40)
_SMALLEST_SPLIT = 0.01
_PLATEAU = 0.98


class AutoThreshold:
    """Accumulates how well colour tells the foreground, per threshold, over images.

    Args:
        thresholds: an int for i / thresholds, i = 0..thresholds, or an ascending sequence in [0, 1].
        levels: colour levels per channel; 8 gives 512 colours.
        statistic: ``variance`` or ``information``, see the module.

    Raises:
        ValueError: thresholds not ascending, levels outside 2..32, or an unknown statistic.
    """

    def __init__(
        self,
        thresholds: int | Sequence[float] | NDArray[np.floating] = 100,
        *,
        levels: int = 8,
        statistic: Statistic = "variance",
    ) -> None:
        if isinstance(thresholds, int):
            thresholds = np.arange(thresholds + 1) / thresholds
        self.thresholds: NDArray[np.float64] = np.asarray(thresholds, np.float64)
        if self.thresholds.ndim != 1 or self.thresholds.size == 0 or (np.diff(self.thresholds) <= 0).any():
            msg = "thresholds must be a non-empty ascending sequence"
            raise ValueError(msg)
        if not 2 <= levels <= 32:
            msg = f"colour levels must be 2..32, got {levels}"
            raise ValueError(msg)
        if statistic not in _STATISTICS:
            msg = f"statistic must be one of {sorted(_STATISTICS)}, got {statistic!r}"
            raise ValueError(msg)
        self.levels = levels
        self.statistic = statistic
        self.total: NDArray[np.int64] = np.zeros(self.thresholds.size, np.int64)
        self.marked: NDArray[np.int64] = np.zeros((2, self.thresholds.size), np.int64)  # share: of maps, of guides
        self.n_images = 0

    def update(
        self,
        image: UInt8Array,
        maps: Tensor | NDArray[np.float32],
        *,
        guide: Tensor | NDArray[np.float32] | None = None,
    ) -> None:
        """Add one image; an image without maps is left out.

        Args:
            image: uint8 [H, W, 3].
            maps: float [K, h, w] in [0, 1]; stretched to the image if the sizes differ.
            guide: maps of the same shape to take the statistic on, see the module; the maps themselves if None.

        Raises:
            DataError: not an RGB image, or a map is not finite.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            msg = f"the image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}"
            raise DataError(msg)
        if len(maps) == 0:
            return
        bins = self._bins(image, maps)
        guide_bins = bins if guide is None else self._bins(image, guide)
        # Each image has its own colours, so the statistic is taken per image and then averaged: pooled over images, a
        # colour of one image's object would be another's background.
        value = _STATISTICS[self.statistic](colour_bins(image, self.levels), guide_bins, self.thresholds.size)
        # Integers add up the same in any order and over any number of processes; floats would not.
        self.total += np.rint(value * _UNIT).astype(np.int64)
        for row, row_bins in enumerate((bins, guide_bins)):
            # Where maps and guide differ, thresholds are carried over by the share of pixels that they mark: heights
            # are not comparable, as the walk flattens maps.
            above = 1 - np.bincount(row_bins, minlength=self.thresholds.size + 1).cumsum()[:-1] / row_bins.size
            self.marked[row] += np.rint(above * _UNIT).astype(np.int64)
        self.n_images += 1

    def _bins(self, image: UInt8Array, maps: Tensor | NDArray[np.float32]) -> NDArray[np.intp]:
        """Number of thresholds below the highest score of each pixel of the image, [H * W]."""
        stack = torch.as_tensor(maps)
        if stack.shape[1:] != image.shape[:2]:
            stack = upsample_maps(stack, (image.shape[0], image.shape[1]))
        score = stack.float().amax(0).cpu().numpy().ravel()
        if not np.isfinite(score).all():
            msg = "an activation map is not finite"
            raise DataError(msg)
        return np.searchsorted(self.thresholds.astype(np.float32), score, side="left")

    def merge(self, other: AutoThreshold) -> None:
        """Add the images of another rank.

        Raises:
            ValueError: other thresholds, colour levels or statistic.
        """
        same = (self.levels, self.statistic) == (other.levels, other.statistic)
        if not same or not np.array_equal(self.thresholds, other.thresholds):
            msg = "only statistics with the same thresholds, colour levels and kind can be merged"
            raise ValueError(msg)
        self.total += other.total
        self.marked += other.marked
        self.n_images += other.n_images

    def curve(self) -> NDArray[np.float64]:
        """Mean statistic (information in nats) at each threshold, float64 [m]; zeros before the first image."""
        return self.total / _UNIT / max(self.n_images, 1)

    def choose(self) -> float:
        """The threshold in the middle of the plateau around the highest mean statistic.

        Raises:
            DataError: no image told anything (none added, one colour only, or constant maps).
        """
        if not (self.total > 0).any():
            msg = f"no threshold can be chosen from {self.n_images} images: every map or image is constant."
            raise DataError(msg)
        # Only the stretch around the peak: a second hill as high elsewhere must not move the middle between the two.
        outside = np.flatnonzero(self.total < _PLATEAU * self.total.max())
        peak = int(self.total.argmax())
        first = max(outside[outside < peak], default=-1) + 1
        last = min(outside[outside > peak], default=self.total.size) - 1
        middle = (first + last) // 2
        if not np.array_equal(self.marked[0], self.marked[1]):  # the guide's share of marked pixels, on the maps
            middle = int(abs(self.marked[0] - self.marked[1, middle]).argmin())
        return float(self.thresholds[middle])


def outline_guide(maps: Tensor, image: UInt8Array) -> Tensor:
    """Maps [K, h, w] spread over regions of one colour, for :meth:`AutoThreshold.update`.

    Sigma and length of the walk are the middle of what held on MSRC and PartsWorld (docs/methods/threshold.md).
    """
    return colour_walk(maps, image, sigma=0.02, steps=128)


class MapStatistic:
    """What the refine stage chooses a threshold with: :class:`AutoThreshold` on maps at their own size.

    ``outlined``: refiners have drawn the maps to the outlines. Others need a guide that is, see the module.
    """

    _TITLES: ClassVar[dict[str, str]] = {
        "variance": "variance explained by colour",
        "information": "colour mutual information",
    }

    def __init__(self, *, outlined: bool) -> None:
        self.outlined, self.statistic = outlined, AutoThreshold()

    def update(self, image: UInt8Array, maps: Tensor) -> None:
        """Count one image, uint8 [h, w, 3] on the grid of its maps [K, h, w] in [0, 1].

        Raises:
            DataError, ValueError: maps that are not finite or do not fit.
        """
        self.statistic.update(image, maps, guide=None if self.outlined else outline_guide(maps, image))

    def merge(self, other: MapStatistic) -> None:
        """Count what another process counted."""
        self.statistic.merge(other.statistic)

    def choose(self) -> float:
        """See :meth:`AutoThreshold.choose`."""
        return self.statistic.choose()

    def record(self) -> dict[str, Any]:
        """Kind and curve of the statistic, as JSON values."""
        curve = {
            "thresholds": [float(t) for t in self.statistic.thresholds],
            "statistic": [round(float(v), 6) for v in self.statistic.curve()],
        }
        return {"statistic": self._TITLES[self.statistic.statistic], "curve": curve}


def colour_bins(image: UInt8Array, levels: int) -> NDArray[np.int64]:
    """RGB bin of each pixel, int64 [H * W] in 0..levels^3 - 1."""
    # levels need not divide 256.
    quantised = (image.astype(np.int64) * levels) >> 8
    numbers: NDArray[np.int64] = (quantised[..., 0] * levels + quantised[..., 1]) * levels + quantised[..., 2]
    return numbers.ravel()


def _split_table(
    colours: NDArray[np.int64], bins: NDArray[np.integer], n_thresholds: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of each occurring colour, [c, 1], and those of them that are background at threshold i, [c, m]."""
    _, dense = np.unique(colours, return_inverse=True)
    levels = n_thresholds + 1
    joint = np.bincount(dense * levels + bins, minlength=(int(dense.max()) + 1) * levels)
    below = joint.reshape(-1, levels).cumsum(1)
    return below[:, -1:], below[:, :-1]


def split_variance(colours: NDArray[np.int64], bins: NDArray[np.integer], n_thresholds: int) -> NDArray[np.float64]:
    """Var(p_c) / sqrt(max(p (1 - p), 0.01)) of the split {bin > i}, for i = 0..n_thresholds - 1.

    Args:
        colours: [n] colour numbers.
        bins: [n] number of thresholds below the score, 0..n_thresholds.
        n_thresholds: m.

    Returns:
        float64 [m] in [0, 0.5].
    """
    of_colour, below = _split_table(colours, bins, n_thresholds)
    above = (of_colour - below).astype(np.float64)
    share = above.sum(0) / colours.size
    # Var(p_c) = E[p_c^2] - p^2 over pixels, from counts alone.
    explained = (above**2 / of_colour).sum(0) / colours.size - share**2
    # By the deviation: divided by the variance p (1 - p) it is tau, which a few pixels of a rare colour bring to 1;
    # divided by nothing it grows with the split, whatever the size of the object.
    deviation = np.sqrt(np.maximum(share * (1 - share), _SMALLEST_SPLIT))
    result: NDArray[np.float64] = np.maximum(explained, 0) / deviation
    return result


def split_information(colours: NDArray[np.int64], bins: NDArray[np.integer], n_thresholds: int) -> NDArray[np.float64]:
    """Mutual information (nats) of the colour with {bin > i}, for i = 0..n_thresholds - 1.

    Args:
        colours: [n] colour numbers.
        bins: [n] number of thresholds below the score, 0..n_thresholds.
        n_thresholds: m.

    Returns:
        float64 [m] in [0, ln 2].
    """
    of_colour, below = _split_table(colours, bins, n_thresholds)
    table = _entropy_table(colours.size)
    split = below.sum(0)
    # n * I = n log n + sum over cells of x log x - sum over rows - sum over columns
    cells = (table[below] + table[of_colour - below]).sum(0)
    information = table[-1] + cells - table[of_colour].sum() - table[split] - table[colours.size - split]
    result: NDArray[np.float64] = np.maximum(information, 0) / colours.size
    return result


def _entropy_table(n: int) -> NDArray[np.float64]:
    """x log x for x = 0..n: counts are integers, so the logarithm is taken once per count."""
    counts = np.arange(n + 1, dtype=np.float64)
    counts[1:] *= np.log(counts[1:])
    return counts


_STATISTICS = {"variance": split_variance, "information": split_information}
