"""Pieces that losses share: cross entropy, planes brought to an output's size, sums over outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tagmask.types import IGNORE_INDEX

Outputs = Tensor | Sequence[Tensor]


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross entropy over pixels that are not ignored; 0 when all are.

    Args:
        logits: [B, C + 1, H, W] float.
        labels: [B, H, W] int64, 0..C or 255.
        weights: [B, H, W] float >= 0; the mean is then weighted. All zero: 0.

    Returns:
        A scalar >= 0 of the dtype of ``logits``.

    Raises:
        RuntimeError: shapes do not fit.
        IndexError: a label is neither 255 nor below C + 1 (an assertion of the device on a GPU).
    """
    if weights is None:
        # Not torch's own mean, which is NaN where all pixels are ignored.
        total = functional.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum")
        return total / (labels != IGNORE_INDEX).sum().clamp(min=1)
    each = functional.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none")
    counted = weights * (labels != IGNORE_INDEX)
    return (each * counted).sum() / counted.sum().clamp(min=torch.finfo(counted.dtype).tiny)


def listed(outputs: Outputs) -> list[Tensor]:
    """One output or several as a list, in float32."""
    return [outputs.float()] if isinstance(outputs, Tensor) else [output.float() for output in outputs]


def nearest_to(planes: Tensor, size: torch.Size) -> Tensor:
    """Labels, weights or a mask [B, H, W] at another size, by nearest neighbours."""
    if planes.shape[-2:] == size:
        return planes
    # nearest-exact has half-pixel centres, as Pillow, by which the published code resizes; torch's nearest picks
    # others.
    resized = functional.interpolate(planes[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0]
    return resized.to(planes.dtype)


def bilinear_to(planes: Tensor, size: torch.Size) -> Tensor:
    """Saliency [B, H, W] at another size, bilinearly."""
    if planes.shape[-2:] == size:
        return planes
    return functional.interpolate(planes[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]


def weighted_sum(terms: Sequence[Tensor], factors: Sequence[float] | None) -> Tensor:
    """Terms of the outputs, each times its factor (1 by default), summed."""
    stacked = torch.stack(list(terms))
    if factors is None:
        return stacked.sum(0)
    return torch.tensor(list(factors), dtype=stacked.dtype, device=stacked.device) @ stacked


def summed_cross_entropy(
    outputs: Sequence[Tensor],
    labels: Tensor,
    weights: Tensor | None = None,
    factors: Sequence[float] | None = None,
) -> Tensor:
    """:func:`cross_entropy` summed over outputs of any size."""
    terms = [
        cross_entropy(
            logits,
            nearest_to(labels, logits.shape[-2:]),
            None if weights is None else nearest_to(weights, logits.shape[-2:]),
        )
        for logits in outputs
    ]
    return weighted_sum(terms, factors)
