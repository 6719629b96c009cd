"""Optimisers of every training: settings, parameter groups and schedules (docs/recipes.md, optimizer)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]
from torch import nn

from tagmask.errors import UnknownNameError
from tagmask.registry.method import LATER

#: Updates of a training in place of its epochs; 'auto': by the table in ``tagmask.settings.training_length``.
Iterations = Annotated[int, Field(ge=1)] | Literal["auto"] | None


class OptimizerSettings(BaseModel):
    """Optimiser, parameter groups and schedule.

    ``momentum: null`` with ``sgd`` is the quirk of ``misc/torchutils.PolyOptimizer`` of jiwoon-ahn/irn: it passes the
    weight decay into the momentum slot, so the effective momentum equals ``weight_decay``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["adamw", "adam", "sgd", "timm"] = "adamw"
    opt: str | None = Field(None, json_schema_extra=LATER, description="name of timm's factory, with kind: timm")
    lr: Annotated[float, Field(gt=0)] = Field(1e-4, description="rate of pretrained (backbone) parameters")
    head_lr: Annotated[float, Field(gt=0)] = Field(1e-3, description="rate of new parameters")
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    decay_norms: bool = Field(False, description="weight decay on biases and norms too (the published SGD codes)")
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = 0.9
    nesterov: bool = Field(False, json_schema_extra=LATER, description="Nesterov's momentum, with sgd")
    bias_rate: Annotated[float, Field(gt=0)] = Field(
        1.0, json_schema_extra=LATER, description="rate of biases and norms, as a factor on that of weights"
    )
    schedule: Literal["poly", "one_cycle", "constant", "steps"] = "poly"
    power: Annotated[float, Field(gt=0)] = 0.9
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (), json_schema_extra=LATER, description="shares of the training at which steps cuts the rate to a tenth"
    )
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    clip_norm: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _timm_knows_it(self) -> Self:
        if (self.kind == "timm") != (self.opt is not None):
            msg = "kind: timm needs opt, timm's name of the optimiser, and opt needs kind: timm"
            raise ValueError(msg)
        if self.opt is not None and self.opt not in (names := [str(name) for name in list_optimizers()]):
            raise UnknownNameError("optimizer", self.opt, names, "opt")
        return self

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not (self.kind == "sgd" and self.momentum):
            msg = "nesterov: true needs kind: sgd and a momentum above 0"
            raise ValueError(msg)
        return self


def parameter_groups(
    settings: OptimizerSettings,
    pretrained: Iterable[nn.Parameter],
    new: Iterable[nn.Parameter],
    *,
    undecayed: Iterable[nn.Parameter] = (),
) -> list[dict[str, Any]]:
    """Pretrained parameters at ``lr``, new ones at ``head_lr``; frozen ones are left out.

    Biases and norm weights (one-dimensional) and those of ``undecayed`` are in groups of their own without weight
    decay, unless ``decay_norms``. Biases and norms learn ``settings.bias_rate`` times as fast as weights.
    """
    groups: list[dict[str, Any]] = []
    marked = {id(parameter) for parameter in undecayed}

    def add(members: list[nn.Parameter], rate: float, decay: float) -> None:
        if members:
            groups.append({"params": members, "lr": rate, "peak_lr": rate, "weight_decay": decay})

    for parameters, rate, of_bias in (
        (pretrained, settings.lr, settings.lr * settings.bias_rate),
        (new, settings.head_lr, settings.head_lr * settings.bias_rate),
    ):
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        # Decay pulls towards 0, and the neutral value of a norm's weight is 1.
        plain = [p for p in trainable if p.ndim <= 1 or id(p) in marked]
        plain_ids = {id(parameter) for parameter in plain}
        weights = [parameter for parameter in trainable if id(parameter) not in plain_ids]
        decay = settings.weight_decay if settings.decay_norms else 0.0
        if settings.decay_norms and rate == of_bias:
            add(trainable, rate, decay)
        else:
            add(weights, rate, settings.weight_decay)
            add(plain, of_bias, decay)
    return groups


def build_optimizer(settings: OptimizerSettings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser over the groups: torch's AdamW, Adam (decay added to the gradient) or SGD, or one of timm's."""
    if settings.kind == "adamw":
        return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    if settings.kind == "adam":
        return torch.optim.Adam(groups, weight_decay=settings.weight_decay)
    if settings.opt is not None:
        options: dict[str, Any] = {} if settings.momentum is None else {"momentum": settings.momentum}
        return create_optimizer_v2(groups, opt=settings.opt, weight_decay=settings.weight_decay, **options)
    # The published rates belong to this: with a momentum of 0.9 steps are ten times as long, and 0.1 diverges.
    momentum = settings.weight_decay if settings.momentum is None else settings.momentum
    return torch.optim.SGD(
        groups, lr=settings.lr, momentum=momentum, weight_decay=settings.weight_decay, nesterov=settings.nesterov
    )


def rate_factor(settings: OptimizerSettings, step: int, total: int) -> float:
    """Factor on the peak rate at ``step`` of ``total``.

    poly: linear warm-up times (1 - step / total)^power; one_cycle: cosine from 1/25 up to 1 over the first 30 %,
    then cosine down to 0; steps: a tenth of what it was from each of the milestones on.
    """
    if settings.schedule == "one_cycle":
        rise = max(1.0, 0.3 * total)
        if step < rise:
            return 0.04 + 0.96 * _half_cosine(step / rise)
        return 1 - _half_cosine((step - rise) / max(1.0, total - rise))
    if settings.schedule == "steps":
        return float(0.1 ** sum(step >= share * total for share in settings.milestones))
    warmup = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    decay = (1 - step / total) ** settings.power if settings.schedule == "poly" else 1.0
    return float(warmup * decay)


def _half_cosine(share: float) -> float:
    return 0.5 - 0.5 * float(torch.cos(torch.tensor(share * torch.pi)))
