"""The threshold without masks: exact statistic, invariances, and that it finds an object's outline."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.errors import DataError
from tagmask.functional import AutoThreshold
from tagmask.methods.threshold.automatic import colour_bins, split_information, split_variance


def mutual_information(first, second):
    """Definition: sum p log (p / (p_row p_column)), in nats."""
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first, second), 1 / first.size)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True)
    seen = table > 0
    return float((table[seen] * np.log(table[seen] / expected[seen])).sum())


def scene(seed, rim=0.4):
    """A coloured disc on another colour, both noisy; the map falls off radially and equals ``rim`` at its rim."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :50]
    distance = np.hypot(y - rng.uniform(15, 25), x - rng.uniform(18, 32)) / rng.uniform(7, 12)
    colours = rng.choice([32, 96, 160, 224], (2, 3), replace=True)
    colours[1, 0] = (colours[0, 0] + 96) % 256
    image = colours[(distance > 1).astype(int)] + rng.integers(-28, 28, (40, 50, 3))
    maps = np.clip(1 - (1 - rim) * distance, 0, 1)[None].astype(np.float32)
    return image.clip(0, 255).astype(np.uint8), maps


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 9))
def test_all_thresholds_at_once_equal_the_definition(seed, n_thresholds, n_colours):
    rng = np.random.default_rng(seed)
    colours, bins = rng.integers(0, n_colours, 60), rng.integers(0, n_thresholds + 1, 60)
    information = split_information(colours, bins, n_thresholds)
    expected = [mutual_information(colours, (bins > i).astype(int)) for i in range(n_thresholds)]
    np.testing.assert_allclose(information, expected, rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 9))
def test_explained_variance_equals_the_definition(seed, n_thresholds, n_colours):
    rng = np.random.default_rng(seed)
    colours, bins = rng.integers(0, n_colours, 60), rng.integers(0, n_thresholds + 1, 60)
    value = split_variance(colours, bins, n_thresholds)
    for i in range(n_thresholds):
        split = (bins > i).astype(float)
        told = np.array([split[colours == colour].mean() for colour in colours])  # p_c of every pixel
        expected = told.var() / max(split.std(), 0.1)
        assert value[i] == pytest.approx(expected, abs=1e-12)


def test_curve_is_the_mean_over_images():
    statistic = AutoThreshold([0.2, 0.5, 0.8], levels=4, statistic="information")
    expected = []
    for seed in range(3):
        image, maps = scene(seed)
        statistic.update(image, maps)
        colours = colour_bins(image, 4)
        expected.append(
            [mutual_information(colours, (maps[0].ravel() > np.float32(t)).astype(int)) for t in (0.2, 0.5, 0.8)]
        )
    np.testing.assert_allclose(statistic.curve(), np.mean(expected, 0), rtol=0, atol=1e-11)


def test_colour_bins_split_each_channel_evenly():
    image = np.array([[[0, 0, 31], [0, 32, 0], [255, 255, 255], [128, 0, 0]]], np.uint8)
    np.testing.assert_array_equal(colour_bins(image, 8), [0, 8, 511, 256])


@pytest.mark.parametrize("rim", [0.2, 0.4, 0.7])
@pytest.mark.parametrize("kind", ["variance", "information"])
def test_finds_the_outline(rim, kind):
    statistic = AutoThreshold(statistic=kind)
    for seed in range(10):
        statistic.update(*scene(seed, rim))
    assert statistic.choose() == pytest.approx(rim, abs=0.02)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0.3, 3))
def test_monotone_rescaling_moves_the_threshold_along(seed, power):
    grid = np.arange(1, 40) / 40
    plain, rescaled = AutoThreshold(grid), AutoThreshold(grid**power)
    for offset in range(3):
        image, maps = scene(seed + offset)
        maps = (np.floor(maps * 39) + 0.5) / 40  # away from every threshold, so that rounding decides nothing
        plain.update(image, maps)
        rescaled.update(image, maps**power)
    np.testing.assert_array_equal(plain.total, rescaled.total)
    assert rescaled.choose() == pytest.approx(plain.choose() ** power)


