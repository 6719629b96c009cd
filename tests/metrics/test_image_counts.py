"""Counts of single images: sums are those of the split, nothing is lost on the way to a file, scores by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tagmask.errors import DataError
from tagmask.metrics import ConfusionCounter, ImageCounts, by_object_size
from tagmask.metrics.counting import confusion_with_void
from tagmask.metrics.mask_scores import image_table
from tagmask.metrics.object_size import object_shares

VOIDS = ("ignored", "background")


def counts_of(pairs, n_classes=3, ids=None):
    ids = ids or [str(place) for place in range(len(pairs))]
    return ImageCounts.of(ids, [confusion_with_void(*map(np.asarray, pair), n_classes) for pair in pairs], n_classes)


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 3, (6, 7)), rng.choice([0, 1, 2, 255], (6, 7))) for _ in range(5)]


@pytest.mark.parametrize("void", VOIDS)
def test_sums_are_those_of_the_split(pairs, void):
    counter = ConfusionCounter(3)
    for prediction, target in pairs:
        counter.update(prediction, target, n_tags=1)
    counts = counts_of(pairs)
    np.testing.assert_array_equal(counts.confusion(void), counter.confusion(void))
    areas = counts.areas(void)
    np.testing.assert_array_equal(areas.hits.sum(0), np.diagonal(counter.confusion(void)))
    np.testing.assert_array_equal(areas.truth.sum(0), counter.confusion(void).sum(1))
    np.testing.assert_array_equal(areas.prediction.sum(0), counter.confusion(void).sum(0))


def test_arrays_hold_everything(pairs):
    counts = counts_of(pairs)
    again = ImageCounts.from_arrays(counts.ids, 3, counts.arrays())
    np.testing.assert_array_equal(again.areas().union, counts.areas().union)
    assert again.ids == counts.ids
    with pytest.raises(DataError, match="do not fit"):
        ImageCounts.from_arrays(counts.ids[1:], 3, counts.arrays())
    with pytest.raises(DataError, match="do not fit"):
        ImageCounts.from_arrays(counts.ids, 2, counts.arrays())


def test_taken_images_keep_their_counts_in_the_order_asked_for(pairs):
    counts = counts_of([*pairs, (np.zeros((0, 0), int), np.zeros((0, 0), int))])
    taken = counts.take([3, 5, 0])
    assert taken.ids == ("3", "5", "0")
    assert taken.scored.tolist() == [True, False, True]
    np.testing.assert_array_equal(taken.areas().hits, counts.areas().hits[[3, 5, 0]])
    assert len(ImageCounts.of((), (), 3)) == 0


def test_miou_of_images_and_their_order():
    counts = counts_of(
        [([[0, 1, 1, 0]], [[0, 1, 0, 255]]), ([[0, 2]], [[0, 2]]), ([[1]], [[255]])], ids=["half", "right", "void"]
    )
    np.testing.assert_allclose(counts.image_miou(), [(1 / 2 + 1 / 2) / 2, 1, np.nan])
    np.testing.assert_allclose(counts.image_miou("background"), [(2 / 3 + 1 / 2) / 2, 1, 0])
    assert image_table(counts) == [("half", 0.5, pytest.approx(2 / 3)), ("right", 1.0, 1.0), ("void", None, None)]


def test_scores_by_size_by_hand():
    """Class 1 covers 1/100 (found) and 1/2 (half of it found), class 2 covers 1/4 (missed, marked elsewhere)."""
    rows = [np.zeros(100, int) for _ in range(6)]
    rows[0][:1] = rows[1][:1] = 1
    rows[2][:50] = 1
    rows[3][:25] = 1
    rows[4][:25] = 2
    rows[5][50:60] = 2
    counts = counts_of([(rows[1], rows[0]), (rows[3], rows[2]), (rows[5], rows[4])])
    np.testing.assert_allclose(object_shares(counts.areas()), [[0.01, np.nan], [0.5, np.nan], [np.nan, 0.25]])
    result = by_object_size(counts)
    assert result["shares"] == {
        "below 1 %": {"objects": 0, "miou": None, "recall": None},
        "1 to 5 %": {"objects": 1, "miou": 1.0, "recall": 1.0},
        "5 to 20 %": {"objects": 0, "miou": None, "recall": None},
        "from 20 %": {"objects": 2, "miou": 0.25, "recall": 0.25},
    }
    assert result["quarter_bounds"] == pytest.approx([0.13, 0.25, 0.375])
    quarters = list(result["quarters"].values())
    assert [group["objects"] for group in quarters] == [1, 0, 1, 1]
    assert [group["miou"] for group in quarters] == [1.0, None, 0.0, 0.5]


def test_without_objects_all_groups_are_empty():
    result = by_object_size(counts_of([([[0]], [[0]])]))
    assert result["quarter_bounds"] == []
    assert {group["miou"] for part in ("shares", "quarters") for group in result[part].values()} == {None}
