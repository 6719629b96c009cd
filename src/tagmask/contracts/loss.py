"""What a loss of a segmentation network is given and returns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tagmask.contracts.method import Method
from tagmask.ops.losses import Outputs

#: What a loss may ask for beside labels.
SALIENCY = "saliency"


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
