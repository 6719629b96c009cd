"""Margins and the weights made of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagmask.functional import cross_entropy, relative_margin
from tagmask.ops.confidence import confidence_weights, margin_of


def test_margins_by_hand() -> None:
    scores = torch.tensor([[[0.4, 0.0, 0.5]], [[0.1, 0.0, 0.5]], [[0.2, 0.0, 0.0]]])
    torch.testing.assert_close(relative_margin(scores), torch.tensor([[0.5, 0.0, 0.0]]))


def test_nothing_competes() -> None:
    assert relative_margin(torch.zeros(1, 2, 2)).tolist() == [[1.0, 1.0]] * 2
    with pytest.raises(ValueError, match="L >= 1"):
        relative_margin(torch.zeros(0, 2, 2))


@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_it_knows_no_scale(seed: int, factor: float) -> None:
    scores = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(seed))
    margin = relative_margin(scores)
    assert 0 <= float(margin.min()) <= float(margin.max()) <= 1
    torch.testing.assert_close(relative_margin(factor * scores), margin, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 10**6))
def test_the_margin_of_the_highest_is_the_relative_margin(seed: int) -> None:
    scores = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(margin_of(scores, scores.argmax(0)), relative_margin(scores))
    assert not margin_of(scores, scores.argmin(0)).any()
    assert margin_of(scores[:1], torch.zeros(4, 5, dtype=torch.int64)).eq(1).all()


def test_weights_rise_to_one() -> None:
    weights = confidence_weights(torch.tensor([0.0, 0.1, 0.2, 0.9]), width=0.2, floor=0.5)
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.75, 1.0, 1.0]))


@given(st.integers(0, 10**6))
def test_a_weighted_mean_is_a_mean(seed: int) -> None:
    """Equal weights change nothing; a weight of zero is an ignored pixel; twice the weight is the pixel twice."""
    generator = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(1, 3, 2, 4, generator=generator), torch.randint(0, 3, (1, 2, 4), generator=generator)
    weights = torch.rand(1, 2, 4, generator=generator)
    torch.testing.assert_close(cross_entropy(logits, labels, torch.full((1, 2, 4), 0.3)), cross_entropy(logits, labels))
    dropped = labels.clone()
    dropped[weights < 0.5] = 255
    torch.testing.assert_close(cross_entropy(logits, labels, (weights >= 0.5).float()), cross_entropy(logits, dropped))
    doubled = torch.ones(1, 2, 4)
    doubled[..., 0] = 2
    twice = cross_entropy(torch.cat([logits, logits[..., :1]], -1), torch.cat([labels, labels[..., :1]], -1))
    torch.testing.assert_close(cross_entropy(logits, labels, doubled), twice)


def test_no_weight_at_all_costs_nothing() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, 2, 2))
    loss.backward()
    assert float(loss.detach()) == 0
