"""Boundary IoU against the authors' way (erosion by 3x3, class by class), hand counts and its own identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagmask.errors import DataError
from tagmask.metrics import BoundaryCounts, boundary_counts, boundary_iou
from tagmask.metrics.boundary import boundary_width, near_outline

N = 4


def band(mask: np.ndarray, width: int) -> np.ndarray:
    """mask_to_boundary of the authors: a ring of zeros around the image, ``width`` erosions by 3x3, the difference."""
    eroded = np.pad(mask, 1)
    for _ in range(width):
        shifts = [np.roll(eroded, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        inner = np.logical_and.reduce(shifts)[1:-1, 1:-1]
        eroded = np.pad(inner, 1)
    return mask & ~eroded[1:-1, 1:-1]


def by_definition(prediction: np.ndarray, target: np.ndarray, ratio: float, void: str) -> np.ndarray:
    target, prediction = target.copy(), np.where(prediction == 255, 0, prediction)
    if void == "background":
        target[target == 255] = 0
    else:
        prediction[target == 255] = 255
    width = boundary_width(target.shape, ratio)
    result = []
    for c in range(N):
        truth, guess = band(target == c, width), band(prediction == c, width)
        union = (truth | guess).sum()
        result.append((truth & guess).sum() / union if union else np.nan)
    return np.array(result)


def blocks(rng: np.random.Generator, height: int, width: int, values: list[int]) -> np.ndarray:
    coarse = rng.choice(values, (-(-height // 5), -(-width // 5)))
    return np.kron(coarse, np.ones((5, 5), int))[:height, :width].astype(np.uint8)


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.001, 0.04, 0.12, 0.9]),
    st.sampled_from(["ignored", "background"]),
)  # fmt: skip
def test_as_by_erosion_of_each_class(seed, height, width, ratio, void):
    rng = np.random.default_rng(seed)
    target = blocks(rng, height, width, [0, 1, 2, 3, 255])
    prediction = np.roll(blocks(rng, height, width, [0, 1, 2, 255]), rng.integers(0, 5), 1)
    np.testing.assert_allclose(
        boundary_iou(prediction, target, N, ratio=ratio, void=void), by_definition(prediction, target, ratio, void)
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30))
def test_what_is_right_outside_of_void_has_boundary_iou_one(seed, height, width):
    rng = np.random.default_rng(seed)
    target = blocks(rng, height, width, [0, 1, 2, 255])
    prediction = np.where(target == 255, rng.choice([0, 1, 2, 3], target.shape), target)
    result = boundary_iou(prediction, target, N)
    present = np.isin(np.arange(N), target)
    assert (result[present] == 1).all()
    assert np.isnan(result[~present]).all()


def test_a_shifted_square_by_hand():
    """A 10x10 square in 100x100, bands of 3 around holes of 4x4, moved by a column: 90 shared, less 5x4 in a hole."""
    target, prediction = np.zeros((100, 100), int), np.zeros((100, 100), int)
    target[40:50, 40:50] = 1
    prediction[40:50, 41:51] = 1
    assert boundary_width((100, 100)) == 3
    counts = boundary_counts(prediction, target, 2)
    assert (counts.truth[1], counts.prediction[1]) == (84, 84)
    assert counts.hits[1] == 70
    assert counts.iou()[1] == pytest.approx(70 / 98)


def test_the_trimap_is_the_confusion_near_outlines_of_the_truth():
    target = np.zeros((50, 60), np.uint8)
    target[:, 30:] = 1
    prediction = np.zeros_like(target)
    width = boundary_width((50, 60))
    counts = boundary_counts(prediction, target, 2)
    np.testing.assert_array_equal(counts.trimap, [[50 * width, 0], [50 * width, 0]])  # the image's border is no outline
    np.testing.assert_array_equal(near_outline(target, width)[7], np.abs(np.arange(60) - 29.5) < width)


def test_sums_over_images_and_tensors():
    rng = np.random.default_rng(0)
    pairs = [(blocks(rng, 30, 20, [0, 1, 2]), blocks(rng, 30, 20, [0, 1, 2, 255])) for _ in range(3)]
    total = BoundaryCounts.none(N)
    for prediction, target in pairs:
        total = total + boundary_counts(torch.from_numpy(prediction), torch.from_numpy(target).long(), N)
    single = [boundary_counts(*pair, N) for pair in pairs]
    np.testing.assert_array_equal(total.hits, sum(part.hits for part in single))
    np.testing.assert_array_equal(total.trimap, sum(part.trimap for part in single))
    assert np.isnan(total.iou()[3])


def test_wrong_masks_are_errors():
    with pytest.raises(DataError, match="differ in size"):
        boundary_iou(np.zeros((2, 3)), np.zeros((3, 2)), N)
    with pytest.raises(DataError, match="label 7"):
        boundary_iou(np.full((2, 2), 7, np.uint8), np.zeros((2, 2), np.uint8), N)
    with pytest.raises(DataError, match=r"masks \[H, W\]"):
        boundary_iou(np.zeros(4, np.uint8), np.zeros(4, np.uint8), N)


def test_as_many_classes_as_a_mask_can_hold():
    target = np.array([[0, 254, 255]], np.uint8)
    result = boundary_iou(np.array([[0, 254, 7]], np.uint8), target, 255)
    assert (result[0], result[254]) == (1, 1)
    assert np.isnan(result[7]), "what is predicted in void does not count"
