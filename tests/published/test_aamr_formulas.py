"""AAMR (Sun, Zhang, Barnes, WACV 2022, Eq. 4): cross entropy + alpha (e^tau - 1) L_sal, pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from formulas import bilinear, close, drawn, gradient, numeric_gradient, sigmoid, softmax
from tagmask.contracts.loss import Targets
from tagmask.functional import aamr_loss, background_loss, conflict_temperature, cross_entropy
from tagmask.methods.aamr.loss import SaliencyBce


def segmentation(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean of -log p of the label over the pixels that are not ignored; weighted where weights are given."""
    total = count = 0.0
    for b, y, x in np.ndindex(*labels.shape):
        if labels[b, y, x] != 255:
            weight = 1.0 if weights is None else weights[b, y, x]
            total -= weight * math.log(softmax(logits[b, :, y, x], 0)[labels[b, y, x]])
            count += weight
    return total / count if count else 0.0


def saliency_term(logits: np.ndarray, saliency: np.ndarray, valid: np.ndarray, background: str = "softmax") -> float:
    """One image: the mean over valid pixels of the binary cross entropy of p0 against 1 - S."""
    terms = []
    for y, x in np.ndindex(*saliency.shape):
        if valid[y, x]:
            p0 = softmax(logits[:, y, x], 0)[0] if background == "softmax" else sigmoid(logits[0, y, x])
            s = saliency[y, x]
            terms.append(-((1 - s) * math.log(p0) + s * math.log(1 - p0)))
    return sum(terms) / len(terms) if terms else 0.0


def counts(labels: np.ndarray, saliency: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Intersection and union of both sides, [2, 2]."""
    result = np.zeros((2, 2))
    for y, x in np.ndindex(*labels.shape):
        if valid[y, x] and labels[y, x] != 255:
            for side, (a, b) in enumerate(
                [(labels[y, x] == 0, saliency[y, x] < 0.5), (labels[y, x] != 0, saliency[y, x] >= 0.5)]
            ):
                result[side] += (a and b), (a or b)
    return result


def agreement(sides: np.ndarray) -> float:
    shares = [both / either for both, either in sides if either]
    return sum(shares) / len(shares) if shares else 1.0


def temperatures(labels: np.ndarray, saliency: np.ndarray, valid: np.ndarray, tau: str) -> list[float]:
    sides = [counts(*one) for one in zip(labels, saliency, valid, strict=True)]
    if tau == "batch":
        return [agreement(sum(sides))] * len(sides)
    return [agreement(one) for one in sides]


def loss(logits: list[np.ndarray], labels: np.ndarray, saliency: np.ndarray, valid: np.ndarray, tau: str = "image",
         background: str = "softmax", alpha: float = 0.08) -> float:  # fmt: skip
    taus = temperatures(labels, saliency, valid, tau)
    total = 0.0
    for own in logits:
        size = own.shape[-2:]
        small = [nearest_exact(plane, size) for plane in (labels, valid)]
        stretched = bilinear(saliency, size)
        total += segmentation(own, small[0])
        terms = [
            (math.exp(t) - 1) * saliency_term(own[b], stretched[b], small[1][b], background) for b, t in enumerate(taus)
        ]
        total += alpha * sum(terms) / len(terms)
    return total


def nearest_exact(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Half-pixel centres, as Pillow."""
    rows = [int((i + 0.5) * planes.shape[1] / size[0]) for i in range(size[0])]
    columns = [int((j + 0.5) * planes.shape[2] / size[1]) for j in range(size[1])]
    return planes[:, rows][:, :, columns]


def case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 255], (3, 4, 6), p=[0.4, 0.25, 0.25, 0.1])
    return rng.normal(0, 2, (3, 3, 4, 6)), labels, rng.random((3, 4, 6)), rng.random((3, 4, 6)) < 0.8


def tensors(logits: np.ndarray, labels: np.ndarray, saliency: np.ndarray, valid: np.ndarray) -> tuple[Tensor, ...]:
    return tuple(map(torch.from_numpy, (logits, labels, saliency, valid)))


@pytest.mark.parametrize("tau", ["image", "batch"])
@pytest.mark.parametrize("background", ["softmax", "sigmoid"])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss(tau: Any, background: Any, seed: int) -> None:
    own = case(seed)
    logits, labels, saliency, valid = tensors(*own)
    result = aamr_loss(logits, labels, saliency, valid=valid, tau=tau, background=background)
    assert result.item() == pytest.approx(loss([own[0]], *own[1:], tau, background), abs=1e-5)


