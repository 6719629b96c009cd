"""Optimisers of every training: settings, parameter groups and schedules (methods.md 1.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn


class OptimizerSettings(BaseModel):
    """Optimiser, parameter groups and schedule (methods.md 1.1).

    ``momentum: null`` with ``sgd`` is the published code's quirk: its helper passes the weight decay into the
    momentum slot, so the effective momentum equals ``weight_decay``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["adamw", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = Field(1e-4, description="rate of pretrained (backbone) parameters")
    head_lr: Annotated[float, Field(gt=0)] = Field(1e-3, description="rate of new parameters")
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    decay_norms: bool = Field(False, description="weight decay on biases and norms too (the published SGD codes)")
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = 0.9
    schedule: Literal["poly", "one_cycle", "constant"] = "poly"
    power: Annotated[float, Field(gt=0)] = 0.9
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    clip_norm: Annotated[float, Field(gt=0)] | None = None


def parameter_groups(
    settings: OptimizerSettings, pretrained: Iterable[nn.Parameter], new: Iterable[nn.Parameter]
) -> list[dict[str, Any]]:
    """Pretrained parameters at ``lr``, new ones at ``head_lr``; frozen ones are left out.

    Biases and norm weights (one-dimensional) are in groups of their own without weight decay, unless
    ``decay_norms``.
    """
    groups = []
    for parameters, rate in ((pretrained, settings.lr), (new, settings.head_lr)):
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        weights = [parameter for parameter in trainable if settings.decay_norms or parameter.ndim > 1]
        norms = [parameter for parameter in trainable if not settings.decay_norms and parameter.ndim <= 1]
        for members, decay in ((weights, settings.weight_decay), (norms, 0.0)):
            if members:
                groups.append({"params": members, "lr": rate, "peak_lr": rate, "weight_decay": decay})
    return groups


def build_optimizer(settings: OptimizerSettings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW or SGD over the groups."""
    if settings.kind == "adamw":
        return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    momentum = settings.weight_decay if settings.momentum is None else settings.momentum
    return torch.optim.SGD(groups, lr=settings.lr, momentum=momentum, weight_decay=settings.weight_decay)


def rate_factor(settings: OptimizerSettings, step: int, total: int) -> float:
    """Factor on the peak rate at ``step`` of ``total``.

    poly: linear warm-up times (1 - step / total)^power; one_cycle: cosine from 1/25 up to 1 over the first 30 %,
    then cosine down to 0.
    """
    if settings.schedule == "one_cycle":
        rise = max(1.0, 0.3 * total)
        if step < rise:
            return 0.04 + 0.96 * _half_cosine(step / rise)
        return 1 - _half_cosine((step - rise) / max(1.0, total - rise))
    warmup = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    decay = (1 - step / total) ** settings.power if settings.schedule == "poly" else 1.0
    return float(warmup * decay)


def _half_cosine(share: float) -> float:
    return 0.5 - 0.5 * float(torch.cos(torch.tensor(share * torch.pi)))
