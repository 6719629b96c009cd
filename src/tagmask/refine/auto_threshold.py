"""One background threshold chosen without any mask: the one whose foreground tells most about colour.

For each image and threshold t the pixels fall into foreground (max_k map_k > t) and background. An object
differs in colour from what surrounds it, so the split that follows its outline has the highest mutual
information with the pixel's colour, I = H(colour) + H(split) - H(colour, split), colour being one of levels^3
RGB bins. I is averaged over images and the threshold with the highest mean is taken. The statistic sees only
the order of scores, so a monotone change of the maps moves the threshold with them.

All thresholds are evaluated in one pass over an image: a histogram over (colour, number of thresholds below
the score), summed from the top. The sum over images is kept in integers (units of 2^-40 nat), so that ranks
and orders of images agree to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagmask.errors import DataError
from tagmask.interfaces import UInt8Array
from tagmask.refine.labels import upsample_maps

_UNIT = float(1 << 40)


class AutoThreshold:
    """Accumulates colour mutual information per threshold over images.

    Args:
        thresholds: an int for i / thresholds, i = 0..thresholds, or an ascending sequence in [0, 1].
        levels: colour levels per channel; 8 gives 512 colours.

    Raises:
        ValueError: thresholds not ascending, or levels outside 2..32.
    """

    def __init__(self, thresholds: int | Sequence[float] | NDArray[np.floating] = 100, *, levels: int = 8) -> None:
        if isinstance(thresholds, int):
            thresholds = np.arange(thresholds + 1) / thresholds
        self.thresholds: NDArray[np.float64] = np.asarray(thresholds, np.float64)
        if self.thresholds.ndim != 1 or self.thresholds.size == 0 or (np.diff(self.thresholds) <= 0).any():
            msg = "thresholds must be a non-empty ascending sequence"
            raise ValueError(msg)
        if not 2 <= levels <= 32:
            msg = f"colour levels must be 2..32, got {levels}"
            raise ValueError(msg)
        self.levels = levels
        self.total: NDArray[np.int64] = np.zeros(self.thresholds.size, np.int64)
        self.n_images = 0

    def update(self, image: UInt8Array, maps: Tensor | NDArray[np.float32]) -> None:
        """Add one image; an image without maps is left out.

        Args:
            image: uint8 [H, W, 3].
            maps: float [K, h, w] in [0, 1]; stretched to the image if the sizes differ.

        Raises:
            DataError: not an RGB image, or a map is not finite.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            msg = f"the image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}"
            raise DataError(msg)
        stack = torch.as_tensor(maps)
        if stack.shape[0] == 0:
            return
        if stack.shape[1:] != image.shape[:2]:
            stack = upsample_maps(stack, (image.shape[0], image.shape[1]))
        score = stack.float().amax(0).cpu().numpy().ravel()
        if not np.isfinite(score).all():
            msg = "an activation map is not finite"
            raise DataError(msg)
        bins = np.searchsorted(self.thresholds.astype(np.float32), score, side="left")
        information = split_information(colour_bins(image, self.levels), bins, self.thresholds.size)
        self.total += np.rint(information * _UNIT).astype(np.int64)
        self.n_images += 1

    def merge(self, other: AutoThreshold) -> None:
        """Add the images of another rank.

        Raises:
            ValueError: other thresholds or colour levels.
        """
        if self.levels != other.levels or not np.array_equal(self.thresholds, other.thresholds):
            msg = "only statistics with the same thresholds and colour levels can be merged"
            raise ValueError(msg)
        self.total += other.total
        self.n_images += other.n_images

    def curve(self) -> NDArray[np.float64]:
        """Mean mutual information in nats at each threshold, float64 [m]; zeros before the first image."""
        return self.total / _UNIT / max(self.n_images, 1)

    def choose(self) -> float:
        """The threshold with the highest mean information, the middle one of equals.

        Raises:
            DataError: no image told anything (none added, one colour only, or constant maps).
        """
        if not (self.total > 0).any():
            msg = (
                f"no threshold can be chosen from {self.n_images} images: every map or image is constant. "
                "Set refine.threshold.value."
            )
            raise DataError(msg)
        best = np.flatnonzero(self.total == self.total.max())
        return float(self.thresholds[best[(len(best) - 1) // 2]])


def colour_bins(image: UInt8Array, levels: int) -> NDArray[np.int64]:
    """RGB bin of each pixel, int64 [H * W] in 0..levels^3 - 1."""
    quantised = (image.astype(np.int64) * levels) >> 8
    numbers: NDArray[np.int64] = (quantised[..., 0] * levels + quantised[..., 1]) * levels + quantised[..., 2]
    return numbers.ravel()


def split_information(colours: NDArray[np.int64], bins: NDArray[np.integer], n_thresholds: int) -> NDArray[np.float64]:
    """Mutual information (nats) of the colour with {bin > i}, for i = 0..n_thresholds - 1.

    Args:
        colours: [n] colour numbers.
        bins: [n] number of thresholds below the score, 0..n_thresholds.
        n_thresholds: m.

    Returns:
        float64 [m] in [0, ln 2].
    """
    _, dense = np.unique(colours, return_inverse=True)
    levels = n_thresholds + 1
    joint = np.bincount(dense * levels + bins, minlength=(int(dense.max()) + 1) * levels)
    below = joint.reshape(-1, levels).cumsum(1)
    of_colour = below[:, -1:]
    below = below[:, :-1]  # pixels of each colour that are background at threshold i
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
