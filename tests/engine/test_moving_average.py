"""The moving average of a model's weights."""

from __future__ import annotations

import torch
from torch import nn

from tagmask.engine.moving_average import MovingAverage


def test_constant_weights_are_their_own_average() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = MovingAverage(model, 0.9)
    for step in range(5):
        average.update(step)
    assert all(torch.allclose(value, model.state_dict()[key]) for key, value in average.state.items())


def test_the_random_start_is_soon_forgotten() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 100.0)
    average = MovingAverage(model, 0.999)
    nn.init.constant_(model.weight, 1.0)
    for step in range(60):
        average.update(step)
    assert abs(float(average.state["weight"]) - 1) < 0.01


def test_it_goes_on_from_a_stored_state_and_counts_are_copied() -> None:
    model = nn.BatchNorm1d(2)
    one, other = MovingAverage(model, 0.9), MovingAverage(model, 0.9)
    model(torch.randn(4, 2))
    one.update(0)
    other.load(one.state)
    assert all(torch.equal(one.state[key], other.state[key]) for key in one.state)
    assert one.state["num_batches_tracked"] == 1
