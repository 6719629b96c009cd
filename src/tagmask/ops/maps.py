"""From maps to labels: the background plane rule that every published system uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from tagmask.errors import DataError
from tagmask.types import BACKGROUND, IGNORE_INDEX, UInt8Array


def upsample_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Stretch maps bilinearly, half-pixel centres (align_corners=False).

    Args:
        maps: [K, h, w] of any float type, K >= 0.
        size: (H, W).

    Returns:
        float32 [K, H, W], within the range of each map.
    """
    maps = maps.float()
    if maps.shape[0] == 0:
        return maps.new_zeros((0, *size))
    return functional.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


Level = float | Sequence[float] | NDArray[np.floating]


def _for_each(level: Level, n_maps: int) -> NDArray[np.float32]:
    levels = np.asarray(level, np.float32)
    if levels.shape not in ((), (n_maps,)):
        msg = f"thresholds must be one value or {n_maps} (one for each map), got {levels.size}"
        raise ValueError(msg)
    return np.broadcast_to(levels, (n_maps,))


def maps_to_labels(
    maps: Tensor | NDArray[np.float32],
    labels: Tensor | ArrayLike,
    threshold: Level | tuple[Level, Level],
) -> UInt8Array:
    """Label of the highest map among those that exceed the background threshold.

    A plane of the threshold stands in front of the maps and the first maximum wins: a tie between a map and
    the threshold is background, a tie between maps goes to the first. Compared in float32.

    Args:
        maps: float [K, H, W], K >= 0.
        labels: int [K] mask labels (1..254) of the maps.
        threshold: one value, or a list or array of K (a threshold for each map); or a tuple of two such, (low, high):
            where the highest map above its low threshold does not exceed its high one, the pixel becomes 255 (ignore).

    Returns:
        uint8 [H, W]: 0, values of ``labels``, and 255 inside the band.

    Raises:
        DataError: shapes do not fit, or a label does not fit into a mask.
        ValueError: low > high, or a number of thresholds other than K.
    """
    stack = torch.as_tensor(maps).detach().to("cpu", torch.float32).numpy()
    names = np.asarray(torch.as_tensor(labels).cpu()).astype(np.int64).reshape(-1)
    if stack.ndim != 3 or len(stack) != len(names):
        msg = f"maps {list(stack.shape)} and {len(names)} labels do not fit: wanted [K, H, W] and [K]"
        raise DataError(msg)
    if names.size and not (names.min() > BACKGROUND and names.max() < IGNORE_INDEX):
        msg = f"mask labels must be 1..{IGNORE_INDEX - 1}, got {names.tolist()}"
        raise DataError(msg)
    levels = threshold if isinstance(threshold, tuple) else (threshold, threshold)
    low, high = (_for_each(level, len(names)) for level in levels)
    if (low > high).any():
        msg = f"the lower threshold {low.tolist()} is above the upper one {high.tolist()}"
        raise ValueError(msg)
    if not names.size:
        return np.zeros(stack.shape[1:], np.uint8)
    # With one threshold for all, the highest map decides whether any exceeds it; with several, a lower one may.
    above = stack if (low == low[0]).all() else np.where(stack > low[:, None, None], stack, np.float32(-np.inf))
    winner, score = above.argmax(axis=0), above.max(axis=0)
    result: UInt8Array = names.astype(np.uint8)[winner]
    # Not (score <= high): a NaN is never foreground.
    result[~(score > high[winner])] = IGNORE_INDEX
    result[~(score > low[winner])] = BACKGROUND
    return result


def with_least(
    labels: UInt8Array, maps: Tensor | NDArray[np.float32], classes: Tensor | ArrayLike, least: float
) -> UInt8Array:
    """Labels in which every class of the image has a minimum of pixels: the best of its map. Ours.

    A tag says that the class is there. A threshold that suits large things may leave nothing of a small one; its best
    pixels then get the label, whatever they had. A class with enough pixels, or without a positive value, gains none.

    Args:
        labels: uint8 [H, W].
        maps: float [K, H, W], finite.
        classes: int [K] mask labels (1..254) of the maps; where two ask for a pixel, the later one has it.
        least: the minimum as a share of the image, in [0, 1]; above 0 it is at least one pixel.

    Returns:
        uint8 [H, W], a copy; equally high pixels are taken row by row.

    Raises:
        DataError: shapes do not fit.
    """
    stack = torch.as_tensor(maps).detach().to("cpu", torch.float32).numpy()
    names = np.asarray(torch.as_tensor(classes).cpu()).astype(np.int64).reshape(-1)
    if stack.shape != (len(names), *labels.shape):
        msg = f"maps {list(stack.shape)} and {len(names)} classes do not fit labels {list(labels.shape)}"
        raise DataError(msg)
    result = labels.copy()
    needed = int(np.ceil(least * labels.size))
    for label, own in zip(names, stack, strict=True):
        if np.count_nonzero(labels == label) >= needed or not (own > 0).any():
            continue
        # Its own best pixels, not those beside what it has: a map with one peak gives one piece.
        best = np.argsort(-own.ravel(), kind="stable")[:needed]
        result.flat[best[own.flat[best] > 0]] = label
    return result


def check_image(image: UInt8Array) -> None:
    """Make sure of a uint8 [H, W, 3] image.

    Raises:
        ValueError: another shape or type.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype.name != "uint8":
        msg = f"the image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}"
        raise ValueError(msg)


def check_maps(image: UInt8Array, maps: Tensor) -> None:
    """Make sure of maps [K, h, w] of this image: finite, on a grid with one stride for height and width.

    Raises:
        ValueError: not an image, or maps that cannot be its.
    """
    check_image(image)
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        msg = f"maps must be [K, h, w] with at least one cell, got {list(maps.shape)}"
        raise ValueError(msg)
    pairs = list(zip(image.shape[:2], maps.shape[1:], strict=True))
    # Whether sides are rounded up or down, a side of n cells has a stride between side / (n + 1) and side / (n - 1).
    smallest, largest = max(side / (n + 1) for side, n in pairs), min(side / max(n - 1, 0.01) for side, n in pairs)
    if smallest > largest:
        msg = (
            f"maps of {maps.shape[1]} x {maps.shape[2]} cells do not fit an image of {image.shape[0]} x "
            f"{image.shape[1]} pixels (height x width): no stride gives both"
        )
        raise ValueError(msg)
    if not torch.isfinite(maps).all():
        msg = "maps must be finite, got NaN or infinity"
        raise ValueError(msg)


def divide_by_peaks(maps: Tensor) -> Tensor:
    """Divide each map [K, h, w] by its maximum; a map without a positive value stays as it is."""
    peak = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(peak > 0, peak, 1)
