"""K-means by hand, against every possible grouping, and what it must never do."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmask.ops.kmeans import kmeans


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cost(points: np.ndarray, labels: np.ndarray) -> float:
    return sum(float(((points[labels == c] - points[labels == c].mean(0)) ** 2).sum()) for c in np.unique(labels))


def test_three_heaps_are_found() -> None:
    centres = np.array([[0.0, 0], [10, 0], [0, 10]])
    truth = np.repeat([0, 1, 2], 20)
    labels, means = kmeans(centres[truth] + rng(1).normal(0, 0.5, (60, 2)), 3, rng())
    assert len({(a, b) for a, b in zip(labels.tolist(), truth.tolist(), strict=True)}) == 3
    np.testing.assert_allclose(means[labels[[0, 20, 40]]], centres, atol=0.5)


@given(st.integers(3, 7), st.integers(0, 50))
def test_no_other_grouping_is_much_better(n: int, seed: int) -> None:
    points = rng(seed).normal(size=(n, 2))
    best = min(cost(points, np.array(labels)) for labels in product(range(3), repeat=n))
    assert best - 1e-9 <= cost(points, kmeans(points, 3, rng())[0]) <= 1.2 * best + 1e-9


@given(st.integers(3, 40), st.integers(2, 6), st.integers(0, 99))
def test_every_vector_is_nearest_to_its_own_mean(n: int, clusters: int, seed: int) -> None:
    points = rng(seed).normal(size=(n, 3))
    labels, means = kmeans(points, clusters, rng(), restarts=1, tolerance=0)
    distances = ((points[:, None] - means) ** 2).sum(2)
    np.testing.assert_allclose(distances[np.arange(n), labels], distances.min(1), atol=1e-9)


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 5), st.integers(0, 99), st.booleans())
def test_groups_are_numbered_without_gaps_and_centres_are_their_means(
    n: int, clusters: int, dims: int, seed: int, coarse: bool
) -> None:
    points = rng(seed).normal(size=(n, dims))
    if coarse:
        points = np.round(points)  # many equal ones
    labels, means = kmeans(points.astype(np.float32), clusters, rng(seed), restarts=2)
    distinct = len(np.unique(points.astype(np.float32), axis=0))
    assert np.unique(labels).tolist() == list(range(len(means)))
    assert 1 <= len(means) <= min(clusters, distinct)
    if distinct <= clusters:
        assert len(means) == distinct
    for group, mean in enumerate(means):
        np.testing.assert_allclose(mean, points[labels == group].mean(0), atol=1e-5)


def test_the_generator_decides_and_nothing_else() -> None:
    points = rng(3).normal(size=(40, 6))
    assert np.array_equal(kmeans(points, 5, rng(7))[0], kmeans(points, 5, rng(7))[0])


def test_where_the_points_lie_does_not_matter() -> None:
    points = rng(3).normal(size=(40, 4))
    assert np.array_equal(kmeans(points, 4, rng())[0], kmeans(points + 1e6, 4, rng())[0])


def test_restarts_find_what_one_start_misses() -> None:
    points = rng(5).uniform(size=(60, 2))
    costs = [cost(points, kmeans(points, 12, rng(seed), restarts=1)[0]) for seed in range(8)]
    many = [cost(points, kmeans(points, 12, rng(seed), restarts=30)[0]) for seed in range(8)]
    assert max(many) <= np.median(costs)


@pytest.mark.parametrize(("n", "clusters"), [(0, 3), (4, 0)])
def test_nothing_to_group_is_an_error(n: int, clusters: int) -> None:
    with pytest.raises(ValueError, match="cannot make"):
        kmeans(np.zeros((n, 2)), clusters, rng())
