"""Activation-aware mask refinement: saliency teaches the background, the more the better it fits the pseudo mask.

Source: Sun, Zhang, Barnes, "Inferring the Class Conditional Response Map for Weakly Supervised Semantic
Segmentation", WACV 2022, Eq. 4; no code was published. Choices where the paper leaves one (docs/methods/aamr.md):

- the background's probability is channel 0 of the softmax (``background: sigmoid``: of the raw channel);
- tau is taken per image (``tau: batch``: one from counts pooled over the batch), over pixels that are inside the image
  and not ignored; a side (background, foreground) that is absent from both masks is left out of its mean;
- the saliency term covers ignored pixels inside the image too, never the padding;
- an image without a saliency map (no valid pixel) is trained by cross entropy alone.

``saliency_bce`` is the paper's ablation: the same term with a constant weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tagmask.contracts.loss import Loss, Targets
from tagmask.contracts.planes import SALIENCY
from tagmask.ops.losses import (
    Outputs,
    Tau,
    bilinear_to,
    conflict_temperature,
    listed,
    nearest_to,
    summed_cross_entropy,
    weighted_sum,
)
from tagmask.types import BACKGROUND

BackgroundRule = Literal["softmax", "sigmoid"]


def background_loss(
    logits: Tensor, saliency: Tensor, valid: Tensor | None = None, *, background: BackgroundRule = "softmax"
) -> Tensor:
    """Binary cross entropy of the background's probability against 1 - saliency, per image: the saliency term of Eq. 4.

    Args:
        logits: [B, C + 1, H, W] float.
        saliency: [B, H, W] in [0, 1]; it marks the foreground.
        valid: bool [B, H, W], pixels that count; all by default.
        background: probability of channel 0 by softmax over all channels, or by sigmoid of it alone.

    Returns:
        float [B]: the mean over valid pixels, 0 where there is none.
    """
    if background == "softmax":
        # log(1 - p0) by the other channels' sum: 1 - p0 itself would be 0, its logarithm infinite, once p0 is near 1.
        everything = logits.logsumexp(1)
        is_background = logits[:, BACKGROUND] - everything
        is_not = logits[:, BACKGROUND + 1 :].logsumexp(1) - everything
    else:
        is_background = functional.logsigmoid(logits[:, BACKGROUND])
        is_not = functional.logsigmoid(-logits[:, BACKGROUND])
    each = -((1 - saliency) * is_background + saliency * is_not)
    if valid is None:
        return each.flatten(1).mean(1)
    return torch.where(valid, each, torch.zeros_like(each)).flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)


def _summed_background_loss(
    outputs: list[Tensor],
    saliency: Tensor,
    valid: Tensor | None,
    background: BackgroundRule,
    factors: Sequence[float] | None,
) -> Tensor:
    """[B], summed over outputs of any size: saliency bilinearly, validity by nearest neighbours."""
    each = [
        background_loss(
            logits,
            bilinear_to(saliency, logits.shape[-2:]),
            None if valid is None else nearest_to(valid, logits.shape[-2:]),
            background=background,
        )
        for logits in outputs
    ]
    return weighted_sum(each, factors)


def aamr_loss(
    logits: Outputs,
    pseudo_labels: Tensor,
    saliency: Tensor,
    *,
    alpha: float = 0.08,
    valid: Tensor | None = None,
    tau: Tau = "image",
    background: BackgroundRule = "softmax",
) -> Tensor:
    """Cross entropy + alpha * mean over images of (e^tau - 1) * :func:`background_loss` (Eq. 4).

    Args:
        logits: [B, C + 1, h, w] float, or several of any size, over which the loss is summed; tau is taken once, at
            the size of the labels.
        pseudo_labels: int64 [B, H, W], 0..C or 255, made without saliency.
        saliency: float [B, H, W] in [0, 1], high on the foreground.
        alpha: weight of the saliency term.
        valid: bool [B, H, W]: pixels inside the image that has a saliency map; all by default.
        tau: see :func:`conflict_temperature`.
        background: see :func:`background_loss`.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: labels, saliency or valid differ in shape.
    """
    loss = Aamr(alpha=alpha, tau=tau, background=background)
    return loss.terms(logits, Targets(pseudo_labels, planes={SALIENCY: saliency}, valid=valid))["loss"]


def _checked(labels: Tensor, saliency: Tensor | None, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Saliency as float and validity as bool."""
    shapes = [None if plane is None else tuple(plane.shape) for plane in (saliency, valid)]
    if saliency is None or shapes[0] != tuple(labels.shape) or shapes[1] not in (None, shapes[0]):
        msg = f"labels {list(labels.shape)}, saliency {shapes[0]} and valid {shapes[1]} must have one shape [B, H, W]"
        raise ValueError(msg)
    return saliency.float(), None if valid is None else valid.bool()


class SaliencyBce(Loss):
    """Cross entropy plus a constant weight times the binary cross entropy of the background against 1 - saliency."""

    name: ClassVar[str] = "saliency_bce"
    needs: ClassVar[frozenset[str]] = frozenset({SALIENCY})

    alpha: Annotated[float, Field(ge=0)] = 0.08
    background: BackgroundRule = "softmax"

    def terms(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """See :class:`~tagmask.contracts.loss.Loss`; 'segmentation' and 'saliency' are the two terms, unweighted."""
        labels, factors = targets.labels, targets.factors
        saliency, valid = _checked(labels, targets.planes.get(SALIENCY), targets.valid)
        logits = listed(outputs)
        plain = summed_cross_entropy(logits, labels, targets.weights, factors)
        each = _summed_background_loss(logits, saliency, valid, self.background, factors)
        weighed, extras = self._weighed(each, labels, saliency, valid)
        return {"loss": plain + self.alpha * weighed.mean(), "segmentation": plain, "saliency": each.mean(), **extras}

    def _weighed(
        self, each: Tensor, labels: Tensor, saliency: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The images' saliency terms [B], each with its weight, and what to tell of the weights."""
        del labels, saliency, valid
        return each, {}


class Aamr(SaliencyBce):
    """:func:`aamr_loss`: the saliency term weighted by how well saliency and pseudo mask agree."""

    name: ClassVar[str] = "aamr"

    tau: Tau = "image"

    def _weighed(
        self, each: Tensor, labels: Tensor, saliency: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """e^tau - 1 of each image; 'tau' is the batch's mean."""
        agreement = conflict_temperature(labels, saliency, valid, tau=self.tau)
        return agreement.expm1() * each, {"tau": agreement.mean()}
