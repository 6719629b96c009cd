"""The background plane rule, its band, and the stretch to the image's size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.errors import DataError
from tagmask.functional import maps_to_labels, upsample_maps, with_least


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 20))
def test_equals_argmax_with_the_plane_in_front(seed, n_maps, level):
    rng = np.random.default_rng(seed)
    maps = (rng.integers(0, 21, (n_maps, 5, 6)) / 20).astype(np.float32)  # many ties
    names = rng.permutation(20)[:n_maps] + 1
    threshold = level / 20
    plane = np.full((1, 5, 6), np.float32(threshold))
    expected = np.concatenate([[0], names])[np.concatenate([plane, maps]).argmax(0)]
    labels = maps_to_labels(torch.from_numpy(maps), torch.from_numpy(names), threshold)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)


def test_golden_prediction(golden):
    stored = golden("miou")
    for i in range(5):
        labels = maps_to_labels(stored[f"cam_{i}"], stored[f"cam_class_index_{i}"] + 1, 0.15)
        np.testing.assert_array_equal(labels, stored[f"expected_pred_at_0p15_{i}"])


def test_band_is_ignored_and_closed_above():
    maps = np.array([[[0.2, 0.3, 0.5, 0.6]]], np.float32)
    np.testing.assert_array_equal(maps_to_labels(maps, [7], (0.2, 0.5)), [[0, 255, 255, 7]])
    np.testing.assert_array_equal(maps_to_labels(maps, [7], 0.2), [[0, 7, 7, 7]])


def test_each_map_has_its_own_threshold():
    """The highest of the maps that exceed theirs; a sequence is a threshold for each map, a tuple is a band."""
    maps = np.array([[[0.6, 0.6, 0.1]], [[0.5, 0.3, 0.1]]], np.float32)
    np.testing.assert_array_equal(maps_to_labels(maps, [7, 9], [0.7, 0.4]), [[9, 0, 0]])
    np.testing.assert_array_equal(maps_to_labels(maps, [7, 9], [0.2, 0.4]), [[7, 7, 0]])
    band = (np.array([0.55, 0.2], np.float32), np.array([0.65, 0.4], np.float32))
    np.testing.assert_array_equal(maps_to_labels(maps, [7, 9], band), [[255, 255, 0]])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 0.5))
def test_equal_thresholds_are_one_threshold(seed, value, width):
    maps = np.random.default_rng(seed).random((3, 5, 6)).astype(np.float32)
    same = maps_to_labels(maps, [1, 2, 3], value)
    np.testing.assert_array_equal(maps_to_labels(maps, [1, 2, 3], [value] * 3), same)
    low, high = np.full(3, value, np.float32), np.full(3, value + width, np.float32)
    np.testing.assert_array_equal(
        maps_to_labels(maps, [1, 2, 3], (low, high)), maps_to_labels(maps, [1, 2, 3], (value, value + width))
    )


def test_no_map_is_background():
    maps = upsample_maps(torch.zeros((0, 2, 3)), (8, 9))
    np.testing.assert_array_equal(maps_to_labels(maps, [], 0.1), np.zeros((8, 9)))


def test_refusals():
    maps = torch.zeros(1, 2, 2)
    with pytest.raises(DataError, match="do not fit"):
        maps_to_labels(maps, [1, 2], 0.5)
    with pytest.raises(DataError, match=r"must be 1\.\.254"):
        maps_to_labels(maps, [255], 0.5)
    with pytest.raises(ValueError, match="above the upper"):
        maps_to_labels(maps, [1], (0.5, 0.4))
    with pytest.raises(ValueError, match="one for each map"):
        maps_to_labels(maps, [1], [0.5, 0.4])


def test_upsampling_is_half_pixel_bilinear():
    wide = upsample_maps(torch.tensor([[[0.0, 1.0]]]), (1, 4))
    torch.testing.assert_close(wide, torch.tensor([[[0.0, 0.25, 0.75, 1.0]]]))
    assert upsample_maps(torch.rand(3, 4, 5).half(), (15, 17)).dtype == torch.float32


def test_the_best_pixels_of_a_class_that_is_there():
    maps = np.array([[[0.9, 0.1, 0.2, 0.3]], [[0.4, 0.0, 0.3, 0.2]], [[0.0, 0.0, 0.0, 0.0]]], np.float32)
    labels = np.array([[1, 1, 0, 255]], np.uint8)
    # Class 1 has its half already; class 2 gets the first and third, from class 1 too; class 3 has no map.
    np.testing.assert_array_equal(with_least(labels, maps, [1, 2, 3], 0.5), [[2, 1, 2, 255]])
    np.testing.assert_array_equal(with_least(labels, maps, [1, 2, 3], 1e-9), [[2, 1, 0, 255]])
    np.testing.assert_array_equal(with_least(labels, maps, [1, 2, 3], 0.0), labels)
    np.testing.assert_array_equal(labels, [[1, 1, 0, 255]], "what is handed in stays")
    with pytest.raises(DataError, match="do not fit"):
        with_least(labels, maps, [1, 2], 0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_a_least_area_of_one_class(seed, threshold, least):
    rng = np.random.default_rng(seed)
    maps = (rng.integers(0, 6, (1, 5, 6)) / 5).astype(np.float32)
    before = maps_to_labels(maps, [4], threshold)
    after = with_least(before, maps, [4], least)
    there, positive = int((after == 4).sum()), int((maps > 0).sum())
    assert there >= min(int(np.ceil(least * 30)), positive)
    assert ((before == 4) <= (after == 4)).all(), "a threshold's own choice is among the best"
    if (before == 4).sum() >= least * 30:
        np.testing.assert_array_equal(before, after)
