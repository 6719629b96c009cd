"""The contract of heads: features [B, D, h, w] -> logits [B, C] and extras, class weights [C, D], losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

D, C = 12, 5


def features(b: int = 3, h: int = 5, w: int = 7) -> Tensor:
    return torch.randn(b, D, h, w, generator=torch.Generator().manual_seed(b * 100 + h * 10 + w)).relu()


@pytest.fixture
def module(head: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    built: torch.nn.Module = head.build(D, C)
    return built.eval()


def given(head: Any, tags: Tensor) -> dict[str, Tensor]:
    """What the training set gives with the images, for the heads that need it."""
    made = {"subcategories": lambda part: tags.repeat_interleave(part.clusters, dim=1)}
    return {need.makes: made[need.makes](part) for part in head.parts() for need in part.preparations()}


@pytest.mark.parametrize(("b", "h", "w"), [(3, 5, 7), (1, 1, 1), (2, 1, 9)])
def test_shapes_at_any_size(module: Any, b: int, h: int, w: int) -> None:
    logits, extras = module(features(b, h, w))
    assert logits.shape == (b, C)
    assert torch.isfinite(logits).all()
    assert isinstance(extras, dict)
    assert module.class_weights.shape[1] == D
    assert module.class_weights.shape[0] >= C


def test_an_image_does_not_see_its_neighbours(module: Any) -> None:
    batch = features(3)
    alone = torch.cat([module(batch[i : i + 1])[0] for i in range(3)])
    torch.testing.assert_close(module(batch)[0], alone, rtol=1e-5, atol=1e-6)


def test_the_same_every_time(module: Any) -> None:
    assert torch.equal(module(features())[0], module(features())[0])


def test_built_twice_from_a_seed_it_is_the_same(head: Any) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(head.build(D, C).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_loss_is_finite_and_reaches_every_parameter(head: Any, module: Any) -> None:
    module.train()
    logits, extras = module(features().requires_grad_())
    tags = torch.tensor([[1.0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    terms = module.losses(logits.float(), tags, {**extras, **given(head, tags)})
    assert all(term.ndim == 0 and torch.isfinite(term) for term in terms.values())
    terms["loss"].backward()
    assert all(parameter.grad is not None for parameter in module.parameters() if parameter.requires_grad)


def test_following_the_gradient_learns(head: Any) -> None:
    """Class c lights up channel c: any head tells that within a hundred steps."""
    torch.manual_seed(0)
    module = head.build(D, C).train()
    tags = torch.eye(C)
    lit = torch.zeros(C, D, 3, 3)
    for label in range(C):
        lit[label, label] = 3.0
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(100):
        logits, extras = module(lit)
        optimizer.zero_grad()
        module.losses(logits, tags, {**extras, **given(head, tags)})["loss"].backward()
        optimizer.step()
    assert (module.eval()(lit)[0].argmax(1) == torch.arange(C)).all()


def test_half_precision_is_close(module: Any) -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        half = module(features())[0].float()
    with torch.inference_mode():
        exact = module(features())[0]
    assert float((half - exact).abs().max()) <= 0.03 * max(1.0, float(exact.abs().max()))
