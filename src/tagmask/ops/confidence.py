"""How sure a pseudo label is, from the scores that it won against; weights for the cross entropy."""

from __future__ import annotations

import torch
from torch import Tensor


def relative_margin(scores: Tensor) -> Tensor:
    """By how much the highest score beats the second: 1 - second / highest.

    The same for scores and any positive multiple of them, so it compares maps and probabilities alike.

    Args:
        scores: [L, H, W] float >= 0, the background's plane among them.

    Returns:
        float32 [H, W] in [0, 1]; 1 where nothing competes (L = 1), 0 where all scores are 0 or two tie.

    Raises:
        ValueError: no scores.
    """
    if scores.ndim != 3 or not len(scores):
        msg = f"scores must be [L, H, W] with L >= 1, got {list(scores.shape)}"
        raise ValueError(msg)
    scores = scores.float()
    if len(scores) == 1:
        return torch.ones_like(scores[0])
    first, second = scores.topk(2, dim=0).values
    return torch.where(first > 0, 1 - second / first.clamp(min=torch.finfo(first.dtype).tiny), 0.0)


def margin_of(scores: Tensor, choice: Tensor) -> Tensor:
    """By how much the scores are for a label that may have been chosen otherwise: 1 - highest other / its own.

    Args:
        scores: [L, H, W] float >= 0.
        choice: int64 [H, W], indices into the L.

    Returns:
        float32 [H, W] in [0, 1]; 0 where another score is as high or higher. :func:`relative_margin` for the highest.
    """
    scores = scores.float()
    if len(scores) == 1:
        return torch.ones_like(scores[0])
    own = scores.gather(0, choice[None])[0]
    others = scores.scatter(0, choice[None], -1.0).amax(0)
    return torch.where(own > 0, 1 - others / own.clamp(min=torch.finfo(own.dtype).tiny), 0.0).clamp(min=0)


def confidence_weights(margin: Tensor, *, width: float, floor: float) -> Tensor:
    """Weights that rise from ``floor`` at no margin to 1 at a margin of ``width``: [H, W] in [0, 1] -> the same."""
    return floor + (1 - floor) * (margin / width).clamp(0, 1)
