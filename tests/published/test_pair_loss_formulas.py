"""IRNet's and AffinityNet's losses over pixel pairs, pair by pair; paths, labels and gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from formulas import close, drawn, gradient, numeric_gradient, pair_offsets, path, sigmoid
from tagmask.methods.affinitynet.losses import affinity_labels, affinity_loss, feature_affinity
from tagmask.methods.irnet.labels import ir_labels
from tagmask.methods.irnet.losses import boundary_probability, irnet_losses, labels_on_grid, pair_affinity
from tagmask.ops.pixel_pairs import path_points, path_runs, stencil_offsets

EPS = 1e-5


@pytest.mark.parametrize(("radius", "pairs", "points"), [(5, 34, 242), (10, 152, 2134)])
def test_offsets_and_paths(radius: int, pairs: int, points: int) -> None:
    offsets = pair_offsets(radius)
    assert stencil_offsets(radius) == offsets
    assert len(offsets) == pairs
    assert [set(path_points(offset)) for offset in offsets] == [set(path(offset)) for offset in offsets]
    assert sum(len(path_points(offset)) for offset in offsets) == points
    for offset in offsets:
        cells = [
            (run.y, run.x + i) if run.across else (run.y + i, run.x)
            for run in path_runs(offset)
            for i in range(run.length)
        ]
        assert sorted(cells) == sorted(path(offset)), offset


def pairs_of(labels: np.ndarray, radius: int) -> Iterator[tuple[int, tuple[int, int], tuple[int, int], str]]:
    """Image, source, target and kind of every pair whose source has its whole stencil in the grid."""
    batch, height, width = labels.shape
    margin = radius - 1
    for b in range(batch):
        for dy, dx in pair_offsets(radius):
            for y in range(height - margin):
                for x in range(margin, width - margin):
                    first, second = int(labels[b, y, x]), int(labels[b, y + dy, x + dx])
                    if 255 in (first, second):
                        kind = "none"
                    elif first != second:
                        kind = "negative"
                    else:
                        kind = "foreground" if first else "background"
                    yield b, (y, x), (y + dy, x + dx), kind


def mean(values: list[float]) -> float:
    return sum(values) / (len(values) + EPS)


def irnet_by_hand(logits: np.ndarray, labels: np.ndarray, field: np.ndarray, radius: int) -> dict[str, float]:
    edge = sigmoid(logits[:, 0])
    terms: dict[str, list[float]] = {kind: [] for kind in ("background", "foreground", "negative", "none")}
    shifts: dict[str, list[float]] = {"foreground": [], "background": []}
    for b, (y, x), (v, u), kind in pairs_of(labels, radius):
        a = 1 - max(edge[b, y + dy, x + dx] for dy, dx in path((v - y, u - x)))
        terms[kind].append(-math.log(1 + EPS - a) if kind == "negative" else -math.log(a + EPS))
        difference = field[b, :, y, x] - field[b, :, v, u]
        if kind == "foreground":
            shifts[kind].append(float(np.abs(difference - np.array([v - y, u - x])).sum()))
        elif kind == "background":
            shifts[kind].append(float(np.abs(difference).sum()))
    positive = mean(terms["background"]) / 2 + mean(terms["foreground"]) / 2
    moved = {kind: sum(values) / (2 * len(values) + EPS) for kind, values in shifts.items()}
    return {
        "positive": positive,
        "negative": mean(terms["negative"]),
        "displacement_foreground": moved["foreground"],
        "displacement_background": moved["background"],
        "loss": (positive + mean(terms["negative"])) / 2 + (moved["foreground"] + moved["background"]) / 2,
    }


def labels_of(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).choice([0, 3, 7, 255], shape, p=[0.4, 0.25, 0.2, 0.15])


@pytest.mark.parametrize(("radius", "size"), [(3, (5, 7)), (5, (6, 11)), (2, (3, 4))])
def test_irnets_losses_pair_by_pair(radius: int, size: tuple[int, int]) -> None:
    logits, field = drawn(1, 2, 1, *size, low=-3, high=3), drawn(2, 2, 2, *size, low=-4, high=4)
    labels = labels_of(3, 2, *size)
    result = irnet_losses(torch.from_numpy(logits), torch.from_numpy(labels), torch.from_numpy(field), radius=radius)
    for name, value in irnet_by_hand(logits, labels, field, radius).items():
        assert result[name].item() == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("part", ["edge", "field"])
def test_gradients_of_irnets_losses(part: str) -> None:
    """Against the pair-by-pair loss: ours sums over pixels."""
    logits, field = drawn(4, 1, 1, 4, 6, low=-3, high=3), drawn(5, 1, 2, 4, 6, low=-4, high=4)
    labels = labels_of(6, 1, 4, 6)

    def ours(values: Tensor) -> Tensor:
        first = values if part == "edge" else torch.from_numpy(logits)
        second = values if part == "field" else torch.from_numpy(field)
        return irnet_losses(first, torch.from_numpy(labels), second, radius=3)["loss"]

    def by_hand(values: Tensor) -> Tensor:
        first = values.numpy() if part == "edge" else logits
        second = values.numpy() if part == "field" else field
        return torch.tensor(irnet_by_hand(first, labels, second, 3)["loss"], dtype=torch.float64)

    start = torch.from_numpy(logits if part == "edge" else field)
    close(gradient(ours, start), numeric_gradient(by_hand, start), 1e-5)


@given(st.integers(0, 3000))
def test_labels_are_told_apart_not_named(seed: int) -> None:
    logits = torch.from_numpy(drawn(seed, 1, 1, 4, 7, low=-2, high=2))
    labels = torch.from_numpy(labels_of(seed, 1, 4, 7))
    other = labels.clone()
    other[labels == 3], other[labels == 7] = 12, 5
    plain = irnet_losses(logits, labels, radius=3)["loss"]
    assert irnet_losses(logits, other, radius=3)["loss"].item() == pytest.approx(plain.item(), abs=1e-6)
    twice = irnet_losses(torch.cat([logits, logits]), torch.cat([labels, other]), radius=3)["loss"]
    assert twice.item() == pytest.approx(plain.item(), abs=1e-4)


@pytest.mark.parametrize("radius", [2, 4])
def test_the_affinity_of_pairs_for_looking_at(radius: int) -> None:
    edge = drawn(7, 2, 5, 8)
    result = pair_affinity(torch.from_numpy(edge), radius)
    margin = radius - 1
    for b in range(2):
        for i, offset in enumerate(pair_offsets(radius)):
            for y in range(5 - margin):
                for x in range(8 - 2 * margin):
                    strongest = max(edge[b, y + dy, x + margin + dx] for dy, dx in path(offset))
                    assert result[b, i, y, x].item() == pytest.approx(1 - strongest)


def test_boundaries_of_both_views_are_cut_before_the_mirror_is_turned_back() -> None:
    straight, mirrored = drawn(8, 1, 6, 9, low=-2, high=2), drawn(9, 1, 6, 9, low=-2, high=2)
    expected = np.zeros((1, 5, 7))
    for y in range(5):
        for x in range(7):
            expected[0, y, x] = sigmoid((straight[0, y, x] + mirrored[0, y, 6 - x]) / 2)
    close(boundary_probability(torch.from_numpy(straight), torch.from_numpy(mirrored), (5, 7)), expected, 1e-6)


@given(st.tuples(st.integers(1, 20), st.integers(1, 20)), st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_labels_on_the_grid_are_those_at_the_cells_centres(size: tuple[int, int], grid: tuple[int, int]) -> None:
    labels = torch.arange(size[0] * size[1]).view(size)
    result = labels_on_grid(labels, grid)
    for i in range(grid[0]):
        for j in range(grid[1]):
            y, x = (2 * i + 1) * size[0] // (2 * grid[0]), (2 * j + 1) * size[1] // (2 * grid[1])
            assert int(result[i, j]) == y * size[1] + x


@given(st.integers(0, 3000))
def test_ir_labels_are_sure_only_where_both_thresholds_agree(seed: int) -> None:
    maps = drawn(seed, 2, 3, 4)

    def crf(labels: np.ndarray, *, n_labels: int) -> np.ndarray:  # turns the image by one column: not the identity
        return np.stack([np.roll(labels, 1, axis=1) == k for k in range(n_labels)]).astype(np.float32)

    result = ir_labels(maps.astype(np.float32), [4, 9], crf, foreground=0.7, background=0.3)
    for y in range(3):
        for x in range(4):
            own = maps.astype(np.float32)[:, y, x - 1]
            fg, bg = own.max() > np.float32(0.7), own.max() > np.float32(0.3)
            expected = [4, 9][int(own.argmax())] if fg else (255 if bg else 0)
            assert result[y, x] == expected


def test_a_pixel_stays_foreground_though_the_low_threshold_calls_it_background() -> None:
    answers = iter([np.array([[[0.0, 1.0]], [[1.0, 0.0]]]), np.array([[[1.0, 1.0]], [[0.0, 0.0]]])])
    result = ir_labels(
        np.array([[[0.5, 0.2]]], np.float32), [6], lambda labels, *, n_labels: next(answers), background=0.1
    )
    assert result.tolist() == [[6, 0]]


def affinity_by_hand(features: np.ndarray, radius: int) -> np.ndarray:
    batch, _, height, width = features.shape
    margin = radius - 1
    rows = []
    for b in range(batch):
        for dy, dx in pair_offsets(radius):
            rows.append([
                math.exp(-float(np.abs(features[b, :, y, x] - features[b, :, y + dy, x + dx]).mean()))
                for y in range(height - margin) for x in range(margin, width - margin)
            ])  # fmt: skip
    return np.array(rows).reshape(batch, len(pair_offsets(radius)), -1)


@pytest.mark.parametrize(("radius", "size"), [(5, (6, 10)), (3, (4, 7))])
def test_affinitynets_affinity_and_loss(radius: int, size: tuple[int, int]) -> None:
    features, labels = drawn(10, 2, 4, *size, low=-2, high=2), labels_of(11, 2, *size)
    affinity = affinity_by_hand(features, radius)
    close(feature_affinity(torch.from_numpy(features), radius=radius), affinity)
    terms: dict[str, list[float]] = {kind: [] for kind in ("background", "foreground", "negative", "none")}
    flat = iter(affinity.ravel())
    for (_, _, _, kind), a in zip(pairs_of(labels, radius), flat, strict=True):
        terms[kind].append(-math.log(1 + EPS - a) if kind == "negative" else -math.log(a + EPS))
    result = affinity_loss(torch.from_numpy(affinity), torch.from_numpy(labels), radius=radius)
    expected = mean(terms["background"]) / 4 + mean(terms["foreground"]) / 4 + mean(terms["negative"]) / 2
    assert result["loss"].item() == pytest.approx(expected)
    for kind in ("background", "foreground", "negative"):
        assert result[kind].item() == pytest.approx(mean(terms[kind])), kind


def test_the_gradient_of_affinitynets_affinity() -> None:
    features = torch.from_numpy(drawn(12, 1, 3, 4, 6, low=-2, high=2))
    weights = torch.from_numpy(drawn(13, 1, len(pair_offsets(3)), 2 * 2, low=-1))

    def total(values: Tensor) -> Tensor:
        return (feature_affinity(values, radius=3) * weights).sum()

    close(gradient(total, features), numeric_gradient(total, features), 1e-7)


@given(st.integers(0, 3000))
def test_affinity_labels_by_two_stacks_of_planes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = rng.random((3, 2, 5)), rng.random((3, 2, 5))
    low[:, 0, 0] = high[:, 0, 0] = 0  # outside the image
    result = affinity_labels(torch.from_numpy(low), torch.from_numpy(high))
    for y in range(2):
        for x in range(5):
            if max(low[:, y, x].max(), high[:, y, x].max()) < 1e-5:
                expected = 255
            elif high[:, y, x].argmax() == 0:
                expected = 0
            else:
                expected = int(low[:, y, x].argmax()) or 255
            assert int(result[y, x]) == expected
