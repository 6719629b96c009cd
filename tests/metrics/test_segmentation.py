"""Confusion matrices and scores against hand counts, a published implementation and their own identities."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagmask.errors import DataError
from tagmask.metrics import (
    ConfusionCounter,
    confusion_matrix,
    error_decomposition,
    f1_per_class,
    iou_per_class,
    mean_f1,
    mean_iou,
    pixel_accuracy,
    precision_per_class,
    recall_per_class,
    recam_errors,
    scores,
)

TARGET = np.array([[0, 0, 1, 1], [2, 2, 255, 255]], np.uint8)
PREDICTION = np.array([[0, 1, 1, 255], [1, 2, 2, 0]], np.uint8)
EXPECTED = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])


def test_confusion_is_ground_truth_by_prediction_without_void():
    confusion = confusion_matrix(PREDICTION, TARGET, 4)
    assert confusion.dtype == np.int64
    np.testing.assert_array_equal(confusion, EXPECTED)  # the predicted 255 on class 1 is background


def test_tensors_and_other_integers_count_the_same():
    confusion = confusion_matrix(torch.from_numpy(PREDICTION).int(), torch.from_numpy(TARGET).long(), 4)
    np.testing.assert_array_equal(confusion, EXPECTED)


def test_another_ignore_index():
    confusion = confusion_matrix(np.array([1, 1, 0]), np.array([-1, 1, 1]), 2, ignore_index=-1)
    np.testing.assert_array_equal(confusion, [[0, 0], [1, 1]])


def test_class_scores_by_hand():
    np.testing.assert_allclose(iou_per_class(EXPECTED), [1 / 3, 1 / 4, 1 / 2, np.nan])
    np.testing.assert_allclose(precision_per_class(EXPECTED), [1 / 2, 1 / 3, 1, np.nan])
    np.testing.assert_allclose(recall_per_class(EXPECTED), [1 / 2, 1 / 2, 1 / 2, np.nan])
    assert pixel_accuracy(EXPECTED) == 3 / 6
    assert mean_iou(EXPECTED) == pytest.approx((1 / 3 + 1 / 4 + 1 / 2) / 3)
    assert mean_iou(EXPECTED, background=False) == pytest.approx((1 / 4 + 1 / 2) / 2)


def test_f1_by_hand():
    np.testing.assert_allclose(f1_per_class(EXPECTED), [2 / 4, 2 / 5, 2 / 3, np.nan])
    assert mean_f1(EXPECTED) == pytest.approx((2 / 4 + 2 / 5 + 2 / 3) / 3)
    assert mean_f1(EXPECTED, background=False) == pytest.approx((2 / 5 + 2 / 3) / 2)


def test_recams_outcomes_by_hand():
    """Right 3, another object 1 (beside the sum), missed 1, spilled 1; of 4 pixels marked as object 1 is background."""
    result = recam_errors(EXPECTED)
    assert result == {
        "tp": pytest.approx(3 / 5),
        "fp_object": pytest.approx(1 / 5),
        "fn": pytest.approx(1 / 5),
        "fp_background": pytest.approx(1 / 5),
        "fp_share_of_found": pytest.approx(1 / 4),
    }


def test_predicted_but_absent_class_counts_in_union_only():
    confusion = np.array([[5, 0, 1], [0, 4, 0], [0, 0, 0]])
    assert mean_iou(confusion) == pytest.approx((5 / 6 + 1 + 0) / 3)
    assert mean_iou(confusion, classes="occurring") == pytest.approx((5 / 6 + 1) / 2)


def test_nothing_to_score_is_nan_never_zero():
    empty = np.zeros((3, 3), np.int64)
    assert np.isnan(mean_iou(empty))
    assert np.isnan(pixel_accuracy(empty))
    assert np.isnan(iou_per_class(empty)).all()
    assert np.isnan(list(error_decomposition(empty).values())).all()
    only_background = np.array([[7, 0], [0, 0]])
    assert np.isnan(mean_iou(only_background, background=False))


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_errors_and_foreground_iou_sum_to_one(seed, n_classes):
    confusion = np.random.default_rng(seed).integers(0, 50, (n_classes, n_classes))
    errors = error_decomposition(confusion)
    if confusion[1:].sum() + confusion[:, 1:].sum():
        assert errors["fp"] + errors["fn"] + mean_iou(confusion, background=False) == pytest.approx(1)
    shares = ("object_as_object", "object_as_background", "background_as_object", "right")
    if confusion.sum():
        assert sum(errors[key] for key in shares) == pytest.approx(1)
        printed = recam_errors(confusion)
        if not np.isnan(printed["tp"]):
            assert printed["tp"] + printed["fn"] + printed["fp_background"] == pytest.approx(1)
            scale = 1 + printed["fp_object"]  # the four together, as the other normalisation has them
            assert errors["object_as_object"] == pytest.approx(printed["fp_object"] / scale)
            assert errors["right"] == pytest.approx(printed["tp"] / scale)


@pytest.mark.parametrize(
    ("prediction", "target", "words"),
    [
        ([[0, 1]], [[0, 3]], "ground truth holds label 3"),
        ([[0, 9]], [[0, 1]], "prediction holds label 9"),
        ([[0, 1, 1]], [[0, 1]], "differ in size"),
    ],
)
def test_bad_labels_and_sizes_are_named(prediction, target, words):
    with pytest.raises(DataError, match=words):
        confusion_matrix(np.array(prediction), np.array(target), 3)


def test_golden_of_chainercv(golden):
    stored = golden("miou")
    at_015 = np.zeros((21, 21), np.int64)
    segmentation = np.zeros((21, 21), np.int64)
    for i in range(5):
        at_015 += confusion_matrix(stored[f"expected_pred_at_0p15_{i}"], stored[f"gt_label_{i}"], 21)
        segmentation += confusion_matrix(stored[f"semseg_pred_{i}"], stored[f"gt_label_{i}"], 21)
    np.testing.assert_array_equal(at_015, stored["expected_confusion_at_0p15"])
    expected = stored["expected_semseg_iou_per_class"]
    np.testing.assert_allclose(np.nan_to_num(iou_per_class(segmentation), nan=-1), expected, rtol=0, atol=1e-9)
    assert mean_iou(segmentation) == pytest.approx(float(stored["expected_semseg_miou"]), abs=1e-9)


def test_counter_groups_images_and_keeps_void_apart():
    rng = np.random.default_rng(0)
    images = [(rng.integers(0, 3, (5, 6)), rng.choice([0, 1, 2, 255], (5, 6)), n) for n in (1, 2, 1, 5, 0)]
    whole, first, second = ConfusionCounter(3), ConfusionCounter(3), ConfusionCounter(3)
    for i, (prediction, target, n_tags) in enumerate(images):
        whole.update(prediction, target, n_tags=n_tags)
        (first if i % 2 else second).update(prediction, target, n_tags=n_tags)
    first.merge(second)
    np.testing.assert_array_equal(first.counts, whole.counts)
    assert first.n_images == whole.n_images == 5

    def direct(void_as, groups=range(10)):
        return sum(confusion_matrix(p, np.where(t == 255, void_as, t), 3) for p, t, n in images if n in groups)

    np.testing.assert_array_equal(whole.confusion(), direct(255))
    np.testing.assert_array_equal(whole.confusion("background"), direct(0))
    by_group = whole.by_class_count()
    assert list(by_group) == ["1", "2", "3+"]
    np.testing.assert_array_equal(by_group["1"], direct(255, (1,)))
    np.testing.assert_array_equal(by_group["3+"], direct(255, (5,)))


def test_scores_are_json_with_null_for_absent():
    result = scores(
        EXPECTED,
        ["background", "cow", "horse", "sheep"],
        n_images=1,
        by_class_count={"1": EXPECTED, "2": np.zeros((4, 4), np.int64)},
    )
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["iou"]["sheep"] is None
    assert result["by_class_count"]["2"] is None
    assert result["by_class_count"]["1"] == result["miou"]
    assert result["confusion"] == EXPECTED.tolist()
    with pytest.raises(ValueError, match="zip"):
        scores(EXPECTED, ["background", "cow"])
