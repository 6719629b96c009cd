"""Confusion matrices and the scores made of them: exact integer counts, absent classes never count as 0.

Everything is accumulated over a whole split before anything is divided (never a mean of per-image IoUs).
Labels: 0 = background, 1..C, 255 = void in the ground truth; a predicted 255 counts as background, as in the
evaluation scripts of jiwoon-ahn/irn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tagmask.metrics.counting import Array, Counts, Void, confusion_with_void, divide, fold_void
from tagmask.types import BACKGROUND, IGNORE_INDEX

Average = Literal["union", "occurring"]
CLASS_COUNT_GROUPS = ("1", "2", "3+")


def confusion_matrix(
    prediction: Array | Tensor, target: Array | Tensor, n_classes: int, ignore_index: int = IGNORE_INDEX
) -> Counts:
    """Pixel counts ``confusion[ground truth, prediction]`` over pixels that are not void.

    Args:
        prediction: integer labels of any shape; ``ignore_index`` counts as background.
        target: integer labels 0..n_classes-1, pixels with ``ignore_index`` are skipped; same shape.
        n_classes: number of classes, background included.
        ignore_index: the label of void.

    Returns:
        int64 [n_classes, n_classes]; sums of such matrices over images are exact.

    Raises:
        DataError: other shapes, or an unknown label.
    """
    return fold_void(confusion_with_void(prediction, target, n_classes, ignore_index))


def _diagonal(confusion: Array) -> Array:
    diagonal: Array = np.diagonal(confusion, axis1=-2, axis2=-1)
    return diagonal


def iou_per_class(confusion: Array) -> NDArray[np.float64]:
    """IoU of each class, float64 [..., n]; NaN where a class is neither present nor predicted."""
    hits = _diagonal(confusion)
    return divide(hits, confusion.sum(-1) + confusion.sum(-2) - hits)


def precision_per_class(confusion: Array) -> NDArray[np.float64]:
    """Share of the predicted pixels of each class that are right, float64 [..., n]; NaN: never predicted."""
    return divide(_diagonal(confusion), confusion.sum(-2))


def recall_per_class(confusion: Array) -> NDArray[np.float64]:
    """Share of the true pixels of each class that are found, float64 [..., n]; NaN: class absent."""
    return divide(_diagonal(confusion), confusion.sum(-1))


def f1_per_class(confusion: Array) -> NDArray[np.float64]:
    """F1 (Dice) of each class, 2 TP / (2 TP + FP + FN), float64 [..., n]; NaN: neither present nor predicted."""
    return divide(2 * _diagonal(confusion), confusion.sum(-1) + confusion.sum(-2))


def pixel_accuracy(confusion: Array) -> float:
    """Share of right pixels; NaN without any pixel."""
    return float(divide(np.trace(confusion), confusion.sum()))


def mean_iou_curve(confusions: Array, *, classes: Average = "union", background: bool = True) -> NDArray[np.float64]:
    """Mean IoU of each of many confusion matrices [..., n, n] -> float64 [...]; see :func:`mean_iou`."""
    iou = iou_per_class(confusions)
    counted = ~np.isnan(iou)
    if classes == "occurring":
        counted &= confusions.sum(-1) > 0
    elif classes != "union":
        msg = f"classes must be 'union' or 'occurring', got {classes!r}"
        raise ValueError(msg)
    if not background:
        counted = counted.copy()
        counted[..., BACKGROUND] = False
    return divide(np.where(counted, iou, 0.0).sum(-1), counted.sum(-1))


def mean_iou(confusion: Array, *, classes: Average = "union", background: bool = True) -> float:
    """Mean of the class IoUs.

    Args:
        confusion: integer [n, n], ground truth by prediction, summed over the split.
        classes: ``union`` averages over classes that are present or predicted (the published ``nanmean``);
            ``occurring`` over classes that occur in the ground truth.
        background: whether class 0 takes part.

    Returns:
        In [0, 1]; NaN if no class is left to average.
    """
    return float(mean_iou_curve(confusion, classes=classes, background=background))


def mean_precision(confusion: Array, *, classes: Average = "union", background: bool = True) -> float:
    """Mean of the class precisions over classes that were predicted at all (LPCAM, Table 1).

    Args:
        confusion: integer [n, n], ground truth by prediction, summed over the split.
        classes: as in :func:`mean_iou`.
        background: whether class 0 takes part.

    Returns:
        In [0, 1]; NaN if no such class was predicted.
    """
    return mean_of_classes(precision_per_class(confusion), confusion, classes, background)


def mean_recall(confusion: Array, *, classes: Average = "union", background: bool = True) -> float:
    """Mean of the class recalls over classes that occur; arguments as in :func:`mean_precision`.

    Returns:
        In [0, 1]; NaN if no class occurs.
    """
    return mean_of_classes(recall_per_class(confusion), confusion, classes, background)


def mean_f1(confusion: Array, *, classes: Average = "union", background: bool = True) -> float:
    """Mean of the class F1 scores over the same classes as :func:`mean_iou`; in [0, 1], NaN without a class."""
    return mean_of_classes(f1_per_class(confusion), confusion, classes, background)


def mean_of_classes(values: NDArray[np.float64], confusion: Array, classes: Average, background: bool) -> float:
    """Mean of one value per class, float64 [n], over the classes that :func:`mean_iou` would count."""
    counted = ~np.isnan(values)
    if classes == "occurring":
        counted &= confusion.sum(-1) > 0
    if not background:
        counted[BACKGROUND] = False
    return float(values[counted].mean()) if counted.any() else float("nan")


def error_decomposition(confusion: Array, *, classes: Average = "union") -> dict[str, float]:
    """What is wrong: too much, too little, or the wrong class.

    ``fp`` and ``fn`` are means over the foreground classes of 1 - gt/union and 1 - prediction/union; with the
    mean foreground IoU they sum to 1 (LPCAM, CVPR 2023, Table 1). The other keys are shares of all
    pixels: ``object_as_object`` (wrong class), ``object_as_background`` (missed), ``background_as_object``
    (spill) and ``right`` (ReCAM, CVPR 2022, Table S3, normalised over all four; :func:`recam_errors` as printed there).
    """
    hits, gt, pred = _diagonal(confusion), confusion.sum(-1), confusion.sum(-2)
    union = gt + pred - hits
    counted = (union > 0) if classes == "union" else (gt > 0)
    counted = counted & (np.arange(len(hits)) != BACKGROUND)
    n = counted.sum()
    total = confusion.sum()
    right, wrong_class, misses, spill = _outcomes(confusion)
    return {
        "fp": float(divide(divide(pred - hits, union)[counted].sum(), n)),
        "fn": float(divide(divide(gt - hits, union)[counted].sum(), n)),
        "object_as_object": float(divide(wrong_class, total)),
        "object_as_background": float(divide(misses, total)),
        "background_as_object": float(divide(spill, total)),
        "right": float(divide(right, total)),
    }


def recam_errors(confusion: Array) -> dict[str, float]:
    """Outcomes of pixels as ReCAM (CVPR 2022, Table S3) prints them, shares of TP + FN + FP(background).

    ``tp`` right, background included; ``fn`` object marked as background; ``fp_background`` background marked as
    object: these three sum to 1. ``fp_object``, an object marked as another object, is listed over the same
    denominator though it is not part of it. ``fp_share_of_found`` is the code's own diagnostic: background among what
    was marked as object. NaN where there is nothing to share.
    """
    right, wrong_class, misses, spill = _outcomes(confusion)
    total = right + misses + spill
    return {
        "tp": float(divide(right, total)),
        "fp_object": float(divide(wrong_class, total)),
        "fn": float(divide(misses, total)),
        "fp_background": float(divide(spill, total)),
        "fp_share_of_found": float(divide(spill, confusion[:, 1:].sum())),
    }


def _outcomes(confusion: Array) -> tuple[Array, Array, Array, Array]:
    """Pixels that are right, of the wrong object, missed, and spilled over."""
    objects = confusion[1:, 1:]
    return (
        np.trace(confusion),
        objects.sum() - np.trace(objects),
        confusion[1:, BACKGROUND].sum(),
        confusion[BACKGROUND, 1:].sum(),
    )


class ConfusionCounter:
    """Confusion counts of a split, void kept apart, by the number of classes in the image.

    Integer sums, so that ranks merge to the same result in any order. ``counts`` is int64 [4, n + 1, n]:
    images with 0, 1, 2 and 3 or more classes; its last row is void. ``n_images`` counts updates.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes
        self.counts: Counts = np.zeros((4, n_classes + 1, n_classes), np.int64)
        self.n_images = 0

    def update(self, prediction: Array | Tensor, target: Array | Tensor, *, n_tags: int) -> None:
        """Add one image; ``n_tags`` is the number of foreground classes it holds.

        Raises:
            DataError: sizes differ or a label is unknown; nothing is counted then.
        """
        self.add(confusion_with_void(prediction, target, self.n_classes), n_tags=n_tags)

    def add(self, confusion: Counts, *, n_tags: int) -> None:
        """Add one image's matrix int64 [n + 1, n] of :func:`tagmask.metrics.counting.confusion_with_void`."""
        self.counts[min(n_tags, 3)] += confusion
        self.n_images += 1

    def merge(self, other: ConfusionCounter) -> None:
        """Add the counts of another rank."""
        self.counts += other.counts
        self.n_images += other.n_images

    def confusion(self, void: Void = "ignored") -> Counts:
        """int64 [n, n] over all images."""
        return fold_void(self.counts.sum(0), void)

    def by_class_count(self, void: Void = "ignored") -> dict[str, Counts]:
        """Confusion matrices of the images with 1, 2 and 3+ classes."""
        return dict(zip(CLASS_COUNT_GROUPS, fold_void(self.counts[1:], void), strict=True))


