"""Raster scans over an image, compiled: each pixel listens to neighbours that the same scan has passed."""

from __future__ import annotations

import numpy as np

from tagmask.ops.compiling import compiled_as_written
from tagmask.types import FloatArray


@compiled_as_written
def barrier_scan(
    values: FloatArray, distance: FloatArray, highest: FloatArray, lowest: FloatArray, backwards: bool
) -> None:
    """One scan of the minimum barrier distance (Zhang et al. 2015, Algorithm 1), in place.

    ``highest`` and ``lowest`` [H, W] are the extremes on each pixel's best path so far.
    """
    height, width = values.shape
    step = -1 if backwards else 1
    for i in range(height):
        y = height - 1 - i if backwards else i
        for j in range(width):
            x = width - 1 - j if backwards else j
            value = values[y, x]
            # Only neighbours that this scan has passed: a value then runs along a whole row in one scan, which a
            # parallel update would need as many rounds for as the row is long.
            for side in range(2):
                ny, nx = (y - step, x) if side == 0 else (y, x - step)
                if ny < 0 or nx < 0 or ny >= height or nx >= width:
                    continue
                high, low = max(highest[ny, nx], value), min(lowest[ny, nx], value)
                if high - low < distance[y, x]:
                    distance[y, x] = high - low
                    highest[y, x], lowest[y, x] = high, low


@compiled_as_written
def _grow(marker: FloatArray, mask: FloatArray, backwards: bool) -> bool:
    """One scan of reconstruction by dilation, in place; whether anything changed."""
    height, width = marker.shape
    step = -1 if backwards else 1
    changed = False
    for i in range(height):
        y = height - 1 - i if backwards else i
        for j in range(width):
            x = width - 1 - j if backwards else j
            value = marker[y, x]
            if 0 <= y - step < height:
                value = max(value, marker[y - step, x])
            if 0 <= x - step < width:
                value = max(value, marker[y, x - step])
            value = min(value, mask[y, x])
            if value > marker[y, x]:
                marker[y, x] = value
                changed = True
    return changed


def reconstruct(marker: FloatArray, mask: FloatArray) -> FloatArray:
    """Morphological reconstruction by dilation, 4-neighbours: ``marker`` <= ``mask`` grows until ``mask`` stops it."""
    grown = np.minimum(marker, mask).astype(np.float32)
    within = np.ascontiguousarray(mask, np.float32)
    backwards, quiet = False, 0
    # Until a scan of either direction changes nothing.
    while quiet < 2:
        quiet = 0 if _grow(grown, within, backwards) else quiet + 1
        backwards = not backwards
    return grown
