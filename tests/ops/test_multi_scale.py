"""The multi-scale and flip rule against the published code, by hand, and its properties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tagmask.functional import cam, merge_scales, normalize_maps
from tagmask.ops.views import (
    Views,
    image_and_mirror,
    merge_flips,
    multi_scale_maps,
    strided_size,
    sum_scales,
)
from tagmask.types import IMAGENET

Golden = Callable[[str], Mapping[str, np.ndarray[Any, Any]]]
SUFFIX = {1.0: "1p0", 0.5: "0p5", 1.5: "1p5", 2.0: "2p0"}


@pytest.fixture(scope="module")
def published(golden: Golden) -> Mapping[str, np.ndarray[Any, Any]]:
    return golden("multi_scale_cam")


def features_of(stored: Mapping[str, np.ndarray[Any, Any]], views: Tensor) -> Tensor:
    """The golden's two-layer network."""
    for layer in ("conv1", "conv2"):
        weight, bias = torch.from_numpy(stored[f"{layer}_weight"]), torch.from_numpy(stored[f"{layer}_bias"])
        views = functional.relu(functional.conv2d(views, weight, bias, stride=2, padding=1))
    return views


def golden_scales(stored: Mapping[str, np.ndarray[Any, Any]]) -> list[Tensor]:
    keep = torch.from_numpy(stored["expected_class_indices"])
    sums = [torch.from_numpy(stored[f"expected_flip_summed_cam_scale_{SUFFIX[float(s)]}"]) for s in stored["scales"]]
    return [torch.index_select(maps, 0, keep) for maps in sums]


def test_network_inputs_are_the_published_ones(published: Mapping[str, Any]) -> None:
    for scale in published["scales"]:
        views = image_and_mirror(published["image_uint8"], float(scale), flip=True, statistics=IMAGENET)
        expected = torch.from_numpy(published[f"input_scale_{SUFFIX[float(scale)]}"])
        torch.testing.assert_close(views, torch.stack([expected, expected.flip(-1)]), rtol=0, atol=1e-6)


def test_maps_of_each_scale_are_the_published_ones(published: Mapping[str, Any]) -> None:
    weights = torch.from_numpy(published["classifier_weight"]).flatten(1)
    scales = [float(scale) for scale in published["scales"]]
    found = multi_scale_maps(
        published["image_uint8"],
        lambda pair: merge_flips(cam(features_of(published, pair), weights)),
        Views(tuple(scales)),
    )
    for scale, maps in zip(scales, found, strict=True):
        expected = torch.from_numpy(published[f"expected_flip_summed_cam_scale_{SUFFIX[scale]}"])
        torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-5)


def test_merged_maps_are_the_published_ones(published: Mapping[str, Any]) -> None:
    height, width = published["image_uint8"].shape[:2]
    strided, full = merge_scales(golden_scales(published), (height, width))
    torch.testing.assert_close(strided, torch.from_numpy(published["expected_strided_cam"]), rtol=0, atol=1e-5)
    torch.testing.assert_close(full, torch.from_numpy(published["expected_highres_cam"]), rtol=0, atol=1e-5)


def test_merging_without_normalising_differs_by_each_maps_maximum(published: Mapping[str, Any]) -> None:
    height, width = published["image_uint8"].shape[:2]
    raw = merge_scales(golden_scales(published), (height, width), normalize=False)
    for maps, expected in zip(raw, merge_scales(golden_scales(published), (height, width)), strict=True):
        torch.testing.assert_close(normalize_maps(maps), expected, rtol=0, atol=0)


def test_rectified_before_the_flips_are_summed() -> None:
    """-3 in the mirror must not eat the 2 of the image."""
    image = np.zeros((1, 2, 3), np.uint8)
    values = torch.tensor([[[[2.0, 0.0]]], [[[0.0, -3.0]]]])
    (maps,) = multi_scale_maps(image, lambda pair: merge_flips(cam(values, torch.ones(1, 1))), Views((1.0,)))
    assert maps.tolist() == [[[2.0, 0.0]]]


