"""Losses of the segmentation networks."""

from __future__ import annotations

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
