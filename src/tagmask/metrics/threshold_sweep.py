"""mIoU of activation maps at every background threshold, exactly, in one pass over the images.

A pixel is foreground at threshold t exactly if its best score is > t (the plane of t stands in front, ties go
to the background). So one histogram of (ground truth, best class, number of thresholds below the score) holds
the confusion matrices of all thresholds; a cumulative sum over the last axis unfolds them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tagmask.errors import DataError
from tagmask.metrics.counting import Array, Counts, Void, as_numpy, fold_void
from tagmask.metrics.segmentation import CLASS_COUNT_GROUPS, Average, mean_iou_curve
from tagmask.types import IGNORE_INDEX

_PIXELS_AT_ONCE = 1 << 16  # the index of a part stays in the cache
_MAX_UNIFORM = 4096  # float32 arithmetic stays within 0.005 steps up to here


class ScoreBins:
    """For each score, the number of thresholds strictly below it, exact in float32.

    ``bins`` is an int for the thresholds i / bins, i = 0..bins, or any ascending sequence. Evenly spaced
    thresholds are found by arithmetic and one comparison with the threshold itself; others by bisection.

    Raises:
        ValueError: no threshold, or not ascending.
    """

    def __init__(self, bins: int | Sequence[float] | NDArray[np.floating]) -> None:
        if isinstance(bins, int):
            if bins < 1:
                msg = f"bins must be at least 1, got {bins}"
                raise ValueError(msg)
            self.thresholds = np.arange(bins + 1) / bins
        else:
            self.thresholds = np.asarray(bins, np.float64)
        if self.thresholds.ndim != 1 or not self.thresholds.size or not (np.diff(self.thresholds) >= 0).all():
            msg = "thresholds must be a non-empty ascending sequence"
            raise ValueError(msg)
        self.edges = self.thresholds.astype(np.float32)
        # A guess of 0 looks up -inf: it is below every score, so the guess stands.
        self._below = np.concatenate([[np.float32(-np.inf)], self.edges])
        self._per_unit = self._evenly_spaced()

    def _evenly_spaced(self) -> np.float32 | None:
        """1 / step if every threshold lies within a thousandth of a step of an even grid."""
        steps, edges = len(self.edges) - 1, self.edges.astype(np.float64)
        if not 1 <= steps <= _MAX_UNIFORM or edges[-1] == edges[0]:
            return None
        per_unit = steps / (edges[-1] - edges[0])
        off = np.abs((edges - edges[0]) * per_unit - np.arange(steps + 1)).max()
        return np.float32(per_unit) if off < 1e-3 else None

    def __len__(self) -> int:
        return len(self.edges)

    def __call__(self, scores: NDArray[np.float32]) -> NDArray[np.intp]:
        """``scores`` float32 [n] -> intp [n] in 0..len(self), the count of thresholds < score."""
        if self._per_unit is None:
            bins: NDArray[np.intp] = np.searchsorted(self.edges, scores, side="left")
            return bins
        # A hundredth of a step more than any rounding: the guess is right or one too high, never too low.
        with np.errstate(over="ignore"):  # infinity is clipped like any high score
            guess = np.multiply(scores - self.edges[0], self._per_unit)
        guess += np.float32(0.01)
        np.ceil(guess, out=guess)
        np.clip(guess, 0, len(self.edges), out=guess)
        bins = guess.astype(np.intp)
        bins -= self._below.take(bins) >= scores
        return bins


class ThresholdSweep:
    """Confusion matrices of a split of activation maps at all thresholds.

    Args:
        n_classes: number C of FOREGROUND classes.
        bins: an int for the thresholds i / bins (i = 0..bins), or an ascending sequence. They are compared
            in float32, the dtype of the maps.

    ``counts`` int64 [4, C + 2, C, m + 1]: images with 0, 1, 2, 3+ classes; ground truth 0..C and void; best
    class; bin. Sums of it over ranks are exact, see :meth:`merge`.

    Raises:
        ValueError: thresholds not ascending.
    """

    def __init__(self, n_classes: int, bins: int | Sequence[float] | NDArray[np.floating] = 100) -> None:
        self.n_classes = n_classes
        self.bins = ScoreBins(bins)
        self.thresholds = self.bins.thresholds
        self.counts: Counts = np.zeros((4, n_classes + 2, n_classes, len(self.bins) + 1), np.int64)
        self.n_images = 0

    def update(self, maps: Array | Tensor, classes: Array | Tensor, mask: Array | Tensor) -> None:
        """Add one image; arguments and errors as in :meth:`histogram`. Nothing is counted where it fails."""
        self.add(classes, self.histogram(maps, classes, mask))

    def histogram(self, maps: Array | Tensor, classes: Array | Tensor, mask: Array | Tensor) -> Counts:
        """Pixels of one image by ground truth, strongest map and bin; changes nothing, so threads may share it.

        Args:
            maps: float32 [K, H, W], K >= 0; other float types are cast to float32.
            classes: int [K], 0-based classifier channels (mask label - 1), in the order of ``maps``; equal
                scores go to the first.
            mask: integer [H, W], labels 0..C and 255.

        Returns:
            int64 [C + 2, max(K, 1), m + 1] for :meth:`add`.

        Raises:
            DataError: shapes do not fit, a class or label is unknown, or a map is not finite.
        """
        stack = np.asarray(as_numpy(maps), np.float32)
        channels = as_numpy(classes).astype(np.int64).reshape(-1)
        gt = as_numpy(mask)
        self._check(stack, channels, gt)
        n_maps, levels = max(len(channels), 1), len(self.bins) + 1
        rows = self._label_rows(gt) * (n_maps * levels)
        joint = np.zeros((self.n_classes + 3) * n_maps * levels, np.int64)
        stack, labels = stack.reshape(len(channels), gt.size), gt.reshape(-1)
        for start in range(0, labels.size, _PIXELS_AT_ONCE):
            part = slice(start, start + _PIXELS_AT_ONCE)
            joint += np.bincount(self._index(stack[:, part], labels[part], rows), minlength=joint.size)
        histogram = joint.reshape(self.n_classes + 3, n_maps, levels)
        if histogram[-1].any():
            unknown = min(set(np.unique(gt).tolist()) - set(range(self.n_classes + 1)) - {IGNORE_INDEX})
            msg = f"the mask holds label {unknown}; known are 0..{self.n_classes}, {IGNORE_INDEX} (ignore)"
            raise DataError(msg)
        return histogram[:-1]

    def add(self, classes: Array | Tensor, histogram: Counts) -> None:
        """Add the histogram of one image, with the classes it was made for."""
        channels = as_numpy(classes).reshape(-1)
        group = self.counts[min(len(channels), 3)]
        # Without a map all pixels lie in bin 0, which no threshold makes foreground: any channel may hold them.
        for i, channel in enumerate(channels if len(channels) else [0]):
            group[:, channel] += histogram[:, i]
        self.n_images += 1

    def image_confusion(self, classes: Array | Tensor, histogram: Counts, index: int) -> Counts:
        """One image's confusion matrix with void, int64 [C + 2, C + 1], at ``thresholds[index]``."""
        confusion = np.zeros((self.n_classes + 2, self.n_classes + 1), np.int64)
        confusion[:, 0] = histogram[..., : index + 1].sum((1, 2))
        channels = as_numpy(classes).reshape(-1)
        confusion[:, channels + 1] = histogram[:, : len(channels), index + 1 :].sum(-1)
        return confusion

    def _check(self, maps: Array, channels: Array, mask: Array) -> None:
        if maps.ndim != 3 or len(maps) != len(channels) or maps.shape[1:] != mask.shape:
            msg = (
                f"maps {list(maps.shape)}, {len(channels)} classes and mask {list(mask.shape)} do not fit: "
                "wanted [K, H, W], [K] and [H, W]"
            )
            raise DataError(msg)
        if len(channels) and not (channels.min() >= 0 and channels.max() < self.n_classes):
            msg = f"classes {channels.tolist()} are not channels 0..{self.n_classes - 1}"
            raise DataError(msg)
        if len(set(channels.tolist())) < len(channels):
            msg = f"classes {channels.tolist()} hold one twice"
            raise DataError(msg)
        if maps.size and not np.isfinite(maps.max()):
            msg = "an activation map is not finite"
            raise DataError(msg)
        if not (np.issubdtype(mask.dtype, np.integer) and mask.dtype.itemsize <= 8):
            msg = f"the mask must hold integers, got {mask.dtype}"
            raise DataError(msg)

    def _label_rows(self, mask: Array) -> NDArray[np.intp]:
        """Look-up from label to row of the histogram: C + 1 is void, C + 2 is unknown."""
        rows = np.full(256, self.n_classes + 2, np.intp)
        rows[: self.n_classes + 1] = np.arange(self.n_classes + 1)
        rows[IGNORE_INDEX] = self.n_classes + 1
        if mask.dtype != np.uint8 and mask.size and (mask.min() < 0 or mask.max() > 255):
            msg = f"the mask holds label {mask.min() if mask.min() < 0 else mask.max()}, outside 0..255"
            raise DataError(msg)
        return rows

    def _index(self, maps: Array, labels: Array, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Composed index (label, best map, bin) of a run of pixels."""
        index = rows.take(labels)
        if not len(maps):
            return index
        best = maps[0]
        if len(maps) > 1:
            which = np.zeros(len(labels), np.intp)
            for i in range(1, len(maps)):  # '>': equal scores go to the first, as argmax has it
                np.copyto(which, i, where=maps[i] > best)
                best = np.maximum(best, maps[i])
            which *= len(self.bins) + 1
            index += which
        index += self.bins(best)
        return index

    def merge(self, other: ThresholdSweep) -> None:
        """Add the counts of another rank.

        Raises:
            ValueError: other classes or thresholds.
        """
        if self.counts.shape != other.counts.shape or not np.array_equal(self.thresholds, other.thresholds):
            msg = "only sweeps with the same classes and thresholds can be merged"
            raise ValueError(msg)
        self.counts += other.counts
        self.n_images += other.n_images

    def confusions(self, *, void: Void = "ignored") -> Counts:
        """int64 [m, C + 1, C + 1]: ``confusions()[i]`` is the confusion matrix at ``thresholds[i]``."""
        return self._unfold(self.counts.sum(0), void)

    def by_class_count(self, index: int, *, void: Void = "ignored") -> dict[str, Counts]:
        """Confusion matrices at ``thresholds[index]`` of the images with 1, 2 and 3+ classes."""
        at = [self._unfold(group, void)[index] for group in self.counts[1:]]
        return dict(zip(CLASS_COUNT_GROUPS, at, strict=True))

    def _unfold(self, counts: Counts, void: Void) -> Counts:
        """Histogram [C + 2, C, m + 1] -> confusion matrices [m, C + 1, C + 1]."""
        # One cumulative sum stands for one confusion matrix per threshold: what lies above a threshold has the label of
        # its strongest map, the rest is background. Void and ground truth are axes that stay.
        at_most = counts.cumsum(-1)
        above = at_most[..., -1:] - at_most[..., :-1]  # pixels with bin > i: foreground at threshold i
        background = at_most[..., :-1].sum(1, keepdims=True)
        return fold_void(np.moveaxis(np.concatenate([background, above], axis=1), -1, 0), void)

    def compute(self, *, classes: Average = "union", void: Void = "ignored") -> NDArray[np.float64]:
        """mIoU (background included) at every threshold, float64 [m]; NaN where there is nothing to score."""
        return mean_iou_curve(self.confusions(void=void), classes=classes)

    def best(self, *, classes: Average = "union", void: Void = "ignored") -> tuple[float, float]:
        """(threshold, mIoU) of the best threshold; the lowest of equals.

        Raises:
            DataError: no image has been added.
        """
        curve = self.compute(classes=classes, void=void)
        if np.isnan(curve).all():
            msg = "no image with a mask was added, so there is no best threshold"
            raise DataError(msg)
        index = int(np.nanargmax(curve))
        return float(self.thresholds[index]), float(curve[index])
