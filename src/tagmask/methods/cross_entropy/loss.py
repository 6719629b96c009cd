"""Losses of the segmentation networks: what they share, and the cross entropy.

A network in training may return one output or several (DeepLabV2's scales, an auxiliary head); a loss is summed over
them, each with its factor, labels resized to each output by nearest neighbours (docs/methods/deeplabv2.md).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from tagmask.contracts.loss import Balance, Loss, Targets
from tagmask.ops.losses import Outputs, listed, summed_cross_entropy


class CrossEntropy(Loss):
    """Mean cross entropy over pixels that are not ignored, rare labels weighted by their share^-``balance``."""

    name: ClassVar[str] = "cross_entropy"

    balance: Balance = 0.0

    def terms(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """See :class:`Loss`."""
        logits = listed(outputs)
        loss = summed_cross_entropy(logits, targets.labels, targets.weights, targets.factors, balance=self.balance)
        return {"loss": loss}
