"""Pieces that losses share: weights of rare labels, by hand and as a property."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagmask.ops.losses import cross_entropy, rarity_weights, summed_cross_entropy
from tagmask.types import IGNORE_INDEX


def scene(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 6, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 6, 5), generator=generator) ** 2 % 4
    labels[0, :2] = IGNORE_INDEX
    return logits, labels


def test_the_weights_by_hand() -> None:
    labels = torch.tensor([[[0, 0, 0, 0], [0, 0, 0, 2]], [[0, 0, 0, 0], [2, 0, 255, 255]]])
    weights = rarity_weights(labels, 4, 0.5)
    assert weights[0, 0, 0].item() == pytest.approx((14 / 12) ** 0.5)
    assert weights[1, 1, 0].item() == pytest.approx(7**0.5)
    assert weights[1, 1, 2:].tolist() == [0, 0]
    assert torch.equal(rarity_weights(labels, 4, 0.0), (labels != 255).float())
    assert not rarity_weights(torch.full((1, 2, 2), IGNORE_INDEX), 3, 1.0).any()


@given(st.integers(0, 2**31 - 1))
def test_with_exponent_one_labels_count_alike(seed: int) -> None:
    logits, labels = scene(seed)
    means = []
    for label in range(4):
        if (labels == label).any():
            means.append(cross_entropy(logits, labels.where(labels == label, IGNORE_INDEX)))
    balanced = summed_cross_entropy([logits], labels, balance=1.0)
    torch.testing.assert_close(balanced, torch.stack(means).mean(), rtol=1e-5, atol=1e-6)


def test_without_balance_it_is_the_plain_mean() -> None:
    logits, labels = scene()
    assert torch.equal(summed_cross_entropy([logits], labels, balance=0.0), cross_entropy(logits, labels))


def test_weights_of_pixels_and_of_labels_multiply() -> None:
    logits, labels = scene()
    confidence = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1))
    expected = cross_entropy(logits, labels, confidence * rarity_weights(labels, 4, 0.5))
    torch.testing.assert_close(summed_cross_entropy([logits], labels, confidence, balance=0.5), expected)
