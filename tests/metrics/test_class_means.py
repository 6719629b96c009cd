"""Mean precision and recall: over which classes, with and without the background."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tagmask.metrics.segmentation import mean_precision, mean_recall, scores

# Background, a class that is half found, one that occurs and is never predicted, one that is predicted only.
CONFUSION = np.array([[6, 2, 0, 2], [3, 3, 0, 0], [4, 0, 0, 0], [0, 0, 0, 0]])


def test_by_hand() -> None:
    assert mean_precision(CONFUSION) == pytest.approx((6 / 13 + 3 / 5 + 0) / 3)
    assert mean_precision(CONFUSION, classes="occurring") == pytest.approx((6 / 13 + 3 / 5) / 2)
    assert mean_precision(CONFUSION, classes="occurring", background=False) == pytest.approx(3 / 5)
    assert mean_recall(CONFUSION) == pytest.approx((6 / 10 + 3 / 6 + 0) / 3)
    assert mean_recall(CONFUSION, background=False) == pytest.approx((3 / 6 + 0) / 2)


def test_nothing_to_average_is_nan_and_null() -> None:
    empty = np.zeros((2, 2), np.int64)
    assert math.isnan(mean_precision(empty))
    assert math.isnan(mean_recall(empty, background=False))
    assert scores(empty, ["background", "cow"])["mean_precision"] is None


def test_scores_hold_all_four() -> None:
    result = scores(CONFUSION, ["background", "a", "b", "c"], average="union")
    assert result["mean_precision"] == mean_precision(CONFUSION)
    assert result["mean_precision_foreground"] == mean_precision(CONFUSION, background=False)
    assert result["mean_recall"] == mean_recall(CONFUSION)
    assert result["mean_recall_foreground"] == mean_recall(CONFUSION, background=False)
