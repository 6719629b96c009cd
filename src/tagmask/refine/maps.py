"""What refiners that work on the image share: checks of what they are given, and maps brought to a maximum of 1."""

from __future__ import annotations

import torch
from torch import Tensor

from tagmask.interfaces import UInt8Array


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
