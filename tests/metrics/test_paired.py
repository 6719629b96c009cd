"""The paired bootstrap: nothing for equal runs, the direct computation of a draw, and images matched by id."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmask.errors import DataError
from tagmask.metrics import ImageCounts, mean_iou, paired_bootstrap

N = 3


def images(seed: int, n: int = 8, *, right: int = 40) -> ImageCounts:
    rng = np.random.default_rng(seed)
    confusions = rng.integers(0, 12, (n, N + 1, N)) * (rng.random((n, N + 1, 1)) < 0.7)
    confusions[:, np.arange(N), np.arange(N)] += right * confusions[:, :N].any(2)
    return ImageCounts.of([f"i{place}" for place in range(n)], confusions, N)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["ignored", "background"]), st.sampled_from(["occurring", "union"]))
def test_equal_runs_do_not_differ(seed, void, average):
    counts = images(seed)
    result = paired_bootstrap(counts, counts, void=void, average=average, draws=20)
    for interval in (result.difference, *result.by_class):
        assert np.isnan(interval.value) or (interval.value, interval.low, interval.high) == (0, 0, 0)
        assert not interval.excludes_zero
    assert not result.image_differences[~np.isnan(result.image_differences)].any()


@pytest.mark.parametrize("average", ["occurring", "union"])
def test_values_and_intervals_are_those_of_drawing_images_one_by_one(average):
    first, second = images(0), images(1)
    result = paired_bootstrap(first, second, average=average, draws=70, seed=3)
    miou = [mean_iou(counts.confusion(), classes=average) for counts in (first, second)]
    np.testing.assert_allclose(result.miou, miou)
    assert result.difference.value == pytest.approx(miou[1] - miou[0])
    rng, differences = np.random.default_rng(3), []
    for start in (0, 64):
        for chosen in rng.integers(0, 8, (min(64, 70 - start), 8)):
            drawn = [mean_iou(counts.take(chosen).confusion(), classes=average) for counts in (first, second)]
            differences.append(drawn[1] - drawn[0])
    low, high = np.percentile(differences, [2.5, 97.5])
    assert (result.difference.low, result.difference.high) == (pytest.approx(low), pytest.approx(high))
    again = paired_bootstrap(first, second, average=average, draws=70, seed=3)
    assert again.difference == result.difference


def test_a_clear_gain_is_told_from_chance():
    result = paired_bootstrap(images(0, 30, right=0), images(0, 30, right=200), draws=200)
    assert result.difference.excludes_zero
    assert result.difference.low > 0
    order = result.image_differences[result.order()]
    assert (np.diff(order) >= 0).all()


def test_only_images_of_both_are_compared_and_matched_by_name():
    first, second = images(0), images(1)
    turned = second.take([7, 2, 5])
    result = paired_bootstrap(first, turned, draws=5)
    assert result.ids == ("i2", "i5", "i7")
    direct = paired_bootstrap(first.take([2, 5, 7]), second.take([2, 5, 7]), draws=5)
    assert result.difference == direct.difference


def test_what_cannot_be_compared():
    with pytest.raises(DataError, match="no image was scored in both"):
        paired_bootstrap(images(0), ImageCounts.of(["other"], [np.ones((N + 1, N), np.int64)], N))
    with pytest.raises(DataError, match="classes"):
        paired_bootstrap(images(0), ImageCounts.of(["i0"], [np.ones((3, 2), np.int64)], 2))
    with pytest.raises(ValueError, match="draws"):
        paired_bootstrap(images(0), images(0), draws=0)
