"""Localisation metrics against the published code, by hand, and against brute force."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tagmask.errors import DataError
from tagmask.metrics import box_localization
from tagmask.metrics.boxes import best_iou, boxes_of_levels, contour_boxes, threshold_levels
from tagmask.metrics.localization import (
    BoxAccuracy,
    BoxErrors,
    IouCurve,
    PixelPrecision,
    class_map,
    inclusive,
    object_mask,
    outline_levels,
    published_boxes,
    scaled_boxes,
)

Golden = Callable[[str], Mapping[str, np.ndarray[Any, Any]]]
Stored = Mapping[str, Any]
N = 6  # images in the golden


@pytest.fixture(scope="module")
def published(golden: Golden) -> Stored:
    return golden("wsol_metrics")


def true_boxes(stored: Stored) -> list[np.ndarray[Any, Any]]:
    listed = stored["gt_boxes_image_xyxy"]
    return [listed[listed[:, 0] == image, 1:] for image in range(N)]


def sizes(stored: Stored) -> list[tuple[int, int]]:
    return [(int(height), int(width)) for width, height in stored["image_sizes_wh"]]


# -- the published code ------------------------------------------------------------------------------------------------


def test_outlines_are_those_of_wsolevaluation(published: Stored) -> None:
    grid, every, place = published["cam_thresholds"], published["expected_boxes_multi_contour_concatenated"], 0
    for image, scores in enumerate(published["scoremaps"]):
        levels = outline_levels(scores, grid)
        largest = published_boxes(boxes_of_levels(levels, len(grid), "contour"), scores.shape) - [0, 0, 1, 1]
        assert np.array_equal(largest, published["expected_boxes_largest_contour"][image])
        result, at = contour_boxes(levels, len(grid))
        result = published_boxes(result, scores.shape) - np.array([0, 0, 1, 1])
        for i, number in enumerate(published["expected_number_of_boxes_multi_contour"][image]):
            expected = every[place : place + number]
            place += number
            own = result[at == i] if (at == i).any() else np.zeros((1, 4), int)
            assert sorted(map(tuple, own.tolist())) == sorted(map(tuple, expected.tolist()))


def test_box_accuracy_is_that_of_wsolevaluation(published: Stored) -> None:
    counted = BoxAccuracy(published["cam_thresholds"])
    scaled = []
    for scores, boxes, size in zip(published["scoremaps"], true_boxes(published), sizes(published), strict=True):
        counted.update(scores, boxes, size)
        scaled.append(scaled_boxes(boxes, size))
    assert np.array_equal(np.concatenate(scaled), published["expected_gt_boxes_resized_xyxy"][:, 1:])
    for outcome, mode in ((counted.largest, "largest"), (counted.all, "multi")):
        expected = published[f"expected_box_accuracy_per_threshold_{mode}_contour"]
        np.testing.assert_allclose(100 * outcome / N, expected, atol=1e-4)
    result = counted.result()
    assert 100 * result["max_box_acc"] == pytest.approx(published["expected_maxboxacc_largest_contour"][1], abs=1e-4)
    v2 = 100 * result["max_box_acc_v2"]["mean"]
    assert v2 == pytest.approx(float(published["expected_maxboxacc_v2_multi_contour"]), abs=1e-4)


@pytest.mark.parametrize(("interval", "name"), [(0.01, "0p01"), (0.001, "0p001")])
def test_pixel_precision_is_that_of_wsolevaluation(published: Stored, interval: float, name: str) -> None:
    counted = PixelPrecision(interval)
    for scores, mask in zip(published["scoremaps"], published["gt_masks"], strict=True):
        counted.update(scores, mask)
    assert 100 * (counted.result() or 0) == pytest.approx(float(published[f"expected_pxap_interval_{name}"]), abs=1e-4)
    if name == "0p01":
        for row, sign in enumerate(("negative", "positive")):
            assert np.array_equal(counted.counts[row], published[f"expected_{sign}_histogram_interval_0p01"])


@pytest.mark.parametrize(("component", "mode"), [("union", "union"), ("largest", "max")])
def test_errors_are_those_of_spa(published: Stored, component: Any, mode: str) -> None:
    order = np.argsort(-published["fixed_logits"], axis=1)
    for t, threshold in enumerate(published["fixed_thresholds"]):
        for image, (boxes, size) in enumerate(zip(true_boxes(published), sizes(published), strict=True)):
            label = int(published["fixed_labels"][image])
            scores = published["fixed_class_maps"][image, label]
            result = box_localization(
                [scores],
                [inclusive(boxes)],  # that code counts the last row and column of a box as its own
                image_sizes=[size],
                ranks=[int(np.flatnonzero(order[image] == label)[0])],
                thresholds=[threshold],
                component=component,
            )
            errors = [100 * result[key] for key in ("top1", "top5", "gt_known")]
            expected = published[f"expected_fixed_top1_top5_gtknown_error_percent_{mode}"][t, image]
            assert errors == expected.tolist()
            for maps, stored in (
                ([label], published[f"expected_fixed_gtknown_class_and_box_{mode}"][t, image][None]),
                (order[image, :5], published[f"expected_fixed_top5_class_and_box_{mode}"][t, image]),
            ):
                for channel, (name, *box) in zip(maps, stored.tolist(), strict=True):
                    full = class_map(published["fixed_class_maps"][image, channel], size)
                    own = boxes_of_levels(threshold_levels(full, np.array([threshold])), 1, component)[0]
                    assert (channel, (own - [0, 0, 1, 1]).tolist()) == (name, box)


def test_boxes_of_polished_maps_are_those_of_spa(golden: Golden) -> None:
    stored = golden("scg")
    threshold = np.array([stored["box_threshold"]], np.float32)
    pairs = [("expected_cam_top5_maps", "expected_cam_top5_boxes")]
    pairs += [
        (f"expected_refined_top5_maps_{name}", f"expected_refined_top5_boxes_{name}") for name in ("cub", "ilsvrc")
    ]
    for maps, boxes in pairs:
        for scores, expected in zip(stored[maps], stored[boxes], strict=True):
            own = boxes_of_levels(threshold_levels(scores, threshold), 1)[0] - [0, 0, 1, 1]
            assert np.abs(own - expected[1:]).max() <= 1


# -- brute force -------------------------------------------------------------------------------------------------------


def components(mask: np.ndarray[Any, Any], *, eight: bool) -> list[set[tuple[int, int]]]:
    """Connected components in reading order of their first pixels."""
    left, result = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    for pixel in sorted(left):
        if pixel not in left:
            continue
        group, pending = set(), [pixel]
        while pending:
            y, x = pending.pop()
            if (y, x) not in left:
                continue
            left.discard((y, x))
            group.add((y, x))
            near = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
            pending += [(b, a) for b, a in near if eight or b == y or a == x]
        result.append(group)
    return result


def box_of(group: set[tuple[int, int]]) -> list[int]:
    ys, xs = [y for y, _ in group], [x for _, x in group]
    return [min(xs), min(ys), max(xs) + 1, max(ys) + 1]


def outline_area(group: set[tuple[int, int]], shape: tuple[int, int]) -> float:
    """Squares between four pixel centres, holes filled: whole where all four are inside, half where three are."""
    area = np.ones((shape[0] + 2, shape[1] + 2), bool)
    outside = np.ones_like(area)
    for y, x in group:
        outside[y + 1, x + 1] = False
    frame = next(part for part in components(outside, eight=False) if (0, 0) in part)
    for y, x in frame:
        area[y, x] = False
    corners = sum(area[dy : dy + shape[0] + 1, dx : dx + shape[1] + 1].astype(int) for dy in (0, 1) for dx in (0, 1))
    return float((corners == 4).sum() + (corners == 3).sum() / 2)


LEVELS = arrays.arrays(np.int32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 3))


@settings(max_examples=150)
@given(LEVELS)
def test_every_box_by_brute_force(levels: np.ndarray[Any, Any]) -> None:
    result = {component: boxes_of_levels(levels, 3, component) for component in ("union", "largest", "contour")}  # type: ignore[arg-type]
    outlines, at = contour_boxes(levels, 3)
    for i in range(3):
        mask = levels > i
        if not mask.any():
            assert not any(boxes[i].any() for boxes in result.values())
            assert not (at == i).any()
            continue
        assert result["union"][i].tolist() == box_of(set(map(tuple, np.argwhere(mask).tolist())))
        four, eight = components(mask, eight=False), components(mask, eight=True)
        assert result["largest"][i].tolist() == max(
            (box_of(group) for group in four), key=lambda b: (b[2] - b[0]) * (b[3] - b[1])
        )
        areas = [outline_area(group, mask.shape) for group in eight]
        assert result["contour"][i].tolist() == box_of(eight[int(np.argmax(areas))])
        height, width = mask.shape
        holes = [
            (np.array(box_of(gap)) + np.array([-1, -1, 1, 1])).tolist()
            for gap in components(~mask, eight=False)
            if all(0 < y < height - 1 and 0 < x < width - 1 for y, x in gap)
        ]
        assert sorted(outlines[at == i].tolist()) == sorted([*map(box_of, eight), *holes])


BOX = st.tuples(*[st.integers(0, 9)] * 4).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])


@given(st.lists(BOX, min_size=1, max_size=4), st.lists(BOX, min_size=1, max_size=3))
def test_overlap_by_counting_pixels(boxes: list[list[int]], truth: list[list[int]]) -> None:
    def pixels(box: list[int]) -> set[tuple[int, int]]:
        return {(y, x) for y in range(box[1], box[3]) for x in range(box[0], box[2])}

    result = best_iou(np.array(boxes), np.array(truth))
    for own, box in zip(result, boxes, strict=True):
        ratios = [len(pixels(box) & pixels(real)) / max(len(pixels(box) | pixels(real)), 1) for real in truth]
        assert own == pytest.approx(max(ratios))


@given(st.integers(0, 2**32 - 1))
def test_the_curve_of_overlaps_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (4, 5)).astype(np.float32) / 5
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (4, 5))
    counted = IouCurve(6)
    counted.update(scores, mask)
    if not (mask == 1).any():
        assert counted.result() is None
        return
    for t, own in zip(counted.thresholds, counted.total, strict=True):
        called, known = (scores >= t) & (mask != 255), mask == 1
        assert own == pytest.approx((called & known).sum() / (called | known).sum())


# -- by hand -----------------------------------------------------------------------------------------------------------


def square(size: int = 8, low: int = 2, high: int = 6, value: float = 1.0) -> np.ndarray[Any, Any]:
    scores = np.zeros((size, size), np.float32)
    scores[low:high, low:high] = value
    return scores


def test_a_perfect_map_has_no_error() -> None:
    result = box_localization([square(), square(low=0, high=3)], [[[2, 2, 6, 6]], [[0, 0, 3, 3]]], ranks=[0, 4])
    assert result["n_images"] == 2
    assert result["gt_known"] == result["top5"] == 0
    assert result["top1"] == 0.5  # the second image's class is only the fifth
    # At 0 the whole frame is foreground; above it, nothing but the object.
    assert result["curve"]["gt_known"][0] == 1.0
    assert result["curve"]["gt_known"][50] == 0.0


def test_the_overlap_has_to_exceed_the_limit() -> None:
    half = [[2, 2, 6, 4]]
    assert box_localization([square()], [half], thresholds=[0.5])["gt_known"] == 1.0
    assert box_localization([square()], [half], thresholds=[0.5], iou=0.49)["gt_known"] == 0.0
    assert box_localization([square()], [[*half, [0, 0, 1, 1], [2, 2, 6, 6]]], thresholds=[0.5])["gt_known"] == 0.0


def test_the_union_takes_in_what_the_largest_component_leaves_out() -> None:
    scores = square()
    scores[0, 7] = 1.0
    for component, box in (("union", [2, 0, 8, 6]), ("largest", [2, 2, 6, 6]), ("contour", [2, 2, 6, 6])):
        result = box_localization([scores], [[box]], thresholds=[0.5], component=component, iou=0.99)  # type: ignore[arg-type]
        assert result["gt_known"] == 0.0, component


def test_a_threshold_can_be_given() -> None:
    faint = square() * 0.3 + square(low=3, high=5) * 0.7
    best = box_localization([faint], [[[2, 2, 6, 6]]], thresholds=[0.2, 0.5])
    assert (best["threshold"], best["gt_known"]) == (0.2, 0.0)
    assert box_localization([faint], [[[2, 2, 6, 6]]], thresholds=[0.2, 0.5], threshold=0.5)["gt_known"] == 1.0


@pytest.mark.parametrize("boxes", [[], [[3, 3, 3, 5]], [1, 2, 3], [[4, 4, 2, 6]]])
def test_boxes_that_are_none(boxes: Any) -> None:
    with pytest.raises(DataError, match="image 0: its true boxes are"):
        box_localization([square()], [boxes])


def test_maps_that_are_none() -> None:
    with pytest.raises(DataError, match="finite"):
        class_map(np.full((2, 2), np.nan), (4, 4))
    with pytest.raises(DataError, match="do not fit"):
        box_localization([square()], [])
    with pytest.raises(ValueError, match="component"):
        box_localization([square()], [[[0, 0, 1, 1]]], component="biggest")  # type: ignore[arg-type]


def test_an_empty_map_and_a_tensor() -> None:
    assert box_localization([torch.zeros(5, 7)], [[[0, 0, 7, 5]]], thresholds=[0.0, 0.5])["curve"]["gt_known"] == [0, 1]


def test_nothing_counted() -> None:
    assert PixelPrecision().result() is None
    assert BoxErrors([0.5]).classification() is None
    assert BoxErrors([0.5]).result()["gt_known"] == 1.0
    assert BoxAccuracy().result()["max_box_acc"] == 0.0


def test_object_mask_keeps_void() -> None:
    assert object_mask(np.array([[0, 1, 2, 255]]), 2).tolist() == [[0, 0, 1, 255]]
