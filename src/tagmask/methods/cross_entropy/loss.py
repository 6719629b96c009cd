"""Losses of the segmentation networks: what they share, and the cross entropy.

A network in training may return one output or several (DeepLabV2's scales, an auxiliary head); a loss is summed over
them, each with its factor, labels resized to each output by nearest neighbours (methods.md 11.4).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from tagmask.interfaces import IGNORE_INDEX
from tagmask.method import Method

Outputs = Tensor | Sequence[Tensor]

#: What a loss may ask for beside labels.
SALIENCY = "saliency"


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross entropy over pixels that are not ignored; 0 when all are.

    Args:
        logits: [B, C + 1, H, W] float.
        labels: [B, H, W] int64, 0..C or 255.
        weights: [B, H, W] float >= 0; the mean is then weighted. All zero: 0.
    """
    if weights is None:
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


@dataclass(frozen=True)
class Targets:
    """What the outputs of a network in training are held against.

    Args:
        labels: int64 [B, H, W], 0..C or 255.
        weights: float [B, H, W] of the cross entropy.
        saliency: float [B, H, W] in [0, 1], where the loss ``needs`` it.
        valid: bool [B, H, W]: pixels where the saliency means anything (not padding).
        factors: weight of each output in the sum; 1 by default.
    """

    labels: Tensor
    weights: Tensor | None = None
    saliency: Tensor | None = None
    valid: Tensor | None = None
    factors: Sequence[float] | None = None


class Loss(Method):
    """Base of the registered losses; ``needs`` names what the data set must bring beside labels."""

    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def terms(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Named scalars; 'loss' is minimised, the others are for the history.

        Args:
            outputs: logits [B, C + 1, h, w], or several of them (any sizes); the loss is their sum.
            targets: what they are held against.
        """


class CrossEntropy(Loss):
    """Mean cross entropy over pixels that are not ignored."""

    name: ClassVar[str] = "cross_entropy"

    def terms(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """See :class:`Loss`."""
        return {"loss": summed_cross_entropy(listed(outputs), targets.labels, targets.weights, targets.factors)}
