"""Instances: centroids against the published loop, regions against a flood fill, touching objects told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tagmask.methods.irnet.instances import (
    cluster_centroids,
    connected_components,
    find_centroids,
    instance_masks,
    split_maps,
)


def published_centroids(displacement: NDArray[np.float32], iterations: int) -> NDArray[np.int64]:
    """``find_centroids_with_refinement`` by its definition, pixel by pixel."""
    _, height, width = displacement.shape
    result = np.zeros((2, height, width), np.int64)
    for row in range(height):
        for column in range(width):
            y, x = np.float32(row), np.float32(column)
            for _ in range(iterations):
                uy, dy, ux, dx = int(np.ceil(y)), int(np.floor(y)), int(np.ceil(x)), int(np.floor(x))
                sy, sx = y - dy, x - dx
                step = (
                    displacement[:, uy, ux] * sy * sx
                    + displacement[:, uy, dx] * sy * (1 - sx)
                    + displacement[:, dy, ux] * (1 - sy) * sx
                    + displacement[:, dy, dx] * (1 - sy) * (1 - sx)
                )
                y, x = np.clip(y + step[0], 0, height - 1), np.clip(x + step[1], 0, width - 1)
            result[:, row, column] = round(float(y)), round(float(x))
    return result


def towards(centres: list[tuple[float, float]], height: int, width: int, reach: float = 0.5) -> torch.Tensor:
    """A field that brings each pixel nearer to its nearest centre."""
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    fields = torch.stack([torch.stack([cy - y, cx - x]) for cy, cx in centres])
    nearest = fields.square().sum(1).argmin(0)
    return reach * fields.gather(0, nearest[None, None].expand(1, 2, height, width))[0]


def test_centroids_are_those_of_the_published_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.randn(1, 2, 3, 4, generator=generator), (9, 11), mode="bilinear")[0]
    for field in (3 * smooth, towards([(2, 2), (6, 8)], 9, 11)):
        found = find_centroids(field, iterations=7).numpy()
        assert np.array_equal(found, published_centroids(field.numpy(), 7))


def test_all_pixels_of_an_object_end_in_its_centre() -> None:
    field = towards([(4, 4), (4, 14)], 9, 20)
    centroids = find_centroids(field)
    assert (centroids[:, :, :9] == torch.tensor([4, 4]).view(2, 1, 1)).all()
    assert (centroids[:, :, 10:] == torch.tensor([4, 14]).view(2, 1, 1)).all()
    clusters = cluster_centroids(centroids, field)
    assert len(np.unique(clusters)) == 2
    assert len(np.unique(clusters[:, :9])) == len(np.unique(clusters[:, 10:])) == 1
    assert len(np.unique(cluster_centroids(centroids, field, threshold=100.0))) == 1


def flood(values: NDArray[np.int64]) -> NDArray[np.int64]:
    numbers, count = np.zeros(values.shape, np.int64), 0
    for start in np.ndindex(values.shape):
        if values[start] and not numbers[start]:
            count += 1
            stack = [start]
            while stack:
                y, x = stack.pop()
                if numbers[y, x]:
                    continue
                numbers[y, x] = count
                for ny, nx in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                    inside = 0 <= ny < values.shape[0] and 0 <= nx < values.shape[1]
                    if inside and values[ny, nx] == values[y, x] and not numbers[ny, nx]:
                        stack.append((ny, nx))
    return numbers


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_regions_are_those_of_a_flood_fill(height: int, width: int, seed: int, n: int) -> None:
    values = np.random.default_rng(seed).integers(0, n + 1, (height, width))
    assert np.array_equal(connected_components(values), flood(values))


def test_a_long_way_round_is_one_region() -> None:
    snake = np.ones((41, 41), np.int64)
    snake[1::4, :-1] = snake[3::4, 1:] = 0
    assert connected_components(snake).max() == 1
    snake[2, 20] = 0
    assert connected_components(snake).max() == 2


def two_boxes() -> tuple[torch.Tensor, Any]:
    """Two touching objects of class 7 and one of class 3 below; grid of stride 4, image 48 x 80."""
    maps = torch.zeros(2, 12, 20)
    maps[1, 1:6], maps[0, 8:11, 4:16] = 0.9, 0.6
    clusters = np.zeros((12, 20), np.int64)
    clusters[:, 10:] = 1
    clusters[8:] = 2
    return maps, clusters


def test_touching_objects_of_a_class_are_told_apart() -> None:
    maps, clusters = two_boxes()
    parts = split_maps(maps, clusters)
    assert parts.shape == (6, 12, 20)
    torch.testing.assert_close(parts.view(2, 3, 12, 20).sum(1), maps)
    found = instance_masks(parts, [3, 7], (48, 80))
    assert [(one.id, one.label) for one in found.instances] == [(1, 7), (2, 7), (3, 3)]
    assert [one.score for one in found.instances] == pytest.approx([1, 1, 0.6 / 0.9])
    assert found.ids.shape == (48, 80)
    assert found.ids.dtype == np.uint8
    for one in found.instances:
        y0, x0, y1, x1 = one.box
        inside = found.ids == one.id
        assert inside.sum() == one.area
        assert inside[y0:y1, x0:x1].sum() == one.area
    left, right, below = found.ids[10, 10], found.ids[10, 70], found.ids[38, 40]
    assert {left, right} == {1, 2}
    assert below == 3


def test_small_and_faint_ones_are_left_out() -> None:
    maps, clusters = two_boxes()
    parts = split_maps(maps, clusters)
    assert [one.label for one in instance_masks(parts, [3, 7], (48, 80), background=0.7).instances] == [7, 7]
    assert instance_masks(parts, [3, 7], (48, 80), min_area=0.9).instances == ()
    assert not instance_masks(parts * 0, [3, 7], (48, 80)).ids.any()
    assert instance_masks(torch.zeros(0, 12, 20), [], (48, 80)).instances == ()


def test_pieces_that_do_not_hang_together_are_objects_of_their_own() -> None:
    maps = torch.zeros(1, 8, 16)
    maps[0, 2:6, 1:5], maps[0, 2:6, 11:15] = 1.0, 0.8
    found = instance_masks(maps, [4], (32, 64))
    assert [(one.label, round(one.score, 3)) for one in found.instances] == [(4, 1.0), (4, 0.8)]
