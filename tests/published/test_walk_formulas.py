"""Random walks of IRNet (CVPR 2019), AffinityNet (CVPR 2018) and the colour walk: dense matrices and their powers."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formulas import close, drawn, pair_offsets, path, transition, walked
from tagmask.functional import affinity_random_walk, colour_walk, random_walk
from tagmask.methods.affinitynet.losses import affinity_planes, walk_start
from tagmask.methods.colour_walk.refiner import grid_colours
from tagmask.ops.random_walk import chebyshev_of_power, path_affinity, stencil_walk

SIZE = (5, 7)


def edge_matrix(edge: np.ndarray, radius: int, beta: float) -> np.ndarray:
    def weight(y: int, x: int, v: int, u: int) -> float:
        strongest = max(edge[y + dy, x + dx] for dy, dx in path((v - y, u - x)))
        return float((1 - strongest) ** beta)

    return transition(edge.shape, weight, radius)


@pytest.mark.parametrize(("radius", "beta", "steps"), [(5, 10.0, 256), (3, 4.0, 1), (2, 1.0, 7), (4, 10.0, 64)])
def test_irnets_walk_is_a_power_of_the_dense_transition(radius: int, beta: float, steps: int) -> None:
    maps, edge = drawn(1, 2, *SIZE), drawn(2, *SIZE, high=0.6)
    result = random_walk(*map(torch.from_numpy, (maps, edge)), radius=radius, beta=beta, steps=steps)
    close(result, walked(maps * (1 - edge), edge_matrix(edge, radius, beta), steps), 1e-8)


def test_256_steps_are_eight_squarings() -> None:
    edge = drawn(3, 4, 5, high=0.5)
    matrix = edge_matrix(edge, 5, 10.0)
    squared = matrix
    for _ in range(8):
        squared = squared @ squared
    maps = drawn(4, 1, 4, 5)
    expected = ((maps * (1 - edge)).reshape(1, -1) @ squared).reshape(maps.shape)
    close(random_walk(*map(torch.from_numpy, (maps, edge))), expected, 1e-8)


@settings(max_examples=10)
@given(st.integers(0, 3000), st.floats(0.01, 100), st.permutations(range(3)))
def test_walks_are_linear_and_see_neither_order_nor_mirror(seed: int, factor: float, order: list[int]) -> None:
    maps, edge = torch.from_numpy(drawn(seed, 3, 4, 6)), torch.from_numpy(drawn(seed + 1, 4, 6))
    plain = random_walk(maps, edge, steps=32)
    close(random_walk(factor * maps[order], edge, steps=32), factor * plain[order].numpy(), 1e-8)
    close(random_walk(maps.flip(-1), edge.flip(-1), steps=32), plain.flip(-1).numpy(), 1e-8)
    close(random_walk(maps.flip(-2), edge.flip(-2), steps=32), plain.flip(-2).numpy(), 1e-8)
    pair = torch.stack([maps, maps.flip(-1)]), torch.stack([edge, edge.flip(-1)])
    close(random_walk(*pair, steps=32)[1], plain.flip(-1).numpy(), 1e-8)
    assert float(plain.min()) >= 0
    assert float(plain.max()) <= float(maps.max())


@pytest.mark.parametrize("radius", [2, 3, 5])
def test_affinity_is_one_minus_the_strongest_boundary_on_the_path(radius: int) -> None:
    edge = drawn(5, *SIZE)
    expected = np.zeros((len(pair_offsets(radius)), *SIZE))
    for i, (dy, dx) in enumerate(pair_offsets(radius)):
        for y, x in product(range(SIZE[0]), range(SIZE[1])):
            if y + dy < SIZE[0] and 0 <= x + dx < SIZE[1]:
                expected[i, y, x] = 1 - max(edge[y + a, x + b] for a, b in path((dy, dx)))
    close(path_affinity(torch.from_numpy(edge), radius), expected)


@pytest.mark.parametrize("steps", [1, 2, 5, 16, 64])
def test_the_chebyshev_series_is_the_power(steps: int) -> None:
    coefficients = chebyshev_of_power(steps)
    for x in np.linspace(-1, 1, 23):
        series = sum(c * math.cos(k * math.acos(x)) for k, c in enumerate(coefficients))
        assert series == pytest.approx(x**steps, abs=1e-9)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-2])
def test_the_error_of_a_shorter_series_is_within_its_tolerance(tolerance: float) -> None:
    """In the mean square weighted by degrees, as the docstring has it."""
    maps, weights = torch.from_numpy(drawn(6, 1, *SIZE)), path_affinity(torch.from_numpy(drawn(7, *SIZE)), 5)
    exact = stencil_walk(maps, weights, radius=5, steps=256)
    short = stencil_walk(maps, weights, radius=5, steps=256, tolerance=tolerance)
    degrees = np.ones(SIZE)
    for plane, (dy, dx) in zip(weights.numpy(), pair_offsets(5), strict=True):
        for y, x in product(range(SIZE[0]), range(SIZE[1])):
            if plane[y, x]:
                degrees[y, x] += plane[y, x]
                degrees[y + dy, x + dx] += plane[y, x]

    def norm(values: torch.Tensor) -> float:
        return math.sqrt(float((degrees * values[0].numpy() ** 2).sum()))

    assert norm(short - exact) <= tolerance * norm(maps)


def affinitynet_matrix(affinity: np.ndarray, size: tuple[int, int], radius: int, beta: float) -> np.ndarray:
    """Rows of offsets, columns of sources: rows 0..h-r, columns r-1..w-r; no other pair exists."""
    margin = radius - 1
    sources = [(y, x) for y in range(size[0] - margin) for x in range(margin, size[1] - margin)]
    values = {}
    for i, (dy, dx) in enumerate(pair_offsets(radius)):
        for n, (y, x) in enumerate(sources):
            values[y, x, y + dy, x + dx] = affinity[i, n] ** beta
    return transition(size, lambda *pair: values.get(pair, 0.0), radius)


@pytest.mark.parametrize(("radius", "size"), [(5, (6, 10)), (3, (5, 6)), (5, (5, 9))])
def test_affinitynets_walk_has_no_pair_within_a_margin(radius: int, size: tuple[int, int]) -> None:
    margin = radius - 1
    n = (size[0] - margin) * (size[1] - 2 * margin)
    affinity, maps = drawn(8, len(pair_offsets(radius)), n, low=0.3), drawn(9, 3, *size)
    result = affinity_random_walk(*map(torch.from_numpy, (maps, affinity)), radius=radius, steps=16)
    close(result, walked(maps, affinitynet_matrix(affinity, size, radius, 8.0), 16), 1e-8)


def test_affinities_lie_at_their_sources() -> None:
    affinity = np.arange(1, 1 + 34 * 6, dtype=float).reshape(34, 6)  # sources: 2 rows of 3
    planes = affinity_planes(torch.from_numpy(affinity), (6, 11))
    for y, x in product(range(6), range(11)):
        inside = y < 2 and 4 <= x < 7
        expected = affinity[:, 3 * y + x - 4] if inside else np.zeros(34)
        close(planes[:, y, x], expected)


@pytest.mark.parametrize("size", [(16, 24), (17, 9)])
def test_the_walk_starts_from_a_background_that_competes(size: tuple[int, int]) -> None:
    maps = drawn(10, 2, *size)
    planes = np.concatenate([(1 - maps.max(0, keepdims=True)) ** 16, maps])
    grid = -(-size[0] // 8), -(-size[1] // 8)
    expected = np.zeros((3, *grid))
    for i, j in product(range(grid[0]), range(grid[1])):
        expected[:, i, j] = planes[:, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].sum((1, 2)) / 64  # zeros outside
    close(walk_start(torch.from_numpy(maps)), expected, 1e-6)


def cell_means(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mean colour of each cell, which may share a row or column with its neighbour."""
    height, width = image.shape[:2]
    result = np.zeros((3, *size))
    for i, j in product(range(size[0]), range(size[1])):
        rows = slice(i * height // size[0], -(-(i + 1) * height // size[0]))
        columns = slice(j * width // size[1], -(-(j + 1) * width // size[1]))
        result[:, i, j] = image[rows, columns].mean((0, 1)) / 255
    return result


@pytest.mark.parametrize("image_size", [(20, 28), (17, 25)])
def test_cells_have_the_mean_colour_of_their_area(image_size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*image_size, 3), dtype=np.uint8)
    close(grid_colours(image, (5, 7)), cell_means(image, (5, 7)), 1e-6)


@pytest.mark.parametrize(("sigma", "power", "steps"), [(0.1, 1.0, 64), (0.3, 1.5, 8), (0.03, 1.0, 3)])
def test_the_colour_walk_spreads_over_like_colours(sigma: float, power: float, steps: int) -> None:
    image = np.random.default_rng(1).integers(90, 150, (*SIZE, 3), dtype=np.uint8)
    maps = drawn(11, 2, *SIZE)
    colours = cell_means(image, SIZE)

    def weight(y: int, x: int, v: int, u: int) -> float:
        return math.exp(-float(((colours[:, y, x] - colours[:, v, u]) ** 2).sum()) / (2 * sigma**2))

    expected = walked(maps**power, transition(SIZE, weight, 5), steps)
    expected /= expected.max((1, 2), keepdims=True)
    result = colour_walk(torch.from_numpy(maps), image, sigma=sigma, power=power, steps=steps)
    close(result, expected, 1e-4)  # colours are float32
