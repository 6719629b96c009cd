"""LPCAM (Chen and Sun, CVPR 2023): prototypes, their scores and the map, prototype by prototype as printed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formulas import close, drawn, softmax
from tagmask.functional import lpcam, select_prototypes
from tagmask.methods.lpcam.prototypes import class_vector, prototype_scores, split_positions
from tagmask.ops.kmeans import cosine_kmeans


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second) / (max(1e-8, math.sqrt(first @ first)) * max(1e-8, math.sqrt(second @ second)))


def lpcam_map(features: np.ndarray, own: np.ndarray, context: np.ndarray) -> np.ndarray:
    """ReLU(FG - BG) with the mean cosine to the class prototypes and to the context's; FG alone without context."""
    result = np.zeros(features.shape[1:])
    for y in range(features.shape[1]):
        for x in range(features.shape[2]):
            at = features[:, y, x]
            result[y, x] = sum(cosine(at, one) for one in own) / len(own)
            if len(context):
                result[y, x] = max(0.0, result[y, x] - sum(cosine(at, one) for one in context) / len(context))
    return result


@pytest.mark.parametrize("n_context", [0, 1, 4])
def test_the_map_is_the_mean_cosine_to_the_class_minus_that_to_its_context(n_context: int) -> None:
    features, own, context = drawn(1, 6, 4, 5), drawn(2, 3, 6) * 7, drawn(3, n_context, 6)
    result = lpcam(*map(torch.from_numpy, (features, own, context)))
    expected = lpcam_map(features, own, context)
    close(result, expected)
    if n_context:
        assert 0 < (expected > 0).mean() < 1, "both sides of the ReLU are exercised"


@given(st.integers(0, 5000), st.floats(0.1, 30))
def test_neither_the_length_of_features_nor_that_of_prototypes_moves_the_map(seed: int, factor: float) -> None:
    features, own, context = drawn(seed, 4, 3, 3) + 0.01, drawn(seed + 1, 3, 4) + 0.01, drawn(seed + 2, 2, 4) + 0.01
    lengths = drawn(seed + 3, 3, 1, low=0.1, high=10)
    plain = lpcam(*map(torch.from_numpy, (features, own, context)))
    close(lpcam(*map(torch.from_numpy, (factor * features, lengths * own, context))), plain.numpy())
    turned = lpcam(*map(torch.from_numpy, (features[..., ::-1].copy(), own[::-1].copy(), context)))
    close(turned, plain.numpy()[..., ::-1])


def test_one_vector_stands_for_all_prototypes() -> None:
    own, context = drawn(5, 4, 3) + 0.1, drawn(6, 2, 3) + 0.1
    expected = np.mean([one / math.sqrt(one @ one) for one in own], 0) - np.mean(
        [one / math.sqrt(one @ one) for one in context], 0
    )
    close(class_vector(torch.from_numpy(own), torch.from_numpy(context)), expected)


@pytest.mark.parametrize(("posterior", "axis"), [("classes", 1), ("centres", 0)])
def test_a_centre_scores_by_the_classifiers_own_posterior(posterior: str, axis: int) -> None:
    centres, weights = drawn(7, 5, 4, high=3), drawn(8, 3, 4, low=-1)
    for label in range(3):
        result = prototype_scores(torch.from_numpy(centres), torch.from_numpy(weights), label, posterior=posterior)  # type: ignore[arg-type]
        close(result, softmax(centres @ weights.T, axis)[:, label], 1e-6)


@given(st.integers(0, 5000), st.floats(0.05, 0.6), st.floats(0.2, 0.95))
def test_prototypes_are_kept_by_strict_bounds_and_in_their_order(seed: int, low: float, high: float) -> None:
    centres, weights = drawn(seed, 8, 3, high=4), drawn(seed + 1, 3, 3, low=-1)
    scores = softmax(centres @ weights.T, 1)[:, 1]
    stacks = torch.from_numpy(centres), torch.from_numpy(weights)
    above = select_prototypes(*stacks, 1, threshold=high, keep="above")
    between = select_prototypes(*stacks, 1, threshold=(low, high), keep="between")
    if np.abs(scores[:, None] - np.array([low, high])).min() > 1e-5:  # away from rounding
        close(above, centres[scores > high])
        close(between, centres[(scores > low) & (scores < high)])


