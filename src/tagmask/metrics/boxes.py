"""Boxes of a map at many thresholds, and how well boxes overlap. Half-open pixel boxes: x0 <= x < x1, y0 <= y < y1.

Which box stands for a map differs between the published codes (docs/localisation.md): ``union`` is the tight box of
everything above the threshold (SPA's evaluation); ``largest`` that of the 4-connected component with the largest box
(SPA's other mode); ``contour`` that of the 8-connected component whose outline encloses the largest area
(wsolevaluation).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tagmask.metrics.counting import Array
from tagmask.ops.components import all_components, largest_components

Component = Literal["union", "largest", "contour"]
Boxes = NDArray[np.int64]


def threshold_levels(scores: Array, thresholds: Array, *, reached: bool = True) -> NDArray[np.int32]:
    """At how many thresholds each pixel is foreground: at the i-th iff i < level.

    Args:
        scores: [H, W] of any number type.
        thresholds: [n] ascending, compared in the type of ``scores``.
        reached: a pixel is foreground where its score is at least the threshold; False: where it is above it.

    Returns:
        int32 [H, W], 0..n.
    """
    limits = np.asarray(thresholds, dtype=scores.dtype)
    return np.searchsorted(limits, scores, side="right" if reached else "left").astype(np.int32)


def boxes_of_levels(levels: NDArray[np.int32], n: int, component: Component = "union") -> Boxes:
    """One box per threshold.

    Args:
        levels: int [H, W], see :func:`threshold_levels`.
        n: number of thresholds.
        component: which part of the foreground it is around, see the module.

    Returns:
        int64 [n, 4]; zeros where nothing is foreground.

    Raises:
        ValueError: another word for ``component``.
    """
    if component == "union":
        boxes = np.zeros((n, 4), np.int64)
        for axis in (0, 1):
            profile = levels.max(axis=axis, initial=0)
            low = np.searchsorted(np.maximum.accumulate(profile), np.arange(n), side="right")
            high = np.searchsorted(np.maximum.accumulate(profile[::-1]), np.arange(n), side="right")
            boxes[:, axis], boxes[:, axis + 2] = low, len(profile) - high
        boxes[boxes[:, 2] <= boxes[:, 0]] = 0
        return boxes
    if component not in get_args(Component):
        msg = f"component: expected one of {', '.join(get_args(Component))}, not {component!r}"
        raise ValueError(msg)
    by_contour = component == "contour"
    return np.asarray(largest_components(levels, n, by_contour, by_contour))


def contour_boxes(levels: NDArray[np.int32], n: int) -> tuple[Boxes, NDArray[np.int64]]:
    """Boxes of all outlines at each threshold: of 8-connected components, and around the holes in them.

    Args:
        levels: int [H, W], see :func:`threshold_levels`.
        n: number of thresholds.

    Returns:
        int64 [M, 4] boxes, and int64 [M]: the threshold of each, 0..n-1.
    """
    parts, part_counts = all_components(levels, n, True)
    # Holes are components of the background, which shrinks as the foreground grows, that do not touch the frame.
    gaps, gap_counts = all_components((n - levels).astype(np.int32), n, False)
    height, width = levels.shape
    inner = (gaps[:, 0] > 0) & (gaps[:, 1] > 0) & (gaps[:, 2] < width) & (gaps[:, 3] < height)
    # Level n - l > j says l <= n - 1 - j: background at the threshold n - 1 - j.
    of_gaps = np.repeat(np.arange(n), gap_counts[::-1])[inner]
    of_parts = np.repeat(np.arange(n - 1, -1, -1), part_counts[::-1])
    outlines = np.concatenate([parts, gaps[inner] + np.array([-1, -1, 1, 1])])
    return outlines, np.concatenate([of_parts, of_gaps])


def best_iou(boxes: Array, truth: Array) -> NDArray[np.float64]:
    """Largest IoU of each of boxes [M, 4] with any of the boxes ``truth`` [m, 4], float64 [M]; 0 for empty boxes."""
    left = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    right = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    common = np.clip(right - left, 0, None).prod(-1).astype(np.float64)
    union = _areas(boxes)[:, None] + _areas(truth)[None] - common
    overlap = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    best: NDArray[np.float64] = overlap.max(axis=1, initial=0)
    return best


def _areas(boxes: Array) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1).astype(np.float64)
    return areas
