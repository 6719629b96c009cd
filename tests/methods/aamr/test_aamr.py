"""The activation-aware loss: the reference value, its parts by hand, and what it must not depend on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tagmask.contracts.loss import Targets
from tagmask.functional import aamr_loss, background_loss, conflict_temperature, cross_entropy
from tagmask.methods.aamr.loss import Aamr, SaliencyBce

seeds = st.integers(0, 10**6)


def drawn(seed: int, b: int = 2, c: int = 3, h: int = 5, w: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, c, (b, h, w), generator=generator)
    labels[torch.rand(b, h, w, generator=generator) < 0.2] = 255
    return torch.randn(b, c, h, w, generator=generator), labels, torch.rand(b, h, w, generator=generator)


@pytest.fixture
def example() -> tuple[Tensor, Tensor, Tensor]:
    """One image of 2x2, three classes; the expected values were computed independently, in float64."""
    logits = torch.tensor([[[[2.0, 0], [0, 1]], [[0, 1], [0, 3]], [[0, 0], [0, 0]]]])
    return logits, torch.tensor([[[0, 1], [255, 1]]]), torch.tensor([[[0.2, 0.9], [0.6, 0.4]]])


def test_the_reference_value(example: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, labels, saliency = example
    assert float(cross_entropy(logits, labels)) == pytest.approx(0.320278, abs=1e-6)
    assert background_loss(logits, saliency).tolist() == pytest.approx([0.725890], abs=1e-6)
    assert conflict_temperature(labels, saliency).tolist() == [0.5]
    assert float(aamr_loss(logits, labels, saliency)) == pytest.approx(0.357951, abs=1e-6)


@given(seeds, st.sampled_from(["softmax", "sigmoid"]))
def test_the_background_term_is_the_binary_cross_entropy(seed: int, background: Any) -> None:
    logits, _, saliency = drawn(seed)
    p = logits.softmax(1)[:, 0] if background == "softmax" else logits[:, 0].sigmoid()
    by_hand = functional.binary_cross_entropy(p, 1 - saliency, reduction="none").flatten(1).mean(1)
    torch.testing.assert_close(background_loss(logits, saliency, background=background), by_hand, rtol=1e-4, atol=1e-5)


def test_it_stays_finite_where_the_network_is_sure() -> None:
    logits = torch.tensor([[[[1000.0]], [[-1000.0]]]], requires_grad=True)
    loss = background_loss(logits, torch.ones(1, 1, 1)).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2000)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_inverted_saliency_pulls_the_other_way() -> None:
    """Trap 49: saliency marks the foreground, so where it is 1 the background's logit must fall."""
    logits = torch.zeros(1, 3, 1, 1, requires_grad=True)
    for value, sign in ((1.0, 1), (0.0, -1)):
        (grad,) = torch.autograd.grad(background_loss(logits, torch.full((1, 1, 1), value)).sum(), logits)
        assert float(grad[0, 0]) * sign > 0


@given(seeds)
def test_the_temperature_is_the_mean_iou_of_both_sides(seed: int) -> None:
    _, labels, saliency = drawn(seed)
    for index in range(2):
        counted = labels[index] != 255
        a, b = (labels[index] == 0)[counted], (saliency[index] < 0.5)[counted]
        ious = [float((x & y).sum() / (x | y).sum()) for x, y in ((a, b), (~a, ~b)) if (x | y).any()]
        expected = sum(ious) / len(ious) if ious else 1.0
        assert float(conflict_temperature(labels, saliency)[index]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "saliency", "expected"),
    [
        ([[0, 0]], [[0.1, 0.2]], 1.0),  # no foreground on either side: it does not count
        ([[3, 1]], [[0.9, 0.8]], 1.0),
        ([[0, 1]], [[0.9, 0.1]], 0.0),
        ([[255, 255]], [[0.9, 0.1]], 1.0),
        ([[0, 1]], [[0.49, 0.5]], 1.0),  # 0.5 is salient
    ],
)
def test_temperatures_at_the_ends(labels: Any, saliency: Any, expected: float) -> None:
    found = conflict_temperature(torch.tensor([labels]), torch.tensor([saliency]))
    assert found.tolist() == [expected]


def test_one_temperature_for_a_batch_pools_the_counts() -> None:
    labels = torch.tensor([[[0, 0, 0, 1]], [[1, 1, 1, 1]]])
    saliency = torch.tensor([[[0.0, 0, 0, 1]], [[1.0, 0, 0, 0]]])
    background, foreground = 3 / 6, 2 / 5
    expected = (background + foreground) / 2
    assert conflict_temperature(labels, saliency, tau="batch").tolist() == pytest.approx([expected] * 2)
    assert conflict_temperature(labels, saliency).tolist() == pytest.approx([1.0, 0.125])


