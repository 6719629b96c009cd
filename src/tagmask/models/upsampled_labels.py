"""Labels of logits that are enlarged bilinearly, without the enlarged logits.

Between four neighbouring samples every enlarged value is a mean of those four. So where one channel is the highest at
all four, it is the highest everywhere between them; elsewhere only channels count whose highest of the four is not
below the best lowest one. Most of an image is of the first kind, and nothing of the size [C, H, W] is ever made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tagmask.ops.compiling import compiled
from tagmask.types import UInt8Array


def upsampled_labels(
    logits: Tensor, size: tuple[int, int], *, align_corners: bool, crop: tuple[int, int] | None = None
) -> UInt8Array:
    """The highest channel of ``interpolate(logits.float(), size, mode="bilinear", align_corners=...)``.

    Equal to torch's (``torch.nn.functional.interpolate``, then argmax over channels) but where two channels differ by
    less than a rounding error.

    Args:
        logits: float [C, h, w] of any precision on the CPU, 1 <= C <= 256; fastest with channels last in memory.
        size: (H, W) after the enlargement.
        align_corners: whether the outermost samples lie on the outermost pixels, or half a sample inside.
        crop: (rows, columns) of the upper left part of the enlarged ones that is labelled; None: all.

    Returns:
        uint8, of ``crop`` or ``size``: numbers of channels, the first of equal ones.
    """
    values = np.ascontiguousarray(logits.permute(1, 2, 0).float().numpy())
    rows, columns = crop or size
    labels = np.empty((rows, columns), np.uint8)
    _fill(
        values,
        *_samples(values.shape[0], size[0], rows, align_corners),
        *_samples(values.shape[1], size[1], columns, align_corners),
        labels,
    )
    return labels


def _samples(n: int, enlarged: int, count: int, align_corners: bool) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """First pixel at or behind each of ``n`` samples (n + 1 numbers), and the weight of the next sample per pixel."""
    pixels = np.arange(count)
    if align_corners:
        places = pixels * ((n - 1) / (enlarged - 1) if enlarged > 1 else 0.0)
    else:
        # As torch: pixels outside the outermost samples take their value.
        places = np.maximum((pixels + 0.5) * (n / enlarged) - 0.5, 0)
    before = np.minimum(places.astype(np.int64), n - 1)
    return np.searchsorted(before, np.arange(n + 1)).astype(np.int64), (places - before).astype(np.float32)


@compiled
def _fill(
    values: NDArray[np.float32], first_rows: Any, down: Any, first_columns: Any, across: Any, labels: Any
) -> None:
    """Cells between four samples: of one label, or looked at pixel by pixel."""
    h, w, n = values.shape
    highest = np.empty((h, w), np.uint8)
    for y in range(h):
        for x in range(w):
            best, label = values[y, x, 0], 0
            for c in range(1, n):
                label = c if values[y, x, c] > best else label
                best = max(best, values[y, x, c])
            highest[y, x] = label
    likely = np.empty(n, np.int64)
    for y in range(h):
        top, bottom, below = first_rows[y], first_rows[y + 1], min(y + 1, h - 1)
        if top == bottom:
            continue
        for x in range(w):
            left, right, beside = first_columns[x], first_columns[x + 1], min(x + 1, w - 1)
            label = highest[y, x]
            if label == highest[y, beside] and label == highest[below, x] and label == highest[below, beside]:
                labels[top:bottom, left:right] = label
            elif left < right:
                corners = values[y, x], values[y, beside], values[below, x], values[below, beside]
                count = _candidates(*corners, likely)
                _compare(*corners, likely[:count], down[top:bottom], across[left:right], labels[top:bottom, left:right])


@compiled
def _candidates(a: Any, b: Any, c: Any, d: Any, likely: Any) -> int:
    """Channels that may be the highest between corners with these values [n]; how many."""
    floor = min(a[0], b[0], c[0], d[0])
    for k in range(1, len(a)):
        # A mean of the corners is at least the lowest of them: some channel has ``floor`` or more everywhere here, so
        # one whose highest corner is below it never wins.
        floor = max(floor, min(a[k], b[k], c[k], d[k]))
    count = 0
    for k in range(len(a)):
        if max(a[k], b[k], c[k], d[k]) >= floor:
            likely[count] = k
            count += 1
    return count


@compiled
def _compare(a: Any, b: Any, c: Any, d: Any, likely: Any, down: Any, across: Any, labels: Any) -> None:
    """Labels [rows, columns] of a cell with these corners: upper, then lower ones."""
    one = np.float32(1)
    best = np.empty(len(across), np.float32)
    for row in range(len(down)):
        best[:] = -np.inf
        labels[row] = likely[0] if len(likely) else 0
        for k in likely:
            left = (one - down[row]) * a[k] + down[row] * c[k]
            right = (one - down[row]) * b[k] + down[row] * d[k]
            for column in range(len(across)):
                value = (one - across[column]) * left + across[column] * right
                if value > best[column]:
                    best[column] = value
                    labels[row, column] = k
