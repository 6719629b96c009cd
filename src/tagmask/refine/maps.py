"""What refiners that work on the image share: the check of the image, and maps brought back to a maximum of 1."""

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


def divide_by_peaks(maps: Tensor) -> Tensor:
    """Divide each map [K, h, w] by its maximum; a map without a positive value stays as it is."""
    peak = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(peak > 0, peak, 1)