def test_order_and_ranks_agree_to_the_bit():
    scenes = [scene(seed) for seed in range(7)]
    whole, odd, even = AutoThreshold(), AutoThreshold(), AutoThreshold()
    for image, maps in scenes:
        whole.update(image, maps)
    for i, (image, maps) in reversed(list(enumerate(scenes))):
        (odd if i % 2 else even).update(image, torch.from_numpy(maps))
    merged = pickle.loads(pickle.dumps(odd))  # ranks hand it over
    merged.merge(even)
    np.testing.assert_array_equal(merged.total, whole.total)
    assert merged.n_images == 7
    with pytest.raises(ValueError, match="same thresholds"):
        whole.merge(AutoThreshold(50))


def test_images_that_tell_nothing_change_nothing():
    statistic, disturbed = AutoThreshold(), AutoThreshold()
    image, maps = scene(0)
    statistic.update(image, maps)
    disturbed.update(image, maps)
    disturbed.update(image, maps[:0])
    disturbed.update(image, np.full_like(maps, 0.5))
    disturbed.update(np.full_like(image, 9), maps)
    assert disturbed.n_images == 3
    np.testing.assert_array_equal(disturbed.total, statistic.total)


def test_nothing_to_choose_from_says_so():
    statistic = AutoThreshold()
    statistic.update(np.zeros((4, 4, 3), np.uint8), np.ones((1, 4, 4), np.float32))
    np.testing.assert_array_equal(statistic.curve(), 0)
    with pytest.raises(DataError, match=r"no threshold can be chosen from 1 images: every map or image is constant\."):
        statistic.choose()


def test_the_middle_of_the_plateau_is_taken():
    image = np.zeros((1, 4, 3), np.uint8)
    image[:, 2:] = 255
    statistic = AutoThreshold(10, statistic="information")
    statistic.update(image, np.array([[[0.25, 0.25, 0.85, 0.85]]], np.float32))
    assert statistic.choose() == 0.5  # 0.3 to 0.8 split alike
    assert statistic.curve().max() == pytest.approx(np.log(2))
    statistic.total[:] = [0, 985, 10, 990, 1000, 981, 995, 979, 985, 0, 0]
    assert statistic.choose() == 0.4  # 0.3 to 0.6; 0.1 and 0.8 lie beyond a valley
    statistic.total[:] = 0
    statistic.total[0] = 5
    assert statistic.choose() == 0.0


def test_maps_on_a_coarser_grid_are_stretched():
    image, maps = scene(1)
    coarse = torch.from_numpy(maps)[:, ::2, ::2]
    full = torch.nn.functional.interpolate(coarse[None], size=image.shape[:2], mode="bilinear")[0]
    statistic, other = AutoThreshold(), AutoThreshold()
    statistic.update(image, coarse)
    other.update(image, full)
    np.testing.assert_array_equal(statistic.total, other.total)


def test_refusals():
    image, maps = scene(0)
    with pytest.raises(DataError, match="uint8"):
        AutoThreshold().update(image[..., 0], maps)
    with pytest.raises(DataError, match="not finite"):
        AutoThreshold().update(image, maps * np.nan)
    with pytest.raises(ValueError, match="ascending"):
        AutoThreshold([0.5, 0.1])
    with pytest.raises(ValueError, match="levels"):
        AutoThreshold(levels=64)
    with pytest.raises(ValueError, match="statistic"):
        AutoThreshold(statistic="entropy")
    with pytest.raises(ValueError, match="kind"):
        AutoThreshold().merge(AutoThreshold(statistic="information"))


def test_a_guide_moves_its_share_of_pixels_to_the_maps() -> None:
    """Maps that light up a part only: the guide knows the outline, the maps are cut where they mark as much."""
    image = np.full((40, 40, 3), 40, np.uint8)
    image[10:30, 10:30] = (220, 30, 30)
    y, x = np.mgrid[:40, :40]
    blob = np.exp(-((y - 12.0) ** 2 + (x - 20.0) ** 2) / 200)[None].astype(np.float32)
    guide = np.where(image[..., 0] > 100, 0.8, 0.1)[None].astype(np.float32)
    guided = AutoThreshold()
    guided.update(image, blob, guide=guide)
    assert (blob > guided.choose()).mean() == pytest.approx(0.25, abs=0.02)
    same = AutoThreshold()
    same.update(image, blob, guide=blob)
    alone = AutoThreshold()
    alone.update(image, blob)
    assert same.choose() == alone.choose()
