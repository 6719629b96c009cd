"""What a loss of a segmentation network is given and returns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from tagmask.ops.losses import Outputs
from tagmask.registry.field import MethodOf
from tagmask.registry.method import LATER, Method


@dataclass(frozen=True)
class Targets:
    """What the outputs of a network in training are held against.

    Args:
        labels: int64 [B, H, W], 0..C or 255.
        weights: float [B, H, W] of the cross entropy.
        planes: float [B, H, W] in [0, 1] by name, of what the loss ``needs``, such as saliency.
        valid: bool [B, H, W]: pixels where the planes mean anything (not padding, and the image has them).
        factors: weight of each output in the sum; 1 by default.
    """

    labels: Tensor
    weights: Tensor | None = None
    planes: Mapping[str, Tensor] = field(default_factory=dict)
    valid: Tensor | None = None
    factors: Sequence[float] | None = None


class Loss(Method):
    """Base of the registered losses."""

    #: Planes it learns from beside labels, see :mod:`tagmask.contracts.planes`.
    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def terms(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Named scalars; 'loss' is minimised, the others are for the history.

        Args:
            outputs: logits [B, C + 1, h, w], or several of them (any sizes); the loss is their sum.
            targets: what they are held against.
        """


#: Exponent of :func:`tagmask.ops.losses.rarity_weights` in the cross entropy.
Balance = Annotated[
    float, Field(ge=0, le=1, json_schema_extra=LATER, description="0: pixels count alike, 1: labels that occur do")
]
LossField = Annotated[Loss, MethodOf("loss")]
