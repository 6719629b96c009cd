"""Confusion counts of every image of a split, kept apart: for scores by size, best and worst, and paired comparisons.

Only what is not zero is kept: an image holds a few of the classes, so a few dozen numbers say all about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.errors import DataError
from tagmask.metrics.counting import Array, Counts, Void, confusion_with_void, divide
from tagmask.types import BACKGROUND, IGNORE_INDEX

Entries = tuple[NDArray[np.int64], NDArray[np.int64], Counts]


def entries(confusion: Counts) -> Entries:
    """What is not zero in a confusion matrix: rows, columns, counts."""
    rows, columns = np.nonzero(confusion)
    return rows, columns, confusion[rows, columns]


@dataclass(frozen=True)
class ImageAreas:
    """Pixels of each class in each image, int64 [N, n]: right, in the ground truth, in the prediction."""

    hits: Counts
    truth: Counts
    prediction: Counts

    @property
    def union(self) -> Counts:
        """Pixels in either mask, int64 [N, n]."""
        return self.truth + self.prediction - self.hits


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """Sparse confusion matrices of N images.

    ``ids`` names the images; the entries of image i are ``offsets[i]:offsets[i + 1]`` of ``truth`` (``n_classes`` is
    void), ``prediction`` and ``count``. An image without entries was not scored.
    """

    ids: tuple[str, ...]
    n_classes: int
    offsets: Counts
    truth: NDArray[np.int64]
    prediction: NDArray[np.int64]
    count: Counts

    @classmethod
    def of(cls, ids: Sequence[str], confusions: Iterable[Counts], n_classes: int) -> ImageCounts:
        """From matrices int64 [n + 1, n] of :func:`tagmask.metrics.counting.confusion_with_void`."""
        return cls.of_entries(ids, [entries(confusion) for confusion in confusions], n_classes)

    @classmethod
    def of_entries(cls, ids: Sequence[str], parts: Sequence[Entries], n_classes: int) -> ImageCounts:
        """From the :func:`entries` of each image."""
        nothing = np.zeros(0, np.int64)
        truth, prediction, count = (np.concatenate([nothing, *(part[i] for part in parts)]) for i in range(3))
        sizes = [len(rows) for rows, _, _ in parts]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return cls(tuple(ids), n_classes, offsets, truth, prediction, count)

    def __len__(self) -> int:
        return len(self.ids)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the ids in small types, ready to be stored."""
        return {
            "offsets": self.offsets,
            "truth": self.truth.astype(np.uint8),
            "prediction": self.prediction.astype(np.uint8),
            "count": self.count.astype(np.uint32),
        }

    @classmethod
    def from_arrays(cls, ids: Sequence[str], n_classes: int, arrays: Mapping[str, NDArray[Any]]) -> ImageCounts:
        """The inverse of :meth:`arrays`.

        Raises:
            DataError: the arrays do not fit each other.
        """
        offsets, truth, prediction, count = (
            np.asarray(arrays[key]).astype(np.int64) for key in ("offsets", "truth", "prediction", "count")
        )
        fits = len(offsets) == len(ids) + 1 and len(truth) == len(prediction) == len(count) == offsets[-1]
        if not fits or (len(truth) and (truth.max() > n_classes or prediction.max() >= n_classes)):
            msg = f"counts of {len(ids)} images and {n_classes} classes do not fit their lists"
            raise DataError(msg)
        return cls(tuple(ids), n_classes, offsets, truth, prediction, count)

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which images were scored, bool [N]."""
        return np.diff(self.offsets) > 0

    def take(self, places: Sequence[int] | NDArray[np.integer[Any]]) -> ImageCounts:
        """The images at these places, in this order."""
        indices = np.asarray(places, np.int64)
        sizes = np.diff(self.offsets)[indices]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        at = np.arange(offsets[-1]) + np.repeat(self.offsets[indices] - offsets[:-1], sizes)
        ids = tuple(self.ids[place] for place in indices)
        return ImageCounts(ids, self.n_classes, offsets, self.truth[at], self.prediction[at], self.count[at])

    def confusion(self, void: Void = "ignored") -> Counts:
        """int64 [n, n] over all images."""
        truth, keep = self._rows(void)
        cells = self.n_classes**2
        index = truth[keep] * self.n_classes + self.prediction[keep]
        return _sums(index, self.count[keep], cells).reshape(self.n_classes, self.n_classes)

    def areas(self, void: Void = "ignored") -> ImageAreas:
        """What IoUs are made of, image by image."""
        truth, keep = self._rows(void)
        image = np.repeat(np.arange(len(self)), np.diff(self.offsets))[keep] * self.n_classes
        row, column, count = truth[keep], self.prediction[keep], self.count[keep]
        right = row == column
        shape, cells = (len(self), self.n_classes), len(self) * self.n_classes
        return ImageAreas(
            hits=_sums((image + row)[right], count[right], cells).reshape(shape),
            truth=_sums(image + row, count, cells).reshape(shape),
            prediction=_sums(image + column, count, cells).reshape(shape),
        )

    def image_miou(self, void: Void = "ignored") -> NDArray[np.float64]:
        """Mean IoU of each image over the classes in its ground truth (background too), float64 [N].

        NaN where nothing was scored. It ranks images; the mIoU of a split is not the mean of these.
        """
        areas = self.areas(void)
        present = areas.truth > 0
        iou = np.divide(areas.hits, areas.union, out=np.zeros(present.shape), where=present)
        return divide(iou.sum(1), present.sum(1))

    def _rows(self, void: Void) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows under a void rule, and which entries count."""
        unknown = self.truth == self.n_classes
        if void == "background":
            return np.where(unknown, BACKGROUND, self.truth), np.ones(len(unknown), bool)
        return self.truth, ~unknown


def single_image_miou(prediction: Array, target: Array) -> float | None:
    """:meth:`ImageCounts.image_miou` of one image, whatever its number of classes; ``None`` if every pixel is void.

    Args:
        prediction: integer labels [H, W] 0..254; 255 counts as background.
        target: integer labels [H, W] 0..254, and 255 for void.

    Raises:
        DataError: sizes differ.
    """
    # As many classes as there are labels: only what is not zero is kept, so the empty ones cost nothing.
    confusion = confusion_with_void(prediction, target, IGNORE_INDEX)
    value = float(ImageCounts.of(("",), [confusion], IGNORE_INDEX).image_miou()[0])
    return None if np.isnan(value) else value


def _sums(index: NDArray[np.int64], values: Counts, cells: int) -> Counts:
    """Sums of whole numbers by cell; float64 holds them exactly (below 2^53)."""
    return np.bincount(index, weights=values, minlength=cells).astype(np.int64)