def test_the_mirror_is_turned_back() -> None:
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, 0] = 255  # bright on the left
    (maps,) = multi_scale_maps(image, lambda pair: merge_flips((pair[:, :1] > 0).float()), Views((1.0,)))
    assert maps[0].tolist() == [[2.0, 0.0, 0.0, 0.0]] * 2


def test_normalising_by_hand() -> None:
    maps = torch.tensor([[[1.0, 4.0]], [[0.0, 0.0]]])
    expected = torch.tensor([[[1 / 4.00001, 4 / 4.00001]], [[0.0, 0.0]]])
    torch.testing.assert_close(normalize_maps(maps), expected)


def test_nothing_to_merge_is_an_error() -> None:
    with pytest.raises(ValueError, match="no scales"):
        sum_scales([], (2, 2))


@pytest.mark.parametrize(
    ("size", "expected"), [((1, 1), (1, 1)), ((4, 5), (1, 2)), ((375, 500), (94, 125)), ((8, 9), (2, 3))]
)
def test_strided_size_rounds_up(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert strided_size(size) == expected


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def random_maps(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@given(sizes, st.integers(0, 99))
def test_one_scale_of_the_right_size_is_left_alone(size: tuple[int, int], seed: int) -> None:
    maps = random_maps(seed, 2, *strided_size(size))
    strided, full = merge_scales([maps], size, normalize=False)
    torch.testing.assert_close(strided, maps, rtol=0, atol=0)
    assert full.shape == (2, *size)


@given(sizes, st.integers(0, 99), st.floats(1e-6, 1e6))
def test_normalised_maxima_are_just_below_one(size: tuple[int, int], seed: int, factor: float) -> None:
    maps = random_maps(seed, 3, *size) * factor
    peaks = normalize_maps(maps).amax((-2, -1))
    assert (peaks <= 1).all()
    torch.testing.assert_close(peaks, maps.amax((-2, -1)) / (maps.amax((-2, -1)) + 1e-5))


@given(sizes, st.integers(0, 99), st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0]), min_size=1, max_size=3))
def test_a_mirrored_image_gives_mirrored_maps(size: tuple[int, int], seed: int, scales: list[float]) -> None:
    """Even for a network that is not symmetric itself: the flips are summed."""
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    weight = torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(seed))

    def scale_maps(pair: Tensor) -> Tensor:
        return merge_flips(functional.relu(functional.conv2d(pair, weight, padding=1)))

    there = multi_scale_maps(image, scale_maps, Views(tuple(scales)))
    mirrored = multi_scale_maps(np.ascontiguousarray(image[:, ::-1]), scale_maps, Views(tuple(scales)))
    for one, other in zip(there, mirrored, strict=True):
        # Pillow's bicubic rounds to whole grey values, not always the same way in the mirror.
        torch.testing.assert_close(one, other.flip(-1), rtol=0, atol=0.15)


@given(sizes, st.integers(0, 99))
def test_merging_commutes_with_the_mirror(size: tuple[int, int], seed: int) -> None:
    per_scale = [random_maps(seed, 2, 3, 5), random_maps(seed + 1, 2, 7, 9)]
    strided = merge_scales(per_scale, size)[0]
    mirrored = merge_scales([maps.flip(-1) for maps in per_scale], size)[0]
    torch.testing.assert_close(mirrored.flip(-1), strided, rtol=1e-5, atol=1e-5)


def test_every_scale_counts_the_same() -> None:
    one, two = random_maps(0, 1, 4, 4), random_maps(1, 1, 8, 8)
    both = sum_scales([one, two], (6, 6))
    torch.testing.assert_close(both, sum_scales([one], (6, 6)) + sum_scales([two], (6, 6)))


def test_half_precision_maps_are_summed_in_float32() -> None:
    assert sum_scales([torch.ones(1, 2, 2, dtype=torch.bfloat16)] * 3, (4, 4)).dtype == torch.float32


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_cam_is_the_rectified_dot_product(batch: int, classes: int, channels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, channels, 3, 4, generator=generator)
    weights = torch.randn(classes, channels, generator=generator)
    expected = torch.einsum("bdhw,cd->bchw", features, weights).clamp(min=0)
    torch.testing.assert_close(cam(features, weights), expected, rtol=1e-5, atol=1e-5)
