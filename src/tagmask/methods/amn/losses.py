"""AMN's balanced, label-smoothed cross entropy.

Source: Lee, Kim, Shin, Kim, "Threshold Matters in WSSS: Manipulating the Activation for the Robust and Accurate
Segmentation Model Against Thresholds", CVPR 2022; ``step/train_amn.py`` of gaviotas/AMN; docs/methods/amn.md.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tagmask.ops.losses import nearest_to
from tagmask.types import BACKGROUND, IGNORE_INDEX


class BalancedTerms(NamedTuple):
    """The loss, and the mean cross entropy over the background and over the foreground, 0 where there is none."""

    loss: Tensor
    background: Tensor
    foreground: Tensor


def balanced_cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.4) -> BalancedTerms:
    """Half the mean cross entropy over all background pixels of the batch, half that over all foreground pixels.

    Deviation: a set without a pixel counts as 0; the published code divides by zero there, and its gradient is NaN.

    Args:
        logits: [B, C + 1, h, w] float.
        labels: [B, H, W] integer, 0..C or 255, at any size: they are resized to the logits by nearest neighbours
            with half-pixel centres. 255 is in neither set.
        smoothing: what is taken from the label's channel of the target and spread evenly over the C others, in [0, 1].

    Returns:
        Three scalars >= 0 of the dtype of ``logits``.

    Raises:
        ValueError: smoothing outside [0, 1].
        RuntimeError: shapes do not fit, or a label is neither 255 nor below C + 1.
    """
    if not 0 <= smoothing <= 1:
        msg = f"smoothing must be in [0, 1], not {smoothing}"
        raise ValueError(msg)
    targets = nearest_to(labels, logits.shape[-2:]).long()
    counted = targets != IGNORE_INDEX
    # Ignored pixels need some channel to look at; what they give is in neither set.
    own = torch.where(counted, targets, BACKGROUND)[:, None]
    log_probabilities = logits.log_softmax(1)
    others = smoothing / (logits.shape[1] - 1)
    picked = log_probabilities.gather(1, own)[:, 0]
    each = -others * log_probabilities.sum(1) - (1 - smoothing - others) * picked
    background = _mean(each, targets == BACKGROUND)
    foreground = _mean(each, counted & (targets != BACKGROUND))
    return BalancedTerms((background + foreground) / 2, background, foreground)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values, 0 with a gradient of zeros where none is chosen."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
