"""PAMR (CVPR 2020) by its neighbours, and the dense CRF (NIPS 2011) by Gaussian sums over all pairs of pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formulas import bilinear, close, drawn, softmax
from tagmask.functional import dense_crf, dense_crf_labels, pamr
from tagmask.methods.dense_crf.mean_field import Pairwise, mean_field

DILATIONS = (1, 2, 4)
RING = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def pamr_by_hand(image: np.ndarray, masks: np.ndarray, iterations: int, dilations: tuple[int, ...]) -> np.ndarray:
    """The centre takes part in the deviation, once at each dilation, and never in the sum."""
    _, height, width = image.shape
    neighbours = [(d * y, d * x) for d in dilations for y, x in RING]

    def at(planes: np.ndarray, y: int, x: int) -> np.ndarray:
        return planes[:, min(max(y, 0), height - 1), min(max(x, 0), width - 1)]

    weights = np.zeros((len(neighbours), height, width))
    for y in range(height):
        for x in range(width):
            own = image[:, y, x]
            around = [at(image, y + dy, x + dx) for dy, dx in neighbours]
            deviation = np.std([*around, *[own] * len(dilations)], axis=0, ddof=1)
            weights[:, y, x] = softmax(
                np.array([np.mean(-np.abs(other - own) / (1e-8 + 0.1 * deviation)) for other in around]), 0
            )
    current = bilinear(masks, (height, width), corners=True)
    for _ in range(iterations):
        following = np.zeros_like(current)
        for y in range(height):
            for x in range(width):
                for weight, (dy, dx) in zip(weights[:, y, x], neighbours, strict=True):
                    following[:, y, x] += weight * at(current, y + dy, x + dx)
        current = following
    return current


@pytest.mark.parametrize(("iterations", "grid"), [(0, (3, 4)), (1, (6, 7)), (3, (6, 7)), (2, (3, 4))])
def test_pamr_by_its_neighbours(iterations: int, grid: tuple[int, int]) -> None:
    image, masks = drawn(1, 2, 3, 6, 7), drawn(2, 2, 2, *grid)
    result = pamr(*map(torch.from_numpy, (image, masks)), iterations=iterations, dilations=DILATIONS)
    for b in range(2):
        close(result[b], pamr_by_hand(image[b], masks[b], iterations, DILATIONS), 1e-8)


@settings(max_examples=15)
@given(st.integers(0, 999), st.floats(0.1, 200), st.floats(-3, 3), st.permutations(range(3)))
def test_pamr_does_not_see_contrast_brightness_or_the_order_of_colours(
    seed: int, factor: float, shift: float, order: list[int]
) -> None:
    image, masks = torch.from_numpy(drawn(seed, 1, 3, 5, 6)), torch.from_numpy(drawn(seed + 1, 1, 2, 5, 6))
    plain = pamr(image, masks, iterations=2, dilations=DILATIONS)
    close(pamr(factor * image[:, order] + shift, masks, iterations=2, dilations=DILATIONS), plain.numpy(), 1e-5)
    close(pamr(image.flip(-1), masks.flip(-1), iterations=2, dilations=DILATIONS), plain.flip(-1).numpy(), 1e-8)


def test_on_a_plain_image_all_48_neighbours_count_alike() -> None:
    masks = drawn(3, 1, 1, 5, 6)
    flat = torch.full((1, 3, 5, 6), 0.4, dtype=torch.float64)
    result = pamr(flat, torch.from_numpy(masks), iterations=1)
    for y in range(5):
        for x in range(6):
            around = [
                masks[0, 0, min(max(y + d * a, 0), 4), min(max(x + d * b, 0), 5)]
                for d in (1, 2, 4, 8, 12, 24) for a, b in RING
            ]  # fmt: skip
            assert result[0, 0, y, x].item() == pytest.approx(sum(around) / 48)


def kernels_of(image: np.ndarray, widths: list[tuple[float, float | None]]) -> list[np.ndarray]:
    """exp(-|f_i - f_j|^2 / 2) of all pairs, symmetrically normalised, each pixel with itself included."""
    height, width = image.shape[:2]
    places = [(y, x) for y in range(height) for x in range(width)]
    result = []
    for space, colour in widths:
        features = [
            np.array([x / space, y / space, *([] if colour is None else image[y, x] / colour)]) for y, x in places
        ]
        matrix = np.array([[math.exp(-0.5 * float(((a - b) ** 2).sum())) for b in features] for a in features])
        norm = 1 / np.sqrt(matrix.sum(1) + 1e-20)
        result.append(norm[:, None] * matrix * norm[None])
    return result


def crf_by_hand(image: np.ndarray, unary: np.ndarray, kernels: list[tuple[float, float | None, Any]],
                iterations: int) -> np.ndarray:  # fmt: skip
    """All pixels in parallel; a Potts weight is added to the label's own message."""
    flat = unary.reshape(len(unary), -1)
    matrices = kernels_of(image, [(space, colour) for space, colour, _ in kernels])
    q = softmax(-flat, 0)
    for _ in range(iterations):
        energy = -flat.copy()
        for matrix, (_, _, weight) in zip(matrices, kernels, strict=True):
            message = q @ matrix
            energy += weight * message if np.ndim(weight) == 0 else -np.asarray(weight) @ message
        q = softmax(energy, 0)
    return q.reshape(unary.shape)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """6 x 7 pixels of two colours with noise, and uncertain probabilities of three labels that lean to the scene."""
    rng = np.random.default_rng(seed)
    side = (np.arange(7) < 3) ^ (np.arange(6)[:, None] > 4)
    image = np.where(side[..., None], (170, 60, 40), (50, 120, 160)) + rng.integers(-12, 13, (6, 7, 3))
    scores = rng.normal(0, 0.8, (3, 6, 7))
    scores[0] += side
    scores[1] += ~side
    return image.astype(np.uint8), softmax(scores, 0)


