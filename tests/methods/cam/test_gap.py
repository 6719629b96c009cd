"""The pooling head: its maps average to its logits, its loss is the published one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tagmask.methods.cam.head import GapClassifier, GapHead


@given(st.integers(1, 8), st.integers(1, 6), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_maps_average_to_the_logits(channels: int, classes: int, h: int, w: int, seed: int) -> None:
    torch.manual_seed(seed)
    head = GapClassifier(channels, classes)
    features = torch.randn(2, channels, h, w)
    logits, extras = head(features)
    maps = torch.einsum("bdhw,cd->bchw", features, head.class_weights)
    torch.testing.assert_close(maps.mean((2, 3)), logits, rtol=1e-4, atol=1e-5)
    assert extras == {}


def test_logits_by_hand() -> None:
    head = GapClassifier(2, 1)
    head.weight.weight.data = torch.tensor([[[[2.0]], [[-1.0]]]])
    features = torch.tensor([[[[1.0, 3.0]], [[4.0, 0.0]]]])
    assert head(features)[0].tolist() == [[2 * 2 - 1 * 2]]


def test_the_loss_by_hand() -> None:
    """Logits (2, 1), tags (1, 0): (log(1 + e^-2) + log(1 + e)) / 2."""
    loss = GapClassifier(2, 2).losses(torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]]), {})["loss"]
    assert float(loss) == pytest.approx(0.720095, abs=1e-6)


def test_dropout_only_while_training() -> None:
    torch.manual_seed(0)
    head = GapHead(dropout=0.5).build(64, 3)
    features = torch.rand(1, 64, 4, 4)
    assert not torch.equal(head.train()(features)[0], head(features)[0])
    assert torch.equal(head.eval()(features)[0], head(features)[0])


def test_first_weights() -> None:
    torch.manual_seed(0)
    assert float(GapHead(init_std=0.01).build(500, 20).class_weights.detach().std()) == pytest.approx(0.01, rel=0.05)
    bound = 1 / 500**0.5  # torch's default is uniform in +- 1/sqrt(channels)
    plain = GapHead(init_std=None).build(500, 20).class_weights
    assert 0.95 * bound < float(plain.detach().abs().max()) <= bound


def test_nothing_is_remembered_as_bias() -> None:
    assert [name for name, _ in GapClassifier(3, 2).named_parameters()] == ["weight.weight"]


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="dropout"):
        GapHead(dropout=1.0)
