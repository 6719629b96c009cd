"""Scores by direct counting: IoU and its means, threshold sweep, boundaries, boxes, calibration, paired bootstrap."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formulas import bilinear, close
from tagmask.functional import AutoThreshold, maps_to_labels, relative_margin
from tagmask.metrics import (
    ActivatedArea,
    ImageCounts,
    ThresholdSweep,
    boundary_counts,
    boundary_iou,
    box_localization,
    calibration,
    confusion_matrix,
    error_decomposition,
    iou_per_class,
    mean_iou,
    mean_precision,
    mean_recall,
    paired_bootstrap,
    pixel_accuracy,
    recam_errors,
)
from tagmask.metrics.counting import confusion_with_void

Masks = tuple[np.ndarray, np.ndarray]


def masks(seed: int, classes: int = 4, size: tuple[int, int] = (6, 7)) -> Masks:
    """A prediction and a ground truth, both with 255; the last class never occurs in the truth."""
    rng = np.random.default_rng(seed)
    prediction = rng.choice([*range(classes), 255], size).astype(np.uint8)
    truth = rng.choice([*range(classes - 1), 255], size).astype(np.uint8)
    return np.where(rng.random(size) < 0.5, truth % 255, prediction).astype(np.uint8), truth


def counted(prediction: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    result = np.zeros((classes, classes), int)
    for p, g in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if g != 255:
            result[g, 0 if p == 255 else p] += 1
    return result


def ious(confusion: np.ndarray) -> list[float]:
    result = []
    for c in range(len(confusion)):
        hits = confusion[c, c]
        union = confusion[c].sum() + confusion[:, c].sum() - hits
        result.append(hits / union if union else math.nan)
    return result


@given(st.integers(0, 9999))
def test_the_confusion_matrix_and_its_scores(seed: int) -> None:
    prediction, truth = masks(seed)
    expected = counted(prediction, truth, 4)
    confusion = confusion_matrix(prediction, truth, 4)
    assert (confusion == expected).all()
    own = ious(expected)
    np.testing.assert_allclose(iou_per_class(confusion), own)
    known = [c for c in range(4) if not math.isnan(own[c])]
    assert mean_iou(confusion) == pytest.approx(np.mean([own[c] for c in known]))
    occurring = [c for c in known if expected[c].sum()]
    assert mean_iou(confusion, classes="occurring") == pytest.approx(np.mean([own[c] for c in occurring]))
    objects = [own[c] for c in known if c]
    assert mean_iou(confusion, background=False) == pytest.approx(
        np.mean(objects) if objects else math.nan, nan_ok=True
    )
    assert pixel_accuracy(confusion) == pytest.approx(sum(expected[c, c] for c in range(4)) / expected.sum())
    predicted = [c for c in range(4) if expected[:, c].sum()]
    assert mean_precision(confusion) == pytest.approx(
        np.mean([expected[c, c] / expected[:, c].sum() for c in predicted])
    )
    present = [c for c in range(4) if expected[c].sum()]
    assert mean_recall(confusion) == pytest.approx(np.mean([expected[c, c] / expected[c].sum() for c in present]))


@given(st.integers(0, 9999), st.permutations(range(1, 4)))
def test_scores_do_not_see_the_names_of_classes_nor_a_mirror(seed: int, order: list[int]) -> None:
    prediction, truth = masks(seed)
    table = np.arange(256)
    table[1:4] = order
    plain = confusion_matrix(prediction, truth, 4)
    moved = confusion_matrix(table[prediction][:, ::-1], table[truth][:, ::-1], 4)
    assert mean_iou(moved) == pytest.approx(mean_iou(plain))
    assert (moved[np.ix_(table[:4], table[:4])] == plain).all()


@given(st.integers(0, 9999))
def test_what_is_wrong_adds_up(seed: int) -> None:
    prediction, truth = masks(seed)
    confusion = counted(prediction, truth, 4)
    errors = error_decomposition(confusion)
    foreground = [c for c in range(1, 4) if confusion[c].sum() + confusion[:, c].sum()]
    unions = [confusion[c].sum() + confusion[:, c].sum() - confusion[c, c] for c in range(4)]
    assert errors["fp"] == pytest.approx(np.mean([1 - confusion[c].sum() / unions[c] for c in foreground]))
    assert errors["fn"] == pytest.approx(np.mean([1 - confusion[:, c].sum() / unions[c] for c in foreground]))
    assert errors["fp"] + errors["fn"] + np.mean([ious(confusion)[c] for c in foreground]) == pytest.approx(1)
    parts = {"tp": 0, "fn": 0, "fp_background": 0, "fp_object": 0}
    for g, p in product(range(4), range(4)):
        name = "tp" if g == p else "fn" if p == 0 else "fp_background" if g == 0 else "fp_object"
        parts[name] += int(confusion[g, p])
    total = parts["tp"] + parts["fn"] + parts["fp_background"]  # ReCAM's Table S3 leaves fp_object out
    shares = recam_errors(confusion)
    for name, value in parts.items():
        assert shares[name] == pytest.approx(value / total), name


def images(seed: int, count: int = 5) -> list[tuple[np.ndarray, list[int], np.ndarray]]:
    """Maps of some classes, with values on thresholds, and masks with void; one image without a class."""
    rng = np.random.default_rng(seed)
    result = []
    for number in range(count):
        channels = sorted(rng.choice(3, number % 4, replace=False).tolist())
        maps = rng.choice([0.0, 0.05, 0.1, 0.13, 0.5, 0.77, 1.0], (len(channels), 4, 5)).astype(np.float32)
        result.append((maps, channels, rng.choice([0, 1, 2, 3, 255], (4, 5)).astype(np.uint8)))
    return result


@settings(max_examples=20)
@given(st.integers(0, 9999), st.sampled_from([20, 100, (0.0, 0.1, 0.13, 0.5, 0.9)]))
def test_the_sweep_is_an_evaluation_at_every_threshold(seed: int, bins: Any) -> None:
    sweep, split = ThresholdSweep(3, bins), images(seed)
    for maps, channels, mask in split:
        sweep.update(maps, channels, mask)
    curve = []
    for i, threshold in enumerate(sweep.thresholds):
        expected = np.zeros((4, 4), int)
        for maps, channels, mask in split:
            labels = np.zeros(mask.shape, int)
            for y, x in np.ndindex(*mask.shape):
                scores = [np.float32(threshold), *maps[:, y, x]]
                winner = int(np.argmax(scores))
                labels[y, x] = channels[winner - 1] + 1 if winner else 0
            expected += counted(labels, mask, 4)
        assert (sweep.confusions()[i] == expected).all(), threshold
        curve.append(np.nanmean(ious(expected)))
    close(sweep.compute(), curve, 1e-12)
    assert sweep.best()[1] == pytest.approx(max(curve))
    assert sweep.best()[0] == pytest.approx(sweep.thresholds[int(np.argmax(curve))])


def test_images_are_grouped_by_their_number_of_classes() -> None:
    sweep, split = ThresholdSweep(3, 10), images(1, 8)
    for maps, channels, mask in split:
        sweep.update(maps, channels, mask)
    for group, numbers in {"1": [1], "2": [2], "3+": [3]}.items():
        expected = np.zeros((4, 4), int)
        for maps, channels, mask in split:
            if len(channels) in numbers:
                expected += counted(maps_to_labels(maps, [c + 1 for c in channels], 0.5), mask, 4)
        assert (sweep.by_class_count(5)[group] == expected).all(), group


def eroded(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels whose whole square of 2 width + 1 is in the mask; beyond the image there is nothing."""
    result = np.zeros_like(mask)
    for y, x in np.ndindex(*mask.shape):
        inside = width <= y < mask.shape[0] - width and width <= x < mask.shape[1] - width
        result[y, x] = inside and mask[y - width : y + width + 1, x - width : x + width + 1].all()
    return result


