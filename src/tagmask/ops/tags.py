"""Tags of an image as a tensor."""

from __future__ import annotations

import torch
from torch import Tensor


def multi_hot(tags: tuple[int, ...], n_classes: int) -> Tensor:
    """Labels 1..C -> float32 [C] over classifier channels."""
    target = torch.zeros(n_classes)
    target[[tag - 1 for tag in tags]] = 1.0
    return target