def test_a_centre_exactly_at_a_bound_is_not_kept() -> None:
    centres, weights = torch.tensor([[1.0, 1.0]]), torch.eye(2)
    assert float(prototype_scores(centres, weights, 0)) == 0.5
    assert len(select_prototypes(centres, weights, 0, threshold=0.5, keep="above")) == 0
    assert len(select_prototypes(centres, weights, 0, threshold=(0.5, 0.9), keep="between")) == 0
    assert len(select_prototypes(centres, weights, 0, threshold=(0.1, 0.5), keep="between")) == 0
    assert len(select_prototypes(centres, weights, 0, threshold=(0.1, 0.9), keep="between")) == 1


def test_scores_need_the_length_of_a_centre() -> None:
    # Trap 41: of a unit vector no posterior is sure, so no centre of unit length passes 0.9.
    centre, weights = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert len(select_prototypes(10 * centre, weights, 0, threshold=0.9, keep="above")) == 1
    assert len(select_prototypes(centre / 5, weights, 0, threshold=0.9, keep="above")) == 0


@given(st.integers(0, 5000), st.tuples(st.integers(2, 9), st.integers(2, 9)), st.tuples(st.integers(1, 5),
                                                                                      st.integers(1, 5)))  # fmt: skip
def test_cells_take_the_masks_value_at_the_floor_and_ties_belong_to_neither(
    seed: int, mask_size: tuple[int, int], grid: tuple[int, int]
) -> None:
    mask = np.random.default_rng(seed).choice([0.0, 0.5, 1.0], mask_size)
    inside, around = split_positions(torch.from_numpy(mask).float(), grid, 0.5)
    for y in range(grid[0]):
        for x in range(grid[1]):
            value = mask[y * mask_size[0] // grid[0], x * mask_size[1] // grid[1]]
            assert (bool(inside[y, x]), bool(around[y, x])) == (value > 0.5, value < 0.5)


def owners_of(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.array([max(range(len(centres)), key=lambda k: cosine(point, centres[k])) for point in points])


@settings(max_examples=30)
@given(st.integers(0, 5000), st.integers(1, 5))
def test_centres_are_means_of_raw_members_and_members_are_nearest_by_cosine(seed: int, clusters: int) -> None:
    points = drawn(seed, 40, 3) + 0.05
    points *= drawn(seed + 1, 40, 1, low=0.2, high=5)
    centres, owner = cosine_kmeans(
        torch.from_numpy(points), clusters, np.random.default_rng(seed), tolerance=1e-12, max_iterations=500
    )
    assert len(centres) == clusters
    for k in range(clusters):
        members = points[owner.numpy() == k]
        if len(members):
            close(centres[k], members.mean(0), 1e-5)
    # Converged: asked again, every point belongs where it is.
    assert (owners_of(points, centres.double().numpy()) == owner.numpy()).mean() > 0.97


def test_unit_centres_are_the_mean_direction() -> None:
    points = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    raw, _ = cosine_kmeans(points, 1, np.random.default_rng(0))
    unit, _ = cosine_kmeans(points, 1, np.random.default_rng(0), centre="unit")
    close(raw, [[1.0, 0.5]], 1e-6)
    close(unit, [[math.sqrt(0.5), math.sqrt(0.5)]], 1e-6)


def test_clear_groups_are_told_apart_by_direction_whatever_their_length() -> None:
    rng = np.random.default_rng(3)
    directions = np.repeat(np.eye(3), 20, axis=0) + rng.uniform(0, 0.05, (60, 3))
    points = torch.from_numpy(directions * rng.uniform(0.5, 20, (60, 1)))
    for seed in range(20):  # some start is drawn from three groups
        _, owner = cosine_kmeans(points, 3, np.random.default_rng(seed), tolerance=1e-12)
        groups = [set(owner[20 * g : 20 * g + 20].tolist()) for g in range(3)]
        if all(len(group) == 1 for group in groups) and len(set.union(*groups)) == 3:
            return
    pytest.fail("three directions were never told apart")
