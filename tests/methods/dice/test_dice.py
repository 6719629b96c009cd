"""Soft Dice against its formula and in cases that can be counted by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagmask.contracts.loss import Targets
from tagmask.methods.cross_entropy.loss import CrossEntropy
from tagmask.methods.dice.loss import Dice, soft_dice
from tagmask.ops.losses import nearest_to
from tagmask.types import IGNORE_INDEX


def certain(labels: torch.Tensor, n_labels: int) -> torch.Tensor:
    return 200.0 * torch.nn.functional.one_hot(labels, n_labels).movedim(-1, 1).float()


def test_a_certain_prediction_costs_nothing_and_a_wrong_one_everything() -> None:
    labels = torch.tensor([[[0, 1], [2, 2]]])
    assert soft_dice(certain(labels, 3), labels) == 0
    assert soft_dice(certain((labels + 1) % 3, 3), labels) == 1


def test_it_is_counted_by_hand() -> None:
    """Even probabilities over two labels: of four pixels, one is an object: 2 * 0.5 / (4 * 0.5 + 1)."""
    labels = torch.tensor([[[0, 0], [0, 1]]])
    assert soft_dice(torch.zeros(1, 2, 2, 2), labels).item() == pytest.approx(1 - 1 / 3)
    # An ignored pixel is in neither sum: 2 * 0.5 / (3 * 0.5 + 1).
    labels[0, 0, 0] = IGNORE_INDEX
    assert soft_dice(torch.zeros(1, 2, 2, 2), labels).item() == pytest.approx(1 - 1 / 2.5)


@given(st.integers(0, 2**31 - 1))
def test_it_is_the_formula_of_the_batch(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 5, 6), generator=generator)
    values = []
    for label in (1, 2, 3):
        p, g = logits.softmax(1)[:, label], (labels == label).double()
        if g.any():
            values.append(1 - 2 * (p * g).sum() / (p.sum() + g.sum()))
    expected = torch.stack(values).mean() if values else torch.tensor(0.0, dtype=torch.float64)
    torch.testing.assert_close(soft_dice(logits, labels), expected)


@pytest.mark.parametrize("label", [0, IGNORE_INDEX])
def test_without_an_object_there_is_nothing_to_learn(label: int) -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    value = soft_dice(logits, torch.full((1, 2, 2), label))
    value.backward()  # type: ignore[no-untyped-call]
    assert value == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_small_object_counts_as_much_as_a_large_one() -> None:
    """Both are missed: the cross entropy hardly sees the small one."""
    labels = torch.zeros(1, 10, 10, dtype=torch.long)
    labels[0, :5], labels[0, 9, 9] = 1, 2
    found = labels.clone()
    found[labels == 2] = 0
    other = labels.clone()
    other[labels == 1] = 0
    small, large = soft_dice(certain(found, 3), labels), soft_dice(certain(other, 3), labels)
    assert small == large == 0.5


def test_the_loss_is_the_sum_over_outputs() -> None:
    labels = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    outputs = [torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)]
    targets = Targets(labels=labels, factors=(1.0, 0.4))
    terms = Dice(weight=2.0).terms(outputs, targets)
    parts = soft_dice(outputs[0], labels) + 0.4 * soft_dice(outputs[1], nearest_to(labels, outputs[1].shape[-2:]))
    torch.testing.assert_close(terms["dice"], parts)
    torch.testing.assert_close(terms["loss"], CrossEntropy().terms(outputs, targets)["loss"] + 2 * parts)


def test_balance_is_of_the_cross_entropy_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    labels = torch.randint(0, 3, (2, 4, 4), generator=generator)
    targets = Targets(labels)
    terms = Dice(weight=2.0, balance=0.5).terms(logits, targets)
    entropy = CrossEntropy(balance=0.5).terms(logits, targets)["loss"]
    torch.testing.assert_close(terms["loss"], entropy + 2 * soft_dice(logits, labels))
    assert not torch.isclose(entropy, CrossEntropy().terms(logits, targets)["loss"])
