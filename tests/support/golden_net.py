"""The small network of the golden vectors, as a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagmask.types import IMAGENET, ClassifierOutput


class GoldenNet(nn.Module):
    """The network of the golden vectors, as a classifier."""

    input_statistics = IMAGENET

    def __init__(self, stored: Mapping[str, np.ndarray[Any, Any]]) -> None:
        super().__init__()
        self.stored = {key: torch.from_numpy(value) for key, value in stored.items() if key.startswith("c")}

    @property
    def class_weights(self) -> Tensor:
        return self.stored["classifier_weight"].flatten(1)

    def forward(self, views: Tensor) -> ClassifierOutput:
        for layer in ("conv1", "conv2"):
            views = functional.conv2d(
                views, self.stored[f"{layer}_weight"], self.stored[f"{layer}_bias"], stride=2, padding=1
            ).relu()
        return ClassifierOutput(features=views, feature_taps={1: views}, logits=views.mean((2, 3)))
