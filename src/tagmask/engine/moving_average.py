"""Exponential moving average of a model's weights.

Source: Polyak and Juditsky, SIAM J. Control Optim. 1992, with a decay that grows over the first updates as in
TensorFlow's ``ExponentialMovingAverage``, min(d, (1 + t) / (10 + t)), so that the random start is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class MovingAverage:
    """Average of a model's parameters and buffers; what is not floating point is copied.

    Args:
        model: whose weights are averaged; they are read at each :meth:`update`.
        decay: share of the average that stays, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.state: dict[str, Tensor] = {key: value.detach().clone() for key, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after update ``step`` = 0, 1, ..."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value.to(self.state[key].device), 1 - decay)
            else:
                self.state[key].copy_(value)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a stored :attr:`state`."""
        for key, value in self.state.items():
            value.copy_(state[key])
