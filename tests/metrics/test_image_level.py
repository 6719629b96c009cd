"""Scores of whole images by hand: clean ones, false alarms, the ROC of marked shares."""

from __future__ import annotations

import numpy as np
import pytest

from tagmask.metrics import ImageCounts, image_level, roc_auc
from tagmask.metrics.counting import confusion_with_void

NAMES = ("background", "x", "y")


def counts_of(pairs):
    matrices = [confusion_with_void(np.asarray(prediction), np.asarray(truth), 3) for prediction, truth in pairs]
    return ImageCounts.of([str(place) for place in range(len(pairs))], matrices, 3)


def test_auc_is_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 40), rng.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert roc_auc(scores, positive) == pytest.approx(np.mean(pairs))
    assert roc_auc(-scores, positive) == pytest.approx(1 - np.mean(pairs))
    assert roc_auc(np.exp(scores), positive) == roc_auc(scores, positive), "only the order counts"


def test_auc_at_its_ends() -> None:
    marks = np.array([True, True, False])
    assert roc_auc(np.array([3, 2, 1]), marks) == 1
    assert roc_auc(np.array([1, 2, 3]), marks) == 0
    assert roc_auc(np.zeros(3), marks) == 0.5
    assert np.isnan(roc_auc(np.zeros(3), np.ones(3, bool)))
    assert np.isnan(roc_auc(np.zeros(0), np.zeros(0, bool)))
    for scores in (np.zeros(2), np.array([0, np.nan, 1])):
        with pytest.raises(ValueError, match="roc_auc needs"):
            roc_auc(scores, marks)


def test_clean_images_and_false_alarms() -> None:
    result = image_level(
        counts_of([
            ([[0, 0, 0, 0]], [[0, 0, 0, 0]]),  # clean, left clean
            ([[1, 0, 0, 0]], [[0, 0, 0, 0]]),  # clean, a false alarm of x
            ([[1, 1, 0, 0]], [[1, 0, 0, 0]]),  # x, noticed
            ([[0, 0, 0, 0]], [[2, 2, 2, 2]]),  # y, missed
        ]),
        NAMES,
    )  # fmt: skip
    assert (result["images"], result["clean_images"]) == (4, 2)
    assert result["left_clean"] == 0.5
    assert result["left_clean_by_class"] == {"x": 0.5, "y": 1.0}
    assert result["false_alarm_area"] == 1 / 8
    assert result["objects_noticed"] == 0.5
    assert result["auc"] == {"x": 1.0, "y": 0.5}
    assert result["auc_mean"] == 0.75
    # Shares 0.5 and 0 against 0 and 0.25: one pair right, one tied, one right, one wrong.
    assert result["auc_any"] == (1 + 1 + 0.5 + 0) / 4


def test_void_is_no_object_and_a_void_image_says_nothing() -> None:
    pairs = [([[1, 0]], [[255, 0]]), ([[1, 1]], [[255, 255]]), ([[0, 1]], [[0, 1]])]
    ignored, background = (image_level(counts_of(pairs), NAMES, void) for void in ("ignored", "background"))
    assert (ignored["images"], ignored["left_clean"], ignored["false_alarm_area"]) == (2, 1.0, 0.0)
    assert (background["images"], background["left_clean"], background["false_alarm_area"]) == (3, 0.0, 3 / 4)


def test_without_clean_images_there_is_nothing_to_tell() -> None:
    result = image_level(counts_of([([[1]], [[1]])]), NAMES)
    assert result["clean_images"] == 0
    for key in ("left_clean", "false_alarm_area", "auc_any", "auc_mean"):
        assert result[key] is None
    assert result["left_clean_by_class"] == {"x": None, "y": None}
    assert result["objects_noticed"] == 1
    assert image_level(counts_of([]), NAMES)["objects_noticed"] is None