# (space, colour, weight, near, near weight) of the published settings; mean error of one update, of ten, allowed here.
# The lattice sums its kernels approximately. Measured over 40 such scenes: mean errors 0.004, 0.014, 0.007 of one
# update, which moves probabilities by 0.17 to 0.26; after ten, 6e-6, 0.018, 0.016 (a few pixels fall the other way).
CASES = {
    "psa": ((80, 13, 10, 3, 3), 0.006, 1e-4),
    "irn_labels": ((50, 5, 10, 3, 3), 0.02, 0.03),
    "deeplab": ((67, 3, 4, 1, 3), 0.01, 0.03),
}


def settings_of(name: str) -> dict[str, float]:
    space, colour, weight, near, near_weight = CASES[name][0]
    return {
        "gaussian_sxy": near, "gaussian_compat": near_weight,
        "bilateral_sxy": space, "bilateral_srgb": colour, "bilateral_compat": weight,
    }  # fmt: skip


def exact(name: str, image: np.ndarray, unary: np.ndarray, iterations: int) -> np.ndarray:
    space, colour, weight, near, near_weight = CASES[name][0]
    return crf_by_hand(image, unary, [(near, None, near_weight), (space, colour, weight)], iterations)


# In torch: that the compiled lattice is the same to rounding is a test of its own, and compiling it takes a minute.
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("iterations", [1, 10])
def test_updates_are_those_of_gaussian_sums_over_all_pairs(name: str, iterations: int) -> None:
    errors, equal, moved = [], [], []
    for seed in range(10):
        image, p = scene(seed)
        result = dense_crf(
            image, torch.from_numpy(p), iterations=iterations, backend="torch", **settings_of(name)
        ).numpy()  # type: ignore[arg-type]
        expected = exact(name, image, -np.log(p), iterations)
        close(result.sum(0), np.ones((6, 7)), 1e-5)
        errors.append(np.abs(result - expected).mean())
        moved.append(np.abs(expected - p).mean())
        equal.append((result.argmax(0) == expected.argmax(0)).mean())
    assert np.mean(errors) < CASES[name][(iterations == 10 and 2) or 1]
    assert np.mean(errors) < np.mean(moved) / 10
    assert np.mean(equal) > 0.97


@pytest.mark.parametrize("name", CASES)
def test_labels_are_as_sure_as_they_are_said_to_be(name: str) -> None:
    image, p = scene(3)
    labels = p.argmax(0)
    labels[0, 0] = 255
    unary = np.full((3, 6, 7), -math.log((1 - 0.7) / 2))
    for y, x in np.ndindex(6, 7):
        if labels[y, x] == 255:
            unary[:, y, x] = -math.log(1 / 3)
        else:
            unary[labels[y, x], y, x] = -math.log(0.7)
    options: Any = {**settings_of(name), "n_labels": 3, "unsure": 255, "backend": "torch"}
    start = dense_crf_labels(image, labels, iterations=0, **options)
    close(start, softmax(-unary, 0), 1e-5)
    result = dense_crf_labels(image, labels, iterations=1, **options).numpy()
    assert np.abs(result - exact(name, image, unary, 1)).mean() < 2 * CASES[name][1]


def test_without_weights_nothing_but_the_unary_is_left() -> None:
    image, p = scene(4)
    p[2] = 1e-9  # clipped to 1e-5, not renormalised
    result = dense_crf(
        image, torch.from_numpy(p), gaussian_compat=0, bilateral_compat=0, keep_absent=True, backend="torch"
    )
    close(result, softmax(np.log(np.clip(p, 1e-5, 1)), 0), 1e-5)


def test_a_potts_weight_is_a_matrix_of_what_two_labels_cost() -> None:
    image, p = scene(5)
    unary = torch.from_numpy(-np.log(p))
    potts = 3 * (1 - np.eye(3))
    first, second = (
        mean_field(image, unary, [Pairwise(3, compat)], iterations=2, backend="torch") for compat in (3.0, potts)
    )
    close(first, second.numpy(), 1e-5)
    costs = np.array([[0.0, 1.0, 5.0], [1.0, 0.0, 2.0], [5.0, 2.0, 0.0]])
    result = mean_field(image, unary, [Pairwise(3, costs)], iterations=1, backend="torch")
    expected = crf_by_hand(image, -np.log(p), [(3, None, costs)], 1)
    assert np.abs(result.numpy() - expected).mean() < 0.01


@settings(max_examples=10)
@given(st.permutations(range(3)), st.integers(0, 99))
def test_the_crf_does_not_see_the_order_of_labels_or_colours(order: list[int], seed: int) -> None:
    image, p = scene(seed)
    plain = dense_crf(image, torch.from_numpy(p), iterations=3, backend="torch")
    moved = dense_crf(image, torch.from_numpy(p[order]), iterations=3, backend="torch")
    close(moved, plain[order].numpy(), 1e-4)
