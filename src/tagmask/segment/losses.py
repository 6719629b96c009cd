"""Losses of the segmentation networks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tagmask.interfaces import IGNORE_INDEX


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over pixels that are not ignored; 0 when all are.

    Args:
        logits: [B, C + 1, H, W] float.
        labels: [B, H, W] int64, 0..C or 255.
    """
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (labels != IGNORE_INDEX).sum().clamp(min=1)


def nearest_to(planes: Tensor, size: torch.Size) -> Tensor:
    """Labels, weights or a mask [B, H, W] at another size, by nearest neighbours."""
    if planes.shape[-2:] == size:
        return planes
    resized = functional.interpolate(planes[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0]
    return resized.to(planes.dtype)
