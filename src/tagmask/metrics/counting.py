"""Pixel counts by ground truth and prediction: the one pass over two masks that every score starts from.

Labels: 0 = background, 1..C, 255 = void in the ground truth; a predicted 255 counts as background, as in the
evaluation scripts of jiwoon-ahn/irn.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tagmask.errors import DataError
from tagmask.types import BACKGROUND, IGNORE_INDEX

Array = NDArray[Any]
Counts = NDArray[np.int64]
Void = Literal["ignored", "background"]
VOID_RULES: tuple[tuple[str, Void], ...] = (("void_ignored", "ignored"), ("void_background", "background"))
_PIXELS_AT_ONCE = 1 << 18


def as_numpy(value: Array | Tensor) -> Array:
    """The same values as a NumPy array; a tensor may live on any device."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def confusion_with_void(
    prediction: Array | Tensor, target: Array | Tensor, n_classes: int, ignore_index: int = IGNORE_INDEX
) -> Counts:
    """Pixel counts by ground truth (rows 0..n_classes-1, then one row for void) and prediction.

    Args:
        prediction: integer labels of any shape; ``ignore_index`` counts as background.
        target: integer labels 0..n_classes-1 and ``ignore_index``, same shape.
        n_classes: number of classes, background included.
        ignore_index: the label of void.

    Returns:
        int64 [n_classes + 1, n_classes].

    Raises:
        DataError: other shapes, or a label that is neither a class nor ``ignore_index``.
    """
    pred, gt = as_numpy(prediction), as_numpy(target)
    check_sizes(pred, gt)
    size = n_classes + 1
    rows = label_rows(gt, n_classes, ignore_index, "ground truth")
    columns = label_rows(pred, n_classes, ignore_index, "prediction")
    confusion = pair_counts([(rows, size), (columns, size)])
    confusion[:, BACKGROUND] += confusion[:, n_classes]
    return confusion[:, :n_classes].copy()


def check_sizes(prediction: Array, target: Array) -> None:
    """Make sure that two masks are of one size.

    Raises:
        DataError: they are not.
    """
    if prediction.shape != target.shape:
        msg = f"prediction {list(prediction.shape)} and ground truth {list(target.shape)} differ in size"
        raise DataError(msg)


def label_rows(labels: Array, n_classes: int, ignore_index: int, what: str) -> NDArray[Any]:
    """Labels as rows: a class keeps its number, ``ignore_index`` becomes ``n_classes``.

    Returns:
        The same shape; uint8 where all rows fit, else int64.

    Raises:
        DataError: a label that is neither a class nor ``ignore_index``.
    """
    narrow = labels.dtype == np.uint8 and n_classes < IGNORE_INDEX
    rows: Array = labels.copy() if narrow else labels.astype(np.int64)
    wrong = (rows < 0) | (rows >= n_classes) if not narrow else rows >= n_classes
    void = labels == ignore_index
    wrong &= ~void
    if wrong.any():
        msg = (
            f"the {what} holds label {int(labels[wrong][0])}; known are 0..{n_classes - 1} and "
            f"{ignore_index} (ignore). Check the class list or the mask."
        )
        raise DataError(msg)
    np.copyto(rows, n_classes, where=void)
    return rows


def pair_counts(factors: list[tuple[Array, int]]) -> Counts:
    """How often each combination of values occurs.

    Args:
        factors: (values, number of possible values), all of one shape; values lie in 0..number-1.

    Returns:
        int64, one axis per factor.
    """
    shape = tuple(size for _, size in factors)
    cells = math.prod(shape)
    narrow: Any = np.uint16 if cells <= 1 << 16 else np.int64  # a quarter of the memory to walk through
    flat = [(values.reshape(-1), size) for values, size in factors]
    counts = np.zeros(cells, np.int64)
    for start in range(0, len(flat[0][0]), _PIXELS_AT_ONCE):
        part = slice(start, start + _PIXELS_AT_ONCE)
        index: Array = flat[0][0][part].astype(narrow)
        for values, size in flat[1:]:
            index *= narrow(size)
            np.add(index, values[part], out=index, casting="unsafe")
        counts += np.bincount(index, minlength=cells)
    return counts.reshape(shape)


def divide(numerator: Array, denominator: Array) -> NDArray[np.float64]:
    """Element-wise quotient, float64, broadcast; NaN where the denominator is 0: what is absent has no score."""
    result: NDArray[np.float64] = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=result, where=np.asarray(denominator) > 0)
    return result


def fold_void(counts: Counts, void: Void = "ignored") -> Counts:
    """[..., n + 1, n] counts with a void row -> [..., n, n]: void dropped, or counted as background."""
    confusion = counts[..., :-1, :].copy()
    if void == "background":
        confusion[..., BACKGROUND, :] += counts[..., -1, :]
    return confusion
