"""Soft Dice beside the cross entropy: objects of a few pixels count as much as large ones.

Source: Milletari et al., "V-Net", 3DV 2016, Eq. of Sec. 3; with the cross entropy, over the batch and without the
background as in nnU-Net (Isensee et al., Nature Methods 2021). Deviation: classes without a labelled pixel in the batch
are left out of the mean, for their Dice is 0 whatever is predicted.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tagmask.contracts.loss import Balance, Loss, Targets
from tagmask.ops.losses import Outputs, listed, nearest_to, summed_cross_entropy, weighted_sum
from tagmask.types import BACKGROUND, IGNORE_INDEX


def soft_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the mean soft Dice of the foreground classes that occur, over all pixels of the batch together.

    Args:
        logits: [B, C + 1, H, W] float.
        labels: [B, H, W] int64, 0..C or 255; pixels with 255 do not count.

    Returns:
        A scalar in [0, 1] of the dtype of ``logits``: 0 where no class occurs, or each is predicted for certain.

    Raises:
        RuntimeError: shapes do not fit, or a label is neither 255 nor below C + 1.
    """
    counted = labels != IGNORE_INDEX
    probabilities = logits.softmax(1).movedim(1, -1)[counted]  # [N, C + 1]
    truth = functional.one_hot(labels[counted], logits.shape[1]).to(probabilities)
    overlap, sizes = (probabilities * truth).sum(0), probabilities.sum(0) + truth.sum(0)
    occurs = truth.sum(0) > 0
    occurs[BACKGROUND] = False
    dice = 2 * overlap / sizes.clamp(min=torch.finfo(sizes.dtype).tiny)
    # A sum of nothing, which still has a gradient (of zeros).
    return (occurs * (1 - dice)).sum() / occurs.sum().clamp(min=1)


class Dice(Loss):
    """Cross entropy, with ``balance`` as there, plus ``weight`` times one minus the soft Dice."""

    name: ClassVar[str] = "dice"

    weight: Annotated[float, Field(gt=0)] = 1.0
    balance: Balance = 0.0

    def terms(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """See :class:`Loss`; 'dice' is the history's."""
        logits = listed(outputs)
        entropy = summed_cross_entropy(logits, targets.labels, targets.weights, targets.factors, balance=self.balance)
        each = [soft_dice(output, nearest_to(targets.labels, output.shape[-2:])) for output in logits]
        dice = weighted_sum(each, targets.factors)
        return {"loss": entropy + self.weight * dice, "dice": dice}
