"""AdvCAM (Lee, Kim, Yoon, CVPR 2021): one step of the climb against the printed loop and against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from formulas import close, drawn, numeric_gradient
from tagmask.methods.advcam.localizer import Climbing, climb, climb_step, steps_and_factors

WEIGHTS = torch.from_numpy(drawn(1, 3, 4, low=-1)).float()
FILTERS = torch.from_numpy(drawn(2, 4, 3, 2, 2, low=-1))


def features_of(images: Tensor) -> Tensor:
    """A small network that mixes colours over 2x2 pixels."""
    return functional.softplus(functional.conv2d(images, FILTERS.to(images.dtype), stride=2))


def grad_cam(features: Tensor, label: int) -> Tensor:
    """As published: the score's gradient at the features, summed over places and divided by the number of positive
    entries of both views, weighs the channels."""
    leaf = features.detach().clone().requires_grad_(True)
    score = torch.einsum("bdhw,d->bhw", leaf, WEIGHTS[label].to(leaf.dtype)).relu().sum()
    (slope,) = torch.autograd.grad(score, leaf)
    weights = slope.sum((2, 3)) / ((slope > 0).sum() + 1e-12)
    regions = torch.einsum("bdhw,bd->bhw", features, weights.detach()).relu()
    return regions[0] + regions[1].flip(-1)


def loss_of(pair: Tensor, label: int, clean: Tensor | None, strong: Tensor | None = None) -> Tensor:
    """L = y_c - sum of the other y_j - 7 sum_p R |map - map0|."""
    features = features_of(pair)
    responses = torch.einsum("bdhw,cd->bchw", features, WEIGHTS.to(pair.dtype)).relu()
    scores = responses.mean((2, 3)).sum(0)
    regions = grad_cam(features, label)
    fixed = regions.detach() if clean is None else clean
    if strong is None:
        strong = (regions / regions.max() > 0.5).to(pair.dtype)
    others = sum(scores[j] for j in range(3) if j != label)
    return scores[label] - others - 7 * (strong * (regions - fixed).abs()).sum()


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("first", [True, False])
def test_a_step_of_the_climb(label: int, first: bool) -> None:
    pair = torch.from_numpy(drawn(10 + label, 2, 3, 6, 8, low=-2, high=2)).float()
    earlier = grad_cam(features_of(pair + 0.3 * torch.randn(pair.shape, generator=torch.manual_seed(0))), label)
    clean = None if first else earlier
    step = climb_step(
        pair[None], features_of, WEIGHTS, torch.tensor([label]), None if clean is None else clean[None], Climbing()
    )
    leaf = pair.clone().requires_grad_(True)
    loss = loss_of(leaf, label, clean)
    (slope,) = torch.autograd.grad(loss, leaf)
    regions = grad_cam(features_of(pair), label)
    assert float(regions.max()) > 0
    close(step.regions[0], regions.numpy(), 1e-5)
    assert step.loss is not None and step.gradient is not None and step.images is not None  # noqa: PT018
    assert step.loss[0].item() == pytest.approx(loss.item(), abs=1e-4)
    close(step.gradient[0], slope.numpy(), 1e-4)
    moved = pair + 0.08 * slope / (slope.abs().max() + 1e-12)
    close(step.images[0], moved.clamp(pair.min(), pair.max()).numpy(), 1e-5)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_the_gradient_is_that_of_differences_in_float64(label: int) -> None:
    """The factors of the regions, and which places are strong, are constants of a step."""
    pair = torch.from_numpy(drawn(20 + label, 2, 3, 4, 4, low=-2, high=2)).double()
    clean = grad_cam(features_of(pair + 0.25), label)
    features = features_of(pair)
    responding = (torch.einsum("bdhw,d->bhw", features, WEIGHTS[label].double()) > 0).sum((1, 2)).double()
    positive = (WEIGHTS[label] > 0).sum() * responding.sum()
    factor = responding / (positive + 1e-12)
    regions = grad_cam(features, label)
    strong = (regions / regions.max() > 0.5).double()

    def frozen(values: Tensor) -> Tensor:
        responses = torch.einsum("bdhw,cd->bchw", features_of(values), WEIGHTS.double()).relu()
        scores = responses.mean((2, 3)).sum(0)
        own = responses[:, label] * factor[:, None, None]
        change = (own[0] + own[1].flip(-1) - clean).abs() * strong
        return 2 * scores[label] - scores.sum() - 7 * change.sum()

    step = climb_step(pair[None].float(), features_of, WEIGHTS, torch.tensor([label]), clean[None].float(), Climbing())
    assert step.loss is not None and step.gradient is not None  # noqa: PT018
    assert step.loss[0].item() == pytest.approx(frozen(pair).item(), abs=1e-4)
    close(step.gradient[0], numeric_gradient(frozen, pair), 2e-4)


def test_a_climb_sums_the_regions_of_all_its_steps_each_class_for_itself() -> None:
    pair = torch.from_numpy(drawn(3, 2, 3, 4, 6, low=-2, high=2)).float()
    settings, labels = Climbing(), torch.tensor([2, 0])
    expected = []
    for label in labels.tolist():
        images, clean, total = pair, None, torch.zeros(2, 3)
        for _ in range(4):
            regions = grad_cam(features_of(images), label)
            leaf = images.clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(loss_of(leaf, label, clean), leaf)
            clean = regions if clean is None else clean
            total = total + regions
            moved = images + 0.08 * slope / (slope.abs().max() + 1e-12)
            images = moved.clamp(images.min(), images.max())
        expected.append(total.numpy())
    close(climb(pair, features_of, WEIGHTS, labels, 4, settings), np.stack(expected), 1e-4)


@pytest.mark.parametrize(
    ("scales", "compensate", "plan"),
    [
        ((0.5, 1.0, 1.5, 2.0), False, [(13, 2.0), (27, 2.0), (27, 2.0), (27, 2.0)]),
        ((0.5, 1.0, 1.5, 2.0), True, [(13, 2.0), (27, 1.0), (27, 1.0), (27, 1.0)]),
        ((1.0, 1.5), False, [(27, 1.0), (27, 1.0)]),
    ],
)
def test_the_factor_2_of_half_as_many_steps_stays_for_all_scales(scales: Any, compensate: bool, plan: Any) -> None:
    assert steps_and_factors(scales, 27, compensate=compensate) == plan
