"""ReCAM (Chen et al., CVPR 2022): losses and their gradients by hand, and the weights that make its maps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from formulas import close, drawn, gradient, numeric_gradient, soft_margin, softmax
from tagmask.functional import reactivation_loss
from tagmask.methods.recam.localizer import reactivation_weights

TAGS = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], float)  # the last image counts in the mean all the same


def losses(features: np.ndarray, first: np.ndarray, second: np.ndarray, tags: np.ndarray) -> dict[str, float]:
    batch, depth, height, width = features.shape
    n = height * width
    sce, right = 0.0, []
    for b in range(batch):
        flat = features[b].reshape(depth, n)
        terms = []
        for c in np.flatnonzero(tags[b]):
            responses = np.maximum(first[c] @ flat, 0)
            mask = responses / (responses.max() + 1e-5)
            own = np.zeros(depth)
            for p in range(n):  # mean over all places, whatever the mask's mass
                own += mask[p] * flat[:, p] / n
            probabilities = softmax(second @ own, 0)
            terms.append(-math.log(probabilities[c]))
            right.append(float(probabilities.argmax() == c))
        if terms:
            sce += sum(terms) / len(terms) / batch
    bce = soft_margin(features.mean((2, 3)) @ first.T, tags)
    return {"bce": bce, "sce": sce, "accuracy": sum(right) / max(1, len(right))}


def case(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    features, first, second = drawn(seed, 3, 5, 3, 2), drawn(seed + 1, 4, 5, low=-1), drawn(seed + 2, 4, 5, low=-2)
    return (*map(torch.from_numpy, (features, first, second, TAGS)),)  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_both_terms_and_their_sum(seed: int, weight: float) -> None:
    tensors = case(10 * seed)
    result = reactivation_loss(*tensors, weight=weight)
    expected = losses(*(one.numpy() for one in tensors))
    for name, value in expected.items():
        assert float(result[name]) == pytest.approx(value, abs=1e-9), name
    assert float(result["total"]) == pytest.approx(expected["bce"] + weight * expected["sce"], abs=1e-9)


def sce_of(place: int, tensors: tuple[Tensor, ...], **options: Any) -> Any:
    def function(values: Tensor) -> Tensor:
        changed = [values if i == place else one for i, one in enumerate(tensors)]
        return reactivation_loss(*changed, **options)["sce"]

    return function


@pytest.mark.parametrize("place", [0, 1, 2], ids=["features", "first weights", "second weights"])
def test_gradients_run_through_the_masks_and_their_maxima(place: int) -> None:
    tensors = case(70)
    function = sce_of(place, tensors)
    expected = numeric_gradient(function, tensors[place])
    assert np.abs(expected).max() > 1e-3
    close(gradient(function, tensors[place]), expected, 1e-6)


def test_detached_masks_keep_the_first_classifier_out() -> None:
    tensors = case(70)
    first = tensors[1].clone().requires_grad_(True)
    loss = reactivation_loss(tensors[0], first, *tensors[2:], detach_masks=True)["sce"]
    assert not loss.requires_grad or torch.autograd.grad(loss, first, allow_unused=True)[0] is None


def test_the_gradient_at_the_second_logits_is_softmax_minus_one_hot() -> None:
    # One image, one tag, w' with an identity part: d sce / d w' is (softmax - onehot) times the class's feature.
    features, first, second, _ = case(90)
    tags = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    function = sce_of(2, (features[:1], first, second, tags))
    flat = features[0].reshape(5, -1).numpy()
    mask = np.maximum(first[2].numpy() @ flat, 0)
    own = (mask / (mask.max() + 1e-5) * flat).mean(1)
    slope = softmax(second.numpy() @ own, 0) - tags[0].numpy()
    close(gradient(function, second), slope[:, None] * own)


@settings(max_examples=25)
@given(st.integers(0, 2000), st.permutations(range(4)))
def test_the_loss_does_not_see_the_order_of_classes_nor_a_mirror(seed: int, order: list[int]) -> None:
    features, first, second, tags = case(seed)
    plain = reactivation_loss(features, first, second, tags)
    moved = reactivation_loss(features.flip(-1), first[order], second[order], tags[:, order])
    for name in ("bce", "sce", "total"):
        assert float(moved[name]) == pytest.approx(float(plain[name]), abs=1e-9)
    singles = [reactivation_loss(features[b : b + 1], first, second, tags[b : b + 1]) for b in range(3)]
    for name in ("bce", "sce"):
        assert np.mean([float(one[name]) for one in singles]) == pytest.approx(float(plain[name]), abs=1e-9)


def test_weights_of_the_maps_are_combined_entry_by_entry() -> None:
    first, second = drawn(1, 2, 3, low=-1), drawn(2, 2, 3, low=-1)
    for kind, rule in {
        "w": lambda a, b: a,
        "w2": lambda a, b: b,
        "sum": lambda a, b: a + b,
        "product": lambda a, b: a * b,
        "agreement": lambda a, b: a * b if a > 0 and b > 0 else 0.0,
    }.items():
        expected = [[rule(a, b) for a, b in zip(*rows, strict=True)] for rows in zip(first, second, strict=True)]
        close(reactivation_weights(torch.from_numpy(first), torch.from_numpy(second), kind), expected)  # type: ignore[arg-type]
    assert (first * second > 0)[(first < 0) & (second < 0)].all(), "the case holds two negative weights"
