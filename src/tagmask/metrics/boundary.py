"""Boundary IoU and trimaps: how right masks are along the outlines.

Cheng, Girshick, Dollár, Berg, Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR
2021, equation 3: the IoU of the parts of two masks that lie within d pixels of their own contours,
d = round(0.02 * diagonal of the image), at least 1. Distance as in the authors' code: the mask is eroded d times by
3x3 pixels, and beyond the image there is nothing, so an object's pixels along the image's border count too. Trimaps:
Kohli, Ladický, Torr, IJCV 2009: the confusion matrix of the pixels within d of an outline of the ground truth, on
either side.

Ours: the paper compares instances; here a class's pixels of an image are one mask, and the pixels of all images are
added up before anything is divided, as for mIoU. Void is a region of its own that the prediction is given too, so what
is predicted there moves no contour: a mask that is right outside of void has boundary IoU 1.

All classes at once: a square of labels with one value is interior, whatever the value. So two running minima and maxima
over the label maps (van Herk's windows by doubling) take the place of one erosion per class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tagmask.errors import DataError
from tagmask.metrics.counting import Array, Counts, Void, as_numpy, check_sizes, divide, label_rows, pair_counts
from tagmask.types import BACKGROUND, IGNORE_INDEX

RATIO = 0.02
_NEAR_TRUTH, _NEAR_PREDICTION, _AT_BORDER = 1, 2, 4  # bits of a pixel's place
_PLACES = np.arange(8)


def boundary_width(size: tuple[int, int], ratio: float = RATIO) -> int:
    """Width d in pixels of the band along contours: ``ratio`` of the diagonal of an image (H, W), at least 1."""
    return max(1, round(ratio * math.hypot(*size)))


def near_outline(labels: Array, width: int) -> NDArray[np.bool_]:
    """Pixels with another label within ``width`` rows and columns.

    Args:
        labels: uint8 [H, W].
        width: at least 1.

    Returns:
        bool [H, W]; beyond the image there is no label.
    """
    low, high = labels, labels
    for axis in (1, 0):
        low = _window(low, width, axis, lowest=True)
        high = _window(high, width, axis, lowest=False)
    near: NDArray[np.bool_] = low != high
    return near


def _window(values: Array, width: int, axis: int, *, lowest: bool) -> Array:
    """Minimum or maximum over 2 * width + 1 neighbours along an axis, fewer at the border; log2 of it passes."""
    choose, neutral = (np.minimum, 255) if lowest else (np.maximum, 0)
    pad = [(0, 0), (0, 0)]
    pad[axis] = (width, width)
    run, reach, window = np.pad(values, pad, constant_values=neutral), 1, 2 * width + 1

    def step(by: int) -> Array:
        length = run.shape[axis] - by
        first = (slice(length), slice(None)) if axis == 0 else (slice(None), slice(length))
        later = (slice(by, None), slice(None)) if axis == 0 else (slice(None), slice(by, None))
        result: Array = choose(run[first], run[later])
        return result

    # The extreme of 2n neighbours is that of two windows of n, one after the other; in the last step the two overlap,
    # which a minimum does not mind. Eroding pixel by pixel would take as many passes as the band is wide.
    while 2 * reach <= window:
        run, reach = step(reach), 2 * reach
    return step(window - reach) if window > reach else run


@dataclass(frozen=True)
class BoundaryCounts:
    """Pixels in the bands along contours, sums over images are exact.

    ``hits``, ``truth``, ``prediction`` int64 [n]: pixels of a class in both bands, in the ground truth's, in the
    prediction's. ``trimap`` int64 [n, n]: ground truth by prediction near outlines of the ground truth.
    """

    hits: Counts
    truth: Counts
    prediction: Counts
    trimap: Counts

    @classmethod
    def none(cls, n_classes: int) -> BoundaryCounts:
        """Nothing counted yet."""
        zeros = np.zeros(n_classes, np.int64)
        return cls(zeros, zeros, zeros, np.zeros((n_classes, n_classes), np.int64))

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        return BoundaryCounts(
            self.hits + other.hits,
            self.truth + other.truth,
            self.prediction + other.prediction,
            self.trimap + other.trimap,
        )

    def iou(self) -> NDArray[np.float64]:
        """Boundary IoU of each class, float64 [n]; NaN where neither mask has the class."""
        return divide(self.hits, self.truth + self.prediction - self.hits)


def boundary_counts(
    prediction: Array | Tensor,
    target: Array | Tensor,
    n_classes: int,
    *,
    ratio: float = RATIO,
    void: Void = "ignored",
) -> BoundaryCounts:
    """Count the pixels of one image near the contours of its masks.

    Args:
        prediction: integer labels [H, W]; 255 counts as background.
        target: integer labels [H, W] 0..n_classes-1, and 255 for void.
        n_classes: number of classes, background included.
        ratio: width of the band as a share of the image's diagonal.
        void: ``ignored``: a region of its own, not counted; ``background``: background.

    Raises:
        DataError: not two masks of one size, or an unknown label.
    """
    labels, truth = as_numpy(prediction), as_numpy(target)
    check_sizes(labels, truth)
    if truth.ndim != 2 or not truth.size or n_classes > IGNORE_INDEX:
        msg = f"boundaries are counted on masks [H, W] of at most {IGNORE_INDEX} classes, not {list(truth.shape)}"
        raise DataError(msg)
    labels = label_rows(labels, n_classes, IGNORE_INDEX, "prediction").astype(np.uint8, copy=False)
    truth = label_rows(truth, n_classes, IGNORE_INDEX, "ground truth").astype(np.uint8, copy=False)
    np.copyto(labels, BACKGROUND, where=labels == n_classes)
    unknown = truth == n_classes
    # Void becomes a region of its own in both masks, so that what is predicted there moves no contour. Dropping its
    # pixels after the contours are found would punish masks for outlines that nobody drew.
    if void == "ignored":
        np.copyto(labels, n_classes, where=unknown)
    else:
        np.copyto(truth, BACKGROUND, where=unknown)
    width = boundary_width((truth.shape[0], truth.shape[1]), ratio)
    place = np.where(near_outline(truth, width), np.uint8(_NEAR_TRUTH), np.uint8(0))
    np.bitwise_or(place, _NEAR_PREDICTION, out=place, where=near_outline(labels, width))
    # Beyond the image there is nothing: along its border pixels are within reach of a contour although no other label
    # is near. Not so for the trimap, which is a band around outlines that somebody drew.
    for edge in (place[:width], place[-width:], place[:, :width], place[:, -width:]):
        edge |= _AT_BORDER
    counts = pair_counts([(truth, n_classes + 1), (labels, n_classes + 1), (place, len(_PLACES))])
    return _from_places(counts[:n_classes, :n_classes])


def _from_places(counts: Counts) -> BoundaryCounts:
    """[n, n, 8] counts by ground truth, prediction and place."""
    in_truth = (_PLACES & (_NEAR_TRUTH | _AT_BORDER)) > 0
    in_prediction = (_PLACES & (_NEAR_PREDICTION | _AT_BORDER)) > 0
    return BoundaryCounts(
        hits=np.diagonal(counts[..., in_truth & in_prediction].sum(-1)).copy(),
        truth=counts[..., in_truth].sum((1, 2)),
        prediction=counts[..., in_prediction].sum((0, 2)),
        trimap=counts[..., (_PLACES & _NEAR_TRUTH) > 0].sum(-1),
    )


def boundary_iou(
    prediction: Array | Tensor,
    target: Array | Tensor,
    n_classes: int,
    *,
    ratio: float = RATIO,
    void: Void = "ignored",
) -> NDArray[np.float64]:
    """Boundary IoU of each class in one image, float64 [n_classes]; NaN where neither mask has the class.

    Arguments and errors as in :func:`boundary_counts`. For a split add up the counts of its images.
    """
    return boundary_counts(prediction, target, n_classes, ratio=ratio, void=void).iou()
