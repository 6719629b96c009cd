"""The activated area against a count by hand, its bounds, void, and the sum over ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagmask.errors import DataError
from tagmask.metrics import ActivatedArea
from tagmask.metrics.activated_area import activated_pixels


def test_by_hand() -> None:
    maps = torch.tensor([[[0.5, 0.0, 0.1], [0.0, 0.2, 0.0]]])
    mask = torch.tensor([[2, 2, 0], [2, 255, 0]])
    area = ActivatedArea(3)
    area.update(maps, np.array([1]), mask)
    assert area.counts.tolist() == [[0, 0, 0, 0], [3, 1, 2, 5], [0, 0, 0, 0]]
    assert area.recall()[1] == pytest.approx(1 / 3)
    assert area.precision()[1] == pytest.approx(1 / 2)
    assert area.extent()[1] == pytest.approx(2 / 5)
    assert np.isnan(area.recall()[[0, 2]]).all()


def test_exactly_the_threshold_is_not_activated() -> None:
    maps, mask = np.array([[[0.25, 0.5]]]), np.array([[1, 1]])
    assert activated_pixels(maps, np.array([0]), mask, threshold=0.25)[0].tolist() == [2, 1, 1, 2]


def test_a_class_counts_where_it_has_a_map() -> None:
    """Image two shows class 1 too, but was not tagged with it."""
    area = ActivatedArea(2)
    area.update(np.ones((1, 1, 2)), np.array([0]), np.array([[1, 0]]))
    area.update(np.ones((1, 1, 2)), np.array([1]), np.array([[1, 2]]))
    assert area.recall().tolist() == [1, 1]
    assert area.counts[0].tolist() == [1, 1, 2, 2]


def random_image(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    classes = rng.permutation(4)[: rng.integers(0, 4)]
    maps = np.maximum(rng.standard_normal((len(classes), 5, 6)), 0).astype(np.float32)
    return maps, classes, rng.choice([0, 1, 2, 3, 4, 255], (5, 6)).astype(np.uint8)


@given(st.integers(0, 999), st.floats(0, 2))
def test_a_higher_threshold_recalls_less(seed: int, threshold: float) -> None:
    low, high = ActivatedArea(4), ActivatedArea(4, threshold)
    for area in (low, high):
        area.update(*random_image(seed))
    assert (high.counts <= low.counts).all()
    seen = high.counts[:, 0] > 0
    assert (high.recall()[seen] <= low.recall()[seen]).all()


@given(st.integers(0, 999))
def test_everything_activated_recalls_everything(seed: int) -> None:
    maps, classes, mask = random_image(seed)
    area = ActivatedArea(4)
    area.update(maps + 1, classes, mask)
    assert (np.nan_to_num(area.recall(), nan=1) == 1).all()
    assert (area.counts[:, 2] == area.counts[:, 3]).all()


def test_ranks_add_up() -> None:
    whole, one, other = ActivatedArea(4), ActivatedArea(4), ActivatedArea(4)
    for seed in range(6):
        whole.update(*random_image(seed))
        (one if seed % 2 else other).update(*random_image(seed))
    one.merge(other)
    assert np.array_equal(one.counts, whole.counts)
    with pytest.raises(ValueError, match="same classes and threshold"):
        one.merge(ActivatedArea(4, 0.5))


@pytest.mark.parametrize(
    ("maps", "classes", "mask", "said"),
    [
        (np.ones((1, 2, 2)), [0], np.zeros((2, 3), int), "do not fit"),
        (np.ones((1, 2, 2)), [0, 1], np.zeros((2, 2), int), "do not fit"),
        (np.full((1, 2, 2), np.nan), [0], np.zeros((2, 2), int), "not finite"),
        (np.ones((1, 2, 2)), [4], np.zeros((2, 2), int), r"not channels 0\.\.3"),
        (np.ones((1, 2, 2)), [-1], np.zeros((2, 2), int), r"not channels 0\.\.3"),
    ],
)
def test_bad_input_counts_nothing(maps: object, classes: list[int], mask: object, said: str) -> None:
    area = ActivatedArea(4)
    with pytest.raises(DataError, match=said):
        area.update(maps, np.array(classes), mask)  # type: ignore[arg-type]
    assert not area.counts.any()


def test_an_image_without_maps() -> None:
    area = ActivatedArea(2)
    area.update(np.zeros((0, 2, 2)), np.zeros(0, int), np.ones((2, 2), int))
    assert not area.counts.any()
