"""Pieces that losses share: cross entropy, planes brought to an output's size, sums over outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tagmask.types import BACKGROUND, IGNORE_INDEX

Tau = Literal["image", "batch"]
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


def rarity_weights(labels: Tensor, n_labels: int, exponent: float) -> Tensor:
    """Weights of pixels by how rare their label is: (number of labelled pixels / number with its label)^exponent.

    With exponent 0 all pixels count alike, with 1 all labels that occur.

    Args:
        labels: [B, H, W] int64, 0..n_labels - 1 or 255; counted over the whole batch.
        n_labels: C + 1.
        exponent: in [0, 1].

    Returns:
        float32 [B, H, W], >= 1; 0 where the label is 255.
    """
    counted = labels != IGNORE_INDEX
    counts = torch.bincount(labels[counted], minlength=n_labels).float()
    weights = (counts.sum() / counts.clamp(min=1)) ** exponent
    return weights[labels.where(counted, torch.zeros_like(labels))] * counted


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
    *,
    balance: float = 0.0,
) -> Tensor:
    """:func:`cross_entropy` summed over outputs of any size, rare labels weighted by :func:`rarity_weights`."""
    terms = []
    for logits in outputs:
        own = nearest_to(labels, logits.shape[-2:])
        factor = None if weights is None else nearest_to(weights, logits.shape[-2:])
        if balance:
            rarity = rarity_weights(own, logits.shape[1], balance).to(logits)
            factor = rarity if factor is None else factor * rarity
        terms.append(cross_entropy(logits, own, factor))
    return weighted_sum(terms, factors)


def conflict_temperature(
    labels: Tensor, saliency: Tensor, valid: Tensor | None = None, *, tau: Tau = "image"
) -> Tensor:
    """Agreement of pseudo masks with saliency (AAMR, tau of Eq. 4): mean IoU of their backgrounds and foregrounds.

    Args:
        labels: int [B, H, W]; the background is 0, 255 does not count.
        saliency: float [B, H, W]; the background is below 0.5.
        valid: bool [B, H, W], pixels that count; all by default.
        tau: per image, or one value for the batch from pooled counts.

    Returns:
        float32 [B] in [0, 1], without gradient; 1 where no pixel counts.
    """
    with torch.no_grad():
        counted = labels != IGNORE_INDEX
        if valid is not None:
            counted = counted & valid
        masks = ((labels == BACKGROUND, saliency < 0.5), (labels != BACKGROUND, saliency >= 0.5))
        both = torch.stack([(a & b & counted).flatten(1).sum(1) for a, b in masks]).float()
        either = torch.stack([((a | b) & counted).flatten(1).sum(1) for a, b in masks]).float()
        if tau == "batch":
            both, either = (counts.sum(1, keepdim=True).expand_as(counts) for counts in (both, either))
        # A side that neither mask has agrees about nothing; as IoU 1 it would lift tau, as 0 lower it.
        occurs = either > 0
        ious = both / either.clamp(min=1)
        mean = ious.sum(0) / occurs.sum(0).clamp(min=1)
        return torch.where(occurs.any(0), mean, torch.ones_like(mean))