def scores(
    confusion: Counts,
    class_names: Sequence[str],
    *,
    average: Average = "occurring",
    n_images: int | None = None,
    by_class_count: Mapping[str, Counts] | None = None,
) -> dict[str, Any]:
    """One *scores* object of metrics.json: JSON-ready, values in [0, 1], ``None`` where a class is absent.

    Args:
        confusion: int64 [n, n] of the split.
        class_names: n names, background first.
        average: over which classes the means go, see :func:`mean_iou`.
        n_images: number of images counted, if known.
        by_class_count: confusion matrices of the images with 1, 2, 3+ classes, if known.

    Raises:
        ValueError: not as many names as classes.
    """

    def by_class(values: NDArray[np.float64]) -> dict[str, float | None]:
        return dict(zip(class_names, map(json_number, values), strict=True))

    result: dict[str, Any] = {
        "miou": json_number(mean_iou(confusion, classes=average)),
        "miou_foreground": json_number(mean_iou(confusion, classes=average, background=False)),
        "mean_precision": json_number(mean_precision(confusion, classes=average)),
        "mean_precision_foreground": json_number(mean_precision(confusion, classes=average, background=False)),
        "mean_recall": json_number(mean_recall(confusion, classes=average)),
        "mean_recall_foreground": json_number(mean_recall(confusion, classes=average, background=False)),
        "mean_f1": json_number(mean_f1(confusion, classes=average)),
        "mean_f1_foreground": json_number(mean_f1(confusion, classes=average, background=False)),
        "pixel_accuracy": json_number(pixel_accuracy(confusion)),
        "n_images": n_images,
        "average": average,
        "iou": by_class(iou_per_class(confusion)),
        "precision": by_class(precision_per_class(confusion)),
        "recall": by_class(recall_per_class(confusion)),
        "f1": by_class(f1_per_class(confusion)),
        "errors": {key: json_number(value) for key, value in error_decomposition(confusion, classes=average).items()},
        "recam_errors": {key: json_number(value) for key, value in recam_errors(confusion).items()},
        "confusion": confusion.tolist(),
    }
    if by_class_count is not None:
        result["by_class_count"] = {
            group: json_number(mean_iou(matrix, classes=average)) for group, matrix in by_class_count.items()
        }
    return result


def json_number(value: float | np.floating[Any]) -> float | None:
    """A number for JSON: ``None`` for NaN."""
    return None if np.isnan(value) else float(value)
