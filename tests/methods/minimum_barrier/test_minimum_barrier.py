"""Minimum barrier saliency: exact distances on small images, and what stands out on drawn ones."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmask.functional import minimum_barrier_saliency
from tagmask.methods.minimum_barrier.raster import reconstruct
from tagmask.methods.minimum_barrier.saliency import MinimumBarrier, barrier_distance, lab, otsu, smoothed

Array = np.ndarray[Any, np.dtype[np.float32]]


def noise(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def disc(height: int = 60, width: int = 80, *, radius: float = 15) -> np.ndarray[Any, np.dtype[np.bool_]]:
    y, x = np.mgrid[:height, :width]
    return np.hypot(y - height / 2 + 0.5, x - width / 2 + 0.5) < radius


def drawn(mask: np.ndarray[Any, Any], seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A red figure on noisy green."""
    image = np.where(mask[..., None], (200, 40, 40), (60, 140, 60)).astype(np.int64)
    return np.clip(image + np.random.default_rng(seed).integers(-10, 11, image.shape), 0, 255).astype(np.uint8)


# -- the distance --------------------------------------------------------------------------------------------


def test_a_ring_costs_its_height() -> None:
    values = np.zeros((9, 9), np.float32)
    values[2:7, 2:7] = 3
    values[4, 4] = 1  # inside the ring: the way there leads over it
    distance = barrier_distance(values)
    assert distance[4, 4] == 3
    assert distance[2, 2] == 3
    assert (distance[values == 0] == 0).all()


def test_a_door_in_the_ring_lets_the_border_in() -> None:
    values = np.zeros((9, 9), np.float32)
    values[2:7, 2:7] = 3
    values[3:6, 3:6] = 0
    values[4, 6] = 0
    assert barrier_distance(values)[4, 4] == 0


def widest_barrier(values: Array) -> Array:
    """A lower bound by Dijkstra: the least maximum and the greatest minimum on the way, each on its own best path."""
    height, width = values.shape

    def best(plane: Array) -> Array:
        found = np.full(plane.shape, np.inf)
        heap = []
        for y in range(height):
            for x in range(width):
                if y in (0, height - 1) or x in (0, width - 1):
                    found[y, x] = plane[y, x]
                    heapq.heappush(heap, (float(plane[y, x]), y, x))
        while heap:
            cost, y, x = heapq.heappop(heap)
            for ny, nx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= ny < height and 0 <= nx < width and max(cost, plane[ny, nx]) < found[ny, nx]:
                    found[ny, nx] = max(cost, plane[ny, nx])
                    heapq.heappush(heap, (float(found[ny, nx]), ny, nx))
        return found

    low = best(values) + best(-values)
    return np.maximum(low, 0).astype(np.float32)


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9))
def test_it_is_a_distance_along_paths(seed: int, height: int, width: int) -> None:
    values = noise(seed, height, width)
    distance = barrier_distance(values, passes=12)
    assert np.isfinite(distance).all()
    assert (distance <= values.max() - values.min() + 1e-6).all()
    assert (distance >= widest_barrier(values) - 1e-6).all()
    assert (barrier_distance(values, passes=3) >= distance).all()
    np.testing.assert_array_equal(barrier_distance(-values, passes=12), distance)


# -- smoothing -----------------------------------------------------------------------------------------------


def test_spots_vanish_and_outlines_stay() -> None:
    values = disc().astype(np.float32)
    spotted = values.copy()
    spotted[5, 5] = 1
    spotted[30, 40] = 0
    np.testing.assert_array_equal(smoothed(spotted, 5), values)


def test_reconstruction_fills_what_it_touches() -> None:
    mask = np.zeros((5, 9), np.float32)
    mask[1:4, 1:4] = 0.5
    mask[1:4, 6:8] = 0.7
    marker = np.zeros_like(mask)
    marker[2, 2] = 1
    expected = mask.copy()
    expected[:, 5:] = 0
    np.testing.assert_array_equal(reconstruct(marker, mask), expected)


def test_otsu_parts_two_groups() -> None:
    values = np.concatenate([np.full(300, 0.1), np.full(50, 0.8)]).astype(np.float32)
    assert abs(otsu(values) - 0.45) < 0.01


def test_lab_of_known_colours() -> None:
    colours = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]]], np.uint8)
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.2], [32.3, 79.19, -107.86]]
    np.testing.assert_allclose(lab(colours)[0], expected, atol=0.1)


# -- the map -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centre", ["otsu", 0.5])
def test_what_stands_out_is_marked(centre: Any) -> None:
    mask = disc()
    found = minimum_barrier_saliency(drawn(mask), centre=centre)
    marked = found >= 0.5
    assert (marked & mask).sum() / (marked | mask).sum() > 0.7
    assert found[~mask].mean() < 0.1


def test_a_figure_and_its_mirror_are_alike() -> None:
    mask = disc()
    mask[:, :40] &= np.arange(60)[:, None] < 40
    image = drawn(mask)
    mirrored = minimum_barrier_saliency(np.ascontiguousarray(image[:, ::-1]))[:, ::-1]
    assert np.abs(minimum_barrier_saliency(image) - mirrored).mean() < 0.02


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (5, 90), (400, 20)])
def test_any_size(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = minimum_barrier_saliency(image)
    assert found.shape == size
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert 0 <= found.min() <= found.max() <= 1


def test_one_colour_has_nothing_salient() -> None:
    assert not minimum_barrier_saliency(np.full((20, 30, 3), 77, np.uint8)).any()


def test_what_is_not_an_image_is_said() -> None:
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
        minimum_barrier_saliency(np.zeros((4, 4), np.uint8))


def test_the_method_has_its_settings() -> None:
    image = drawn(disc())
    found = MinimumBarrier(max_side=40, passes=1).find("a", image)
    np.testing.assert_array_equal(found, minimum_barrier_saliency(image, max_side=40, passes=1))
