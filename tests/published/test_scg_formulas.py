"""SPA's self-correlation (Pan et al., CVPR 2021): both orders, their union and the map, entry by entry."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formulas import close, drawn
from tagmask.functional import self_correlation
from tagmask.methods.spa.self_correlation import combined_correlation, correlated_map, stretched


def orders(features: np.ndarray, order: int, first: float, second: float) -> tuple[np.ndarray, np.ndarray]:
    flat = features.reshape(len(features), -1)
    n = flat.shape[1]
    alike = np.zeros((n, n))
    for a in range(n):
        for b in range(n):
            length = math.sqrt(flat[:, a] @ flat[:, a]) * math.sqrt(flat[:, b] @ flat[:, b])
            cosine = max(0.0, float(flat[:, a] @ flat[:, b]) / length)
            alike[a, b] = 0.0 if cosine < first else cosine
    one = alike / (alike.sum(0, keepdims=True) + 1e-5)
    step = alike.copy()
    np.fill_diagonal(step, 0.0)
    step = step / (step.sum(0, keepdims=True) + 1e-5)
    two = step
    for _ in range(order - 1):
        two = two @ step
        two = two / (two.sum(0, keepdims=True) + 1e-10)
    two = np.where(two < second / n, 0.0, two)
    return one, two


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize(("first", "second"), [(0.1, 0.5), (0.2, 0.2), (0.6, 0.9)])
def test_both_orders(order: int, first: float, second: float) -> None:
    features = drawn(order, 3, 3, 4, low=-1)
    result = self_correlation(torch.from_numpy(features), order=order, first_threshold=first, second_threshold=second)
    expected = orders(features, order, first, second)
    for matrix, own in zip(result, expected, strict=True):
        close(matrix, own, 1e-8)
    assert (expected[1] == 0).sum() > 12, "the second threshold cuts something"


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_stages_are_united_by_the_larger_order_and_added(weight: float) -> None:
    stages = [orders(drawn(i, 4, 2, 3), 2, 0.1, 0.5) for i in (1, 2)]
    expected = np.zeros((6, 6))
    for one, two in stages:
        larger = np.maximum(one, weight * two)
        expected += larger / (larger.sum(0, keepdims=True) + 1e-10)
    tensors = [(torch.from_numpy(one), torch.from_numpy(two)) for one, two in stages]
    close(combined_correlation(tensors, second_weight=weight), expected)


def span(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min() + 1e-10)


def map_of(seed: np.ndarray, matrix: np.ndarray, foreground: float, background: float) -> np.ndarray:
    sides = []
    for chosen in (seed.ravel() >= foreground, seed.ravel() <= background):
        total = np.zeros(seed.size)
        for column in np.flatnonzero(chosen):
            total += span(matrix[:, column])
        sides.append(span(total) if chosen.any() else total)
    return span(np.maximum(sides[0] - sides[1], 0)).reshape(seed.shape)


@pytest.mark.parametrize(("foreground", "background"), [(0.1, 0.05), (0.6, 0.3), (2.0, 0.3), (0.5, -1.0)])
def test_the_map_is_what_looks_like_the_foreground_minus_what_looks_like_the_background(
    foreground: float, background: float
) -> None:
    seed, matrix = span(drawn(5, 3, 4)), drawn(6, 12, 12)
    result = correlated_map(
        torch.from_numpy(seed), torch.from_numpy(matrix), foreground=foreground, background=background
    )
    close(result, map_of(seed, matrix, foreground, background), 1e-8)


def test_bounds_belong_to_the_foreground_and_to_the_background() -> None:
    seed = np.array([[1.0, 0.1, 0.05, 0.0]])
    matrix = drawn(7, 4, 4)
    result = correlated_map(torch.from_numpy(seed), torch.from_numpy(matrix), foreground=0.1, background=0.05)
    close(result, map_of(seed, matrix, 0.1, 0.05), 1e-8)
    exclusive = map_of(seed, matrix, 0.1 + 1e-9, 0.05 - 1e-9)
    assert not np.allclose(result, exclusive)


@settings(max_examples=30)
@given(st.integers(0, 3000), st.floats(0.01, 100))
def test_neither_scale_nor_mirror_matters(seed: int, factor: float) -> None:
    features = torch.from_numpy(drawn(seed, 3, 2, 3) + 0.05)
    plain = self_correlation(features)
    order = torch.arange(6).view(2, 3).flip(-1).flatten()
    for one, scaled, mirrored in zip(
        plain, self_correlation(factor * features), self_correlation(features.flip(-1)), strict=True
    ):
        close(scaled, one.numpy(), 1e-6)
        close(mirrored, one[order][:, order].numpy(), 1e-6)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9))
def test_stretching_is_min_max(values: list[float]) -> None:
    close(stretched(torch.tensor(values, dtype=torch.float64), 0), span(np.array(values)))
