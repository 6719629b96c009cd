"""Losses of the segmentation networks: what they share, and the cross entropy.

A network in training may return one output or several (DeepLabV2's scales, an auxiliary head); a loss is summed over
them, each with its factor, labels resized to each output by nearest neighbours (docs/methods/deeplabv2.md).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from tagmask.contracts.loss import Loss, Targets
from tagmask.ops.losses import Outputs, listed, summed_cross_entropy


class CrossEntropy(Loss):
    """Mean cross entropy over pixels that are not ignored."""

    name: ClassVar[str] = "cross_entropy"

    def terms(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """See :class:`Loss`."""
        return {"loss": summed_cross_entropy(listed(outputs), targets.labels, targets.weights, targets.factors)}