@given(seeds)
def test_padding_changes_nothing(seed: int) -> None:
    logits, labels, saliency = drawn(seed)
    whole = aamr_loss(logits, labels, saliency, valid=torch.ones_like(labels, dtype=torch.bool))
    padded = aamr_loss(
        functional.pad(logits, (0, 3, 2, 0), value=7.0),
        functional.pad(labels, (0, 3, 2, 0), value=255),
        functional.pad(saliency, (0, 3, 2, 0), value=0.0),
        valid=functional.pad(torch.ones_like(labels, dtype=torch.bool), (0, 3, 2, 0), value=False),
    )
    torch.testing.assert_close(padded, whole)
    torch.testing.assert_close(aamr_loss(logits, labels, saliency), whole)


@given(seeds, st.sampled_from([Aamr(), SaliencyBce(alpha=0.5), Aamr(tau="batch", background="sigmoid")]))
def test_without_a_map_it_is_the_cross_entropy(seed: int, loss: Any) -> None:
    logits, labels, saliency = drawn(seed)
    nowhere = torch.zeros_like(labels, dtype=torch.bool)
    terms = loss.terms(logits, Targets(labels, planes={"saliency": saliency}, valid=nowhere))
    torch.testing.assert_close(terms["loss"], cross_entropy(logits, labels))


@given(seeds)
def test_an_image_without_a_map_leaves_the_others_alone(seed: int) -> None:
    logits, labels, saliency = drawn(seed)
    valid = torch.ones_like(labels, dtype=torch.bool)
    valid[1] = False
    changed = saliency.clone()
    changed[1] = 1 - changed[1]
    first = aamr_loss(logits, labels, saliency, valid=valid)
    torch.testing.assert_close(aamr_loss(logits, labels, changed, valid=valid), first)
    tau, alone = conflict_temperature(labels, saliency, valid)[0], background_loss(logits, saliency)[0]
    torch.testing.assert_close(first, cross_entropy(logits, labels) + 0.08 * tau.expm1() * alone / 2)


def test_the_temperature_has_no_gradient(example: tuple[Tensor, Tensor, Tensor]) -> None:
    """Trap 50: the gradient is that of the two terms with tau a constant."""
    logits, labels, saliency = example
    logits, saliency = logits.requires_grad_(), saliency.requires_grad_()
    (found,) = torch.autograd.grad(aamr_loss(logits, labels, saliency), logits)
    fixed = cross_entropy(logits, labels) + 0.08 * math.expm1(0.5) * background_loss(logits, saliency.detach()).mean()
    (expected,) = torch.autograd.grad(fixed, logits)
    torch.testing.assert_close(found, expected)


def test_the_weight_of_the_saliency_term_lies_in_its_range(example: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, labels, _ = example
    for plane, weight in (((labels == 0).float(), 0.0), ((labels != 0).float(), 0.08 * (math.e - 1))):
        plain, term = cross_entropy(logits, labels), background_loss(logits, plane).mean()
        torch.testing.assert_close(aamr_loss(logits, labels, plane), plain + weight * term)


def test_several_outputs_are_summed(example: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, labels, saliency = example
    alone = aamr_loss(logits, labels, saliency)
    torch.testing.assert_close(aamr_loss([logits, logits], labels, saliency), 2 * alone)
    doubled = [plane.repeat_interleave(2, -1).repeat_interleave(2, -2) for plane in (labels, saliency)]
    tau = conflict_temperature(*doubled)
    small = Aamr().terms([logits], Targets(doubled[0], planes={"saliency": doubled[1]}))
    assert float(small["tau"]) == float(tau)
    torch.testing.assert_close(small["segmentation"], cross_entropy(logits, labels))
    torch.testing.assert_close(small["saliency"], background_loss(logits, saliency).mean())


def test_weights_reach_the_cross_entropy_alone(example: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, labels, saliency = example
    weights = torch.tensor([[[0.0, 1.0], [1.0, 0.5]]])
    terms = Aamr().terms(logits, Targets(labels, weights=weights, planes={"saliency": saliency}))
    torch.testing.assert_close(terms["segmentation"], cross_entropy(logits, labels, weights))
    torch.testing.assert_close(terms["saliency"], background_loss(logits, saliency).mean())


def test_shapes_that_do_not_fit_are_said(example: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, labels, saliency = example
    with pytest.raises(ValueError, match="one shape"):
        aamr_loss(logits, labels, saliency[:, :1])
    with pytest.raises(ValueError, match="one shape"):
        SaliencyBce().terms(logits, Targets(labels))