@pytest.mark.parametrize("ratio", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_boundary_iou_is_the_iou_of_what_erosion_takes(ratio: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.choice([0, 1, 2, 255], (3, 4), p=[0.4, 0.3, 0.2, 0.1]), np.ones((6, 5))).astype(np.uint8)
    prediction = np.where(rng.random(truth.shape) < 0.9, np.roll(truth, 1, axis=1) % 255, 1).astype(np.uint8)
    width = max(1, round(ratio * math.hypot(*truth.shape)))
    known = truth != 255
    expected = []
    for label in range(3):
        bands = []
        for mask in (truth == label, (prediction == label) & known):  # void is a region of its own in both
            bands.append(mask & ~eroded(mask, width))
        union = (bands[0] | bands[1]).sum()
        expected.append((bands[0] & bands[1]).sum() / union if union else math.nan)
    np.testing.assert_allclose(boundary_iou(prediction, truth, 3, ratio=ratio), expected)


def test_the_trimap_is_a_band_around_outlines_of_the_truth_on_either_side() -> None:
    truth, prediction = np.zeros((9, 12), np.uint8), np.zeros((9, 12), np.uint8)
    truth[2:7, 3:9], prediction[3:8, 4:9] = 1, 1
    width = max(1, round(0.1 * math.hypot(9, 12)))
    expected = np.zeros((2, 2), int)
    for y, x in np.ndindex(9, 12):
        window = truth[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        if window.min() != window.max():
            expected[truth[y, x], prediction[y, x]] += 1
    assert (boundary_counts(prediction, truth, 2, ratio=0.1).trimap == expected).all()


def components(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """4-connected, in reading order."""
    left, parts = {tuple(place) for place in np.argwhere(mask).tolist()}, []
    while left:
        part, stack = [], [min(left)]
        left.discard(stack[0])
        while stack:
            y, x = stack.pop()
            part.append((y, x))
            for place in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if place in left:
                    left.discard(place)
                    stack.append(place)
        parts.append(part)
    return parts


def box_of(places: list[tuple[int, int]]) -> tuple[int, int, int, int]:
    ys, xs = [y for y, _ in places], [x for _, x in places]
    return min(xs), min(ys), max(xs) + 1, max(ys) + 1


def overlap(first: Any, second: Any) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    common = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return common / (sum(areas) - common)


@pytest.mark.parametrize("component", ["union", "largest"])
@pytest.mark.parametrize("seed", range(3))
def test_localisation_errors_by_direct_counting(component: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, size, thresholds = 12, (9, 12), np.array([0.05, 0.2, 0.35, 0.5, 0.75])
    maps, boxes, ranks = [], [], []
    for _ in range(n):
        y, x = rng.integers(0, 2), rng.integers(0, 2)
        grid = rng.random((3, 4)) * 0.7
        grid[y : y + 2, x : x + 2] += 0.6
        maps.append(3 * grid - 1)  # any scale
        boxes.append(np.array([[3 * x, 3 * y, 3 * x + 6, 3 * y + 6], [0, 0, 2, 2]]))
        ranks.append(int(rng.integers(0, 8)))
    result = box_localization(
        maps, boxes, image_sizes=[size] * n, ranks=ranks, thresholds=thresholds, component=component
    )
    right = np.zeros((3, len(thresholds)))
    for scores, truth, rank in zip(maps, boxes, ranks, strict=True):
        full = bilinear(((scores - scores.min()) / (scores.max() - scores.min()))[None], size)[0]
        for i, threshold in enumerate(thresholds):
            parts = components(full >= threshold)
            if component == "union":
                candidates = [box_of([place for part in parts for place in part])]
            else:
                found = [box_of(part) for part in parts]
                candidates = [max(found, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))]
            hit = max(overlap(candidates[0], one) for one in truth) > 0.5
            right[:, i] += [hit, hit and rank < 1, hit and rank < 5]
    for row, name in enumerate(("gt_known", "top1", "top5")):
        close(result["curve"][name], 1 - right[row] / n, 1e-12)
    best = int(np.argmax(right[0]))
    assert result["threshold"] == pytest.approx(thresholds[best])
    assert 0 < right[0].max() < n, "the case holds right and wrong boxes"


def test_a_box_at_exactly_half_is_wrong() -> None:
    maps = [np.array([[1.0, 1.0, 0.0, 0.0]])]
    result = box_localization(maps, [np.array([[0, 0, 4, 1]])], thresholds=[0.5])
    assert result["gt_known"] == 1.0
    assert box_localization(maps, [np.array([[0, 0, 3, 1]])], thresholds=[0.5])["gt_known"] == 0.0


@pytest.mark.parametrize("threshold", [0.3, 0.55])
@pytest.mark.parametrize("void", ["ignored", "background"])
def test_calibration_pixel_by_pixel(threshold: float, void: Any) -> None:
    sweep, split = ThresholdSweep(3, 100), images(3, 12)
    pixels: list[tuple[float, bool, bool]] = []  # score, of its class, background
    for maps, channels, drawn_mask in split:
        # An image without a class shows none.
        mask = drawn_mask if channels else np.where(drawn_mask == 255, 255, 0)
        sweep.update(maps, channels, mask)
        for y, x in np.ndindex(*mask.shape):
            label = int(mask[y, x])
            if label == 255 and void == "ignored":
                continue
            label = 0 if label == 255 else label
            winner = int(maps[:, y, x].argmax()) if len(channels) else -1
            score = float(maps[winner, y, x]) if len(channels) else 0.0
            step = math.ceil(round(100 * score, 6))  # the middle of the sweep's bin stands for all scores in it
            middle = 0.0 if step == 0 else (step - 0.5) / 100
            pixels.append((middle, bool(len(channels)) and label == channels[winner] + 1, label == 0))

    def error(values: list[tuple[float, bool]]) -> float:
        total = 0.0
        for k in range(20):
            inside = [one for one in values if (k / 20 < one[0] <= (k + 1) / 20) or (k == 0 and one[0] == 0)]
            if inside:
                accuracy = np.mean([right for _, right in inside])
                total += len(inside) / len(values) * abs(accuracy - np.mean([score for score, _ in inside]))
        return total

    result = calibration(sweep.counts.sum(0), sweep.thresholds, threshold=threshold, void=void)
    assert result["ece"] == pytest.approx(error([(s, own) for s, own, _ in pixels]), abs=1e-9)
    labels = [(s, own) if s > threshold else (1 - s, empty) for s, own, empty in pixels]
    assert result["label_ece"] == pytest.approx(error(labels), abs=1e-9)
    assert sum(result["pixels"]) == pytest.approx(1)


def counts_of(seed: int, n: int) -> tuple[ImageCounts, list[np.ndarray]]:
    parts = [confusion_with_void(*masks(seed + i, size=(4, 5)), 4) for i in range(n)]
    return ImageCounts.of([f"image {i}" for i in range(n)], parts, 4), parts


@pytest.mark.parametrize("average", ["occurring", "union"])
def test_the_paired_bootstrap_draws_the_same_images_for_both(average: Any) -> None:
    n, draws = 9, 200
    (first, one), (second, other) = counts_of(0, n), counts_of(100, n)
    # The truth must be shared; only the prediction differs.
    other = [confusion_with_void(masks(100 + i, size=(4, 5))[0], masks(i, size=(4, 5))[1], 4) for i in range(n)]
    second = ImageCounts.of(first.ids, other, 4)

    def miou(parts: list[np.ndarray], places: Any) -> float:
        total = sum(parts[i][:-1] for i in places)
        own = ious(total)
        return float(np.mean([own[c] for c in range(4) if not math.isnan(own[c])
                              and (average == "union" or total[c].sum())]))  # fmt: skip

    result = paired_bootstrap(first, second, average=average, draws=draws, seed=5)
    expected = miou(other, range(n)) - miou(one, range(n))
    assert result.difference.value == pytest.approx(expected)
    rng, sample = np.random.default_rng(5), []
    left = draws
    while left:  # drawn by 64
        for row in rng.integers(0, n, (min(64, left), n)):
            sample.append(miou(other, row) - miou(one, row))
        left -= min(64, left)
    low, high = np.percentile(sample, [2.5, 97.5])
    assert (result.difference.low, result.difference.high) == pytest.approx((low, high))
    same = paired_bootstrap(first, first, average=average, draws=50)
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, 0, 0)


@given(st.integers(0, 999), st.sampled_from([0.0, 0.3]))
def test_the_activated_area_by_counting(seed: int, threshold: float) -> None:
    area, split = ActivatedArea(3, threshold), images(seed)
    own = np.zeros((3, 3))
    for maps, channels, mask in split:
        area.update(maps, np.array(channels, int), mask)
        for k, c in enumerate(channels):
            for y, x in np.ndindex(*mask.shape):
                if mask[y, x] != 255:
                    is_object, active = mask[y, x] == c + 1, maps[k, y, x] > np.float32(threshold)
                    own[c] += is_object, is_object and active, active
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(area.recall(), own[:, 1] / own[:, 0])
        np.testing.assert_allclose(area.precision(), own[:, 1] / own[:, 2])


def statistic(image: np.ndarray, score: np.ndarray, threshold: float, levels: int, kind: str) -> float:
    """How well a pixel's colour tells whether its score exceeds the threshold."""
    groups: dict[Any, list[float]] = {}
    for y, x in np.ndindex(*score.shape):
        colour = tuple(int(value) * levels // 256 for value in image[y, x])
        groups.setdefault(colour, []).append(float(score[y, x] > np.float32(threshold)))
    n = score.size
    p = sum(map(sum, groups.values())) / n
    if kind == "variance":
        explained = sum(len(own) * (np.mean(own) - p) ** 2 for own in groups.values()) / n
        return explained / math.sqrt(max(p * (1 - p), 0.01))

    def entropy(share: float) -> float:
        return -sum(q * math.log(q) for q in (share, 1 - share) if q > 0)

    return entropy(p) - sum(len(own) / n * entropy(float(np.mean(own))) for own in groups.values())


@pytest.mark.parametrize("kind", ["variance", "information"])
@pytest.mark.parametrize("levels", [4, 5])
def test_the_curve_of_the_automatic_threshold_by_counting(kind: Any, levels: int) -> None:
    rng = np.random.default_rng(levels)
    chosen, total = AutoThreshold(20, levels=levels, statistic=kind), np.zeros(21)
    for _ in range(3):
        maps = rng.choice([0.0, 0.1, 0.15, 0.4, 0.6, 1.0], (2, 6, 7)).astype(np.float32)
        image = np.clip(90 + 100 * maps.max(0)[..., None] + rng.normal(0, 25, (6, 7, 3)), 0, 255).astype(np.uint8)
        chosen.update(image, torch.from_numpy(maps))
        total += [statistic(image, maps.max(0), i / 20, levels, kind) for i in range(21)]
    close(chosen.curve(), total / 3, 1e-9)
    curve = total / 3
    peak = int(curve.argmax())
    first = last = peak
    while first > 0 and curve[first - 1] >= 0.98 * curve[peak]:
        first -= 1
    while last < 20 and curve[last + 1] >= 0.98 * curve[peak]:
        last += 1
    assert chosen.choose() == pytest.approx((first + last) // 2 / 20)


@given(st.integers(0, 999), st.floats(0.01, 100))
def test_the_margin_is_one_minus_second_over_first(seed: int, factor: float) -> None:
    scores = np.random.default_rng(seed).random((3, 2, 4)) + 0.01
    ordered = np.sort(scores, axis=0)
    close(relative_margin(torch.from_numpy(factor * scores)), 1 - ordered[-2] / ordered[-1], 1e-5)
