"""The one-pass sweep equals a direct argmax with the plane of the threshold in front, at every threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.errors import DataError
from tagmask.metrics import ThresholdSweep, confusion_matrix, mean_iou
from tagmask.metrics.threshold_sweep import ScoreBins

N_CLASSES = 4


def direct(images, thresholds):
    """The definition: argmax over [plane of t, maps], first maximum wins, confusion summed over images."""
    total = np.zeros((len(thresholds), N_CLASSES + 1, N_CLASSES + 1), np.int64)
    for maps, classes, mask in images:
        names = np.concatenate([[0], np.asarray(classes, int) + 1])
        for i, t in enumerate(thresholds):
            plane = np.full((1, *mask.shape), np.float32(t), np.float32)
            labels = names[np.concatenate([plane, maps]).argmax(0)]
            total[i] += confusion_matrix(labels, mask, N_CLASSES + 1)
    return total


def random_images(seed, *, ties):
    rng = np.random.default_rng(seed)
    images = []
    for n_maps in (1, 0, 2, 3):
        maps = rng.random((n_maps, 6, 7), dtype=np.float32)
        if ties:  # scores on the grid itself and equal scores between maps
            maps = (np.round(maps * 20) / 20).astype(np.float32)
        classes = rng.permutation(N_CLASSES)[:n_maps]
        images.append((maps, classes, rng.choice([0, 1, 2, 3, 4, 255], (6, 7)).astype(np.uint8)))
    return images


def swept(images, bins):
    sweep = ThresholdSweep(N_CLASSES, bins)
    for image in images:
        sweep.update(*image)
    return sweep


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.one_of(
        st.integers(1, 300),
        st.lists(st.floats(-0.5, 1.5, width=32), min_size=1, max_size=20).map(sorted),
        st.just(list(np.arange(0.05, 0.605, 0.01))),
    ),
)
def test_equals_direct_argmax_bit_for_bit(seed, ties, bins):
    images = random_images(seed, ties=ties)
    sweep = swept(images, bins)
    expected = direct(images, sweep.thresholds)
    np.testing.assert_array_equal(sweep.confusions(), expected)
    np.testing.assert_array_equal(sweep.compute(), [mean_iou(matrix) for matrix in expected])
    occurring = [mean_iou(matrix, classes="occurring") for matrix in expected]
    np.testing.assert_array_equal(sweep.compute(classes="occurring"), occurring)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4096), st.integers(0, 2**32 - 1))
def test_bins_are_exact_next_to_every_threshold(n, seed):
    bins = ScoreBins(n)
    edges = bins.edges
    scores = np.concatenate(
        [edges, np.nextafter(edges, np.float32(-9)), np.nextafter(edges, np.float32(9)), [-3e38, 3e38, -0.0]]
    ).astype(np.float32)
    scores = np.concatenate([scores, np.random.default_rng(seed).random(64, dtype=np.float32) * 3 - 1])
    np.testing.assert_array_equal(bins(scores), np.searchsorted(edges, scores, side="left"))


def test_golden_of_irn_and_chainercv(golden):
    stored = golden("miou")
    sweep = ThresholdSweep(20, stored["thresholds"])
    for i in range(5):
        sweep.update(stored[f"cam_{i}"], stored[f"cam_class_index_{i}"], stored[f"gt_label_{i}"])
    np.testing.assert_allclose(sweep.compute(), stored["expected_miou"], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(sweep.confusions()[10], stored["expected_confusion_at_0p15"])


def test_void_as_background_is_the_same_pass():
    images = random_images(3, ties=False)
    relabelled = [(maps, classes, np.where(mask == 255, 0, mask)) for maps, classes, mask in images]
    np.testing.assert_array_equal(swept(images, 10).confusions(void="background"), swept(relabelled, 10).confusions())


def test_default_grid_and_best():
    sweep = ThresholdSweep(2)
    np.testing.assert_array_equal(sweep.thresholds, np.arange(101) / 100)
    mask = np.array([[0, 0, 1, 1]])
    sweep.update(np.array([[[0.1, 0.3, 0.4, 0.9]]], np.float32), [0], mask)
    assert sweep.best() == (0.3, 1.0)  # 0.3 itself is background; 0.40 no longer foreground
    assert sweep.compute()[39] == 1.0
    assert sweep.compute()[40] < 1.0


def test_merge_and_groups():
    images = random_images(5, ties=False)
    whole, first = swept(images, 20), swept(images[:2], 20)
    first.merge(swept(images[2:], 20))
    np.testing.assert_array_equal(first.counts, whole.counts)
    assert first.n_images == 4
    groups = whole.by_class_count(7)
    assert list(groups) == ["1", "2", "3+"]
    for i, name in ((0, "1"), (2, "2"), (3, "3+")):
        np.testing.assert_array_equal(groups[name], direct([images[i]], whole.thresholds[[7]])[0])
    with pytest.raises(ValueError, match="same classes and thresholds"):
        whole.merge(ThresholdSweep(N_CLASSES, 30))


def test_image_without_classes_is_background():
    sweep = ThresholdSweep(2, 4)
    sweep.update(np.zeros((0, 1, 3), np.float32), np.zeros(0, int), np.array([[0, 2, 255]], np.uint8))
    np.testing.assert_array_equal(sweep.confusions()[0], [[1, 0, 0], [0, 0, 0], [1, 0, 0]])
    assert sweep.n_images == 1


def test_tensors_in_other_types():
    maps, classes, mask = random_images(1, ties=False)[2]
    half = torch.from_numpy(maps).half()
    sweep, other = ThresholdSweep(N_CLASSES), ThresholdSweep(N_CLASSES)
    sweep.update(half, torch.from_numpy(classes), torch.from_numpy(mask).long())
    other.update(half.float().numpy(), classes, mask)
    np.testing.assert_array_equal(sweep.counts, other.counts)


def test_bad_input_is_refused_and_counts_nothing():
    sweep = ThresholdSweep(2)
    maps, mask = np.full((1, 2, 2), 0.5, np.float32), np.zeros((2, 2), np.uint8)
    with pytest.raises(DataError, match="holds label 7"):
        sweep.update(maps, [0], np.full((2, 2), 7, np.uint8))
    with pytest.raises(DataError, match="label -1"):
        sweep.update(maps, [0], np.full((2, 2), -1))
    with pytest.raises(DataError, match="not channels"):
        sweep.update(maps, [2], mask)
    with pytest.raises(DataError, match="hold one twice"):
        sweep.update(np.repeat(maps, 2, 0), [1, 1], mask)
    with pytest.raises(DataError, match="do not fit"):
        sweep.update(maps, [0], np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError, match="not finite"):
        sweep.update(maps * np.nan, [0], mask)
    with pytest.raises(DataError, match="must hold integers"):
        sweep.update(maps, [0], mask.astype(float))
    assert not sweep.counts.any()
    assert sweep.n_images == 0
    with pytest.raises(DataError, match="no best threshold"):
        sweep.best()


@pytest.mark.parametrize("bins", [0, [], [0.5, 0.2], [0.1, float("nan"), 0.3]])
def test_bad_thresholds(bins):
    with pytest.raises(ValueError, match=r"bins|ascending"):
        ThresholdSweep(2, bins)
