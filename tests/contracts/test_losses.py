"""The contract of losses: labels and what they need in, named scalars out, 'loss' among them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tagmask.contracts.loss import Targets
from tagmask.contracts.planes import SOURCES


def batch(size: tuple[int, int] = (6, 8)) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (2, *size), generator=generator)
    labels[0, :2] = 255
    valid = torch.ones(2, *size, dtype=torch.bool)
    valid[0, :1] = False
    return {"labels": labels, "planes": {"saliency": torch.rand(2, *size, generator=generator)}, "valid": valid}


def logits(size: tuple[int, int] = (6, 8)) -> Tensor:
    return torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(1), requires_grad=True)


def test_it_says_what_it_needs(loss: Any) -> None:
    assert loss.needs <= SOURCES.keys()


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_named_scalars_with_a_gradient(loss: Any, n_outputs: int) -> None:
    outputs = [logits(size) for size in ((6, 8), (3, 4), (1, 1))[:n_outputs]]
    terms = loss.terms(outputs[0] if n_outputs == 1 else outputs, Targets(**batch()))
    assert all(term.ndim == 0 and torch.isfinite(term) for term in terms.values())
    terms["loss"].backward()
    for output in outputs:
        assert output.grad is not None
        assert output.grad.any()


def test_several_outputs_are_summed(loss: Any) -> None:
    one = loss.terms(logits(), Targets(**batch()))["loss"]
    torch.testing.assert_close(loss.terms([logits()] * 3, Targets(**batch()))["loss"], 3 * one)
    torch.testing.assert_close(loss.terms([logits()] * 2, Targets(**batch(), factors=(1.0, 0.4)))["loss"], 1.4 * one)


def test_half_precision_outputs_are_taken(loss: Any) -> None:
    half = loss.terms(logits().bfloat16(), Targets(**batch()))["loss"]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, loss.terms(logits(), Targets(**batch()))["loss"], rtol=0.02, atol=0.02)


def test_nothing_to_learn_from_costs_nothing(loss: Any) -> None:
    given = batch()
    given["labels"][:], given["valid"][:] = 255, False
    output = logits()
    terms = loss.terms(output, Targets(**given))
    terms["loss"].backward()
    assert float(terms["loss"].detach()) == 0
    assert output.grad is not None
    assert not output.grad.any()


def test_weights_of_one_change_nothing(loss: Any) -> None:
    given = batch()
    weighted = loss.terms(logits(), Targets(**given, weights=torch.ones(given["labels"].shape)))["loss"]
    torch.testing.assert_close(weighted, loss.terms(logits(), Targets(**given))["loss"])


def test_following_the_gradient_learns(loss: Any) -> None:
    given = batch()
    given["planes"] = {"saliency": (given["labels"] != 0).float()}
    output = logits().detach().requires_grad_()
    optimizer = torch.optim.Adam([output], lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        loss.terms(output, Targets(**given))["loss"].backward()
        optimizer.step()
    counted = given["labels"] != 255
    assert bool((output.argmax(1) == given["labels"])[counted].all())
