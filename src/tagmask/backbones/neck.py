"""New convolutions between a backbone and its head, as the classifiers of object localisation have them.

SPA (Pan et al., CVPR 2021) and SPG (Zhang et al., ECCV 2018): two of 3x3 and 1024 channels, each with a ReLU, before
the 1x1 classifier; wsolevaluation's VGG16: one (docs/localisation.md). What comes out are the features that the head
pools and that maps are made of; the taps stay the backbone's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional


class NeckSettings(BaseModel):
    """Convolutions of 3x3 with ReLU; dropout stands before each of them (SPG)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    convs: Annotated[int, Field(ge=1)] = 2
    channels: Annotated[int, Field(ge=1)] = 1024
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def build(self, inputs: int) -> Neck:
        """The module for features of ``inputs`` channels."""
        return Neck(inputs, self)


class Neck(nn.Module):
    """features [B, D, h, w] -> features [B, channels, h, w], >= 0. Xavier-uniform, biases 0."""

    def __init__(self, inputs: int, settings: NeckSettings) -> None:
        super().__init__()
        self.dropout, self.channels = settings.dropout, settings.channels
        widths = [inputs, *[settings.channels] * settings.convs]
        self.convs = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths))
        for conv in self.convs:
            xavier(conv)

    def forward(self, features: Tensor) -> Tensor:
        """One pass."""
        for conv in self.convs:
            # Maps are linear in what comes out here, so polishers and LPCAM work on the neck's features as on a
            # backbone's.
            features = functional.relu(conv(functional.dropout(features, self.dropout, training=self.training)))
        return features


def xavier(layer: nn.Module) -> None:
    """Xavier-uniform weights, biases 0."""
    nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