def test_several_outputs_are_summed_each_at_its_own_size_with_one_temperature() -> None:
    own = case(7)
    more = [own[0], drawn(1, 3, 3, 2, 3, low=-2, high=2), drawn(2, 3, 3, 8, 12, low=-2, high=2)]
    _, labels, saliency, valid = tensors(*own)
    result = aamr_loss([torch.from_numpy(one) for one in more], labels, saliency, valid=valid, alpha=0.5)
    assert result.item() == pytest.approx(loss(more, *own[1:], alpha=0.5), abs=1e-4)


def test_saliency_alone_has_a_constant_weight() -> None:
    own = case(3)
    logits, labels, saliency, valid = tensors(*own)
    targets = Targets(labels, planes={"saliency": saliency}, valid=valid)
    result = SaliencyBce(alpha=0.3).terms(logits, targets)["loss"].item()
    terms = [saliency_term(*one) for one in zip(own[0], own[2], own[3], strict=True)]
    assert result == pytest.approx(segmentation(own[0], own[1]) + 0.3 * sum(terms) / 3, abs=1e-5)


@given(st.integers(0, 5000))
def test_what_lies_outside_of_the_image_changes_nothing(seed: int) -> None:
    """Padding fed to AAMR: whatever saliency and logits hold beyond the image, the saliency term stays."""
    logits, labels, saliency, valid = tensors(*case(seed))
    outside = ~valid
    rng = np.random.default_rng(seed + 1)
    other = torch.where(outside, torch.from_numpy(rng.random(valid.shape)), saliency)
    noisy = torch.where(outside[:, None], torch.from_numpy(rng.normal(0, 5, logits.shape)), logits)
    close(background_loss(noisy, other, valid), background_loss(logits, saliency, valid).numpy())
    padded = torch.where(outside, 255, labels)  # what the loader gives for padding
    before = aamr_loss(logits, padded, saliency, valid=valid)
    assert aamr_loss(noisy, padded, other, valid=valid).item() == pytest.approx(before.item(), abs=1e-5)
    close(conflict_temperature(labels, other, valid), conflict_temperature(labels, saliency, valid).numpy())


def test_padding_that_is_taken_for_the_image_would_change_the_loss() -> None:
    logits, _labels, saliency, valid = tensors(*case(1))
    with_padding = background_loss(logits, saliency)
    assert (with_padding - background_loss(logits, saliency, valid)).abs().min() > 1e-3


@given(st.integers(0, 5000), st.sampled_from(["image", "batch"]))
def test_the_temperature_is_the_mean_iou_of_both_sides(seed: int, tau: Any) -> None:
    _, labels, saliency, valid = case(seed)
    expected = temperatures(labels, saliency, valid, tau)
    result = conflict_temperature(*map(torch.from_numpy, (labels, saliency, valid)), tau=tau)
    close(result, expected, 1e-6)
    close(conflict_temperature(*(torch.from_numpy(one).flip(-1) for one in (labels, saliency, valid)), tau=tau),
          expected, 1e-6)  # fmt: skip


def test_a_side_that_neither_mask_has_is_left_out_and_no_pixel_agrees_fully() -> None:
    labels = torch.tensor([[[0, 0]], [[1, 1]], [[255, 255]], [[0, 1]]])
    saliency = torch.tensor([[[0.1, 0.2]], [[0.9, 0.2]], [[0.9, 0.1]], [[0.9, 0.1]]])
    close(conflict_temperature(labels, saliency), [1.0, (0.0 + 0.5) / 2, 1.0, 0.0])


@pytest.mark.parametrize("background", ["softmax", "sigmoid"])
def test_gradients_of_the_saliency_term(background: Any) -> None:
    logits, _, saliency, valid = tensors(*case(5))

    def total(values: Tensor) -> Tensor:
        return background_loss(values, saliency, valid, background=background).sum()

    close(gradient(total, logits), numeric_gradient(total, logits), 1e-7)


@given(st.integers(0, 500))
def test_cross_entropy_by_pixel(seed: int) -> None:
    logits, labels, weights, _ = case(seed)
    first = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    assert first.item() == pytest.approx(segmentation(logits, labels))
    second = cross_entropy(*map(torch.from_numpy, (logits, labels, weights)))
    assert second.item() == pytest.approx(segmentation(logits, labels, weights))
    ignored = torch.full(labels.shape, 255)
    assert cross_entropy(torch.from_numpy(logits), ignored).item() == 0
