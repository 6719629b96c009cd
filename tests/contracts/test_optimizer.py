"""Parameter groups, optimisers and the schedules, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from tagmask.contracts.optimizer import OptimizerSettings, build_optimizer, parameter_groups, rate_factor
from tagmask.errors import InputError


def model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1, bias=False))


def test_pretrained_and_new_parameters_have_their_own_rates() -> None:
    net = model()
    settings = OptimizerSettings(lr=0.1, head_lr=1.0, weight_decay=0.5)
    groups = parameter_groups(settings, [*net[0].parameters(), *net[1].parameters()], net[2].parameters())
    found = {(group["lr"], group["weight_decay"]): sum(p.numel() for p in group["params"]) for group in groups}
    assert found == {(0.1, 0.5): 108, (0.1, 0.0): 4 + 4 + 4, (1.0, 0.5): 8}
    assert all(group["peak_lr"] == group["lr"] for group in groups)


def test_new_biases_learn_faster_and_without_decay() -> None:
    """DeepLabV2's groups: the backbone at lr, the pyramid's weights at 10 lr, its biases at 20 lr without decay."""
    backbone, pyramid = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 2, 3)
    settings = OptimizerSettings(lr=2.5e-4, head_lr=2.5e-3, weight_decay=5e-4, bias_rate=2.0)
    groups = parameter_groups(settings, backbone.parameters(), pyramid.parameters())
    assert [(group["peak_lr"], group["weight_decay"]) for group in groups] == [
        (2.5e-4, 5e-4),
        (2.5e-3, 5e-4),
        (5e-3, 0),
    ]
    with_decay = settings.model_copy(update={"decay_norms": True})
    groups = parameter_groups(with_decay, backbone.parameters(), pyramid.parameters())
    assert [(group["peak_lr"], group["weight_decay"]) for group in groups] == [
        (2.5e-4, 5e-4), (2.5e-3, 5e-4), (5e-3, 5e-4)
    ]  # fmt: skip


def test_some_parameters_never_decay() -> None:
    net = nn.Linear(3, 3, bias=False)
    [group] = parameter_groups(OptimizerSettings(), net.parameters(), [], undecayed=[net.weight])
    assert group["weight_decay"] == 0


def test_decay_on_everything_where_asked_for() -> None:
    settings = OptimizerSettings(decay_norms=True, weight_decay=0.5)
    groups = parameter_groups(settings, model().parameters(), [])
    assert [group["weight_decay"] for group in groups] == [0.5]


def test_every_parameter_that_trains_is_in_exactly_one_group() -> None:
    net = model()
    net[0].weight.requires_grad_(False)
    groups = parameter_groups(OptimizerSettings(), net[:2].parameters(), net[2].parameters())
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize("momentum", [0.9, None])
def test_momentum_of_sgd_and_the_published_quirk(momentum: float | None) -> None:
    settings = OptimizerSettings(kind="sgd", momentum=momentum, weight_decay=5e-4)
    optimizer = build_optimizer(settings, parameter_groups(settings, model().parameters(), []))
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {5e-4 if momentum is None else momentum}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [5e-4, 0.0]


def test_adamw_keeps_the_groups_decay() -> None:
    settings = OptimizerSettings(weight_decay=0.3)
    optimizer = build_optimizer(settings, parameter_groups(settings, model().parameters(), []))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


def test_biases_at_a_rate_of_their_own() -> None:
    settings = OptimizerSettings(lr=0.1, head_lr=1.0, weight_decay=0.5, decay_norms=True, bias_rate=2.0)
    net = model()
    groups = parameter_groups(settings, net[:2].parameters(), net[2].parameters())
    found = [(group["lr"], group["peak_lr"], group["weight_decay"]) for group in groups]
    assert found == [(0.1, 0.1, 0.5), (0.2, 0.2, 0.5), (1.0, 1.0, 0.5)]


def test_steps_by_hand() -> None:
    settings = OptimizerSettings(schedule="steps", milestones=(0.5, 0.75))
    factors = [rate_factor(settings, step, 8) for step in range(8)]
    assert factors == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_nesterov_needs_its_momentum() -> None:
    settings = OptimizerSettings(kind="sgd", nesterov=True)
    optimizer = build_optimizer(settings, parameter_groups(settings, model().parameters(), []))
    assert optimizer.param_groups[0]["nesterov"]
    for wrong in ({"kind": "adamw"}, {"kind": "sgd", "momentum": None}):
        with pytest.raises(ValidationError, match="needs kind: sgd and a momentum"):
            OptimizerSettings.model_validate({**wrong, "nesterov": True})


def test_poly_by_hand() -> None:
    settings = OptimizerSettings(schedule="poly", power=0.9, warmup_steps=0)
    assert [rate_factor(settings, step, 4) for step in range(4)] == pytest.approx([1.0, 0.75**0.9, 0.5**0.9, 0.25**0.9])


def test_warm_up_is_linear() -> None:
    settings = OptimizerSettings(schedule="constant", warmup_steps=4)
    assert [rate_factor(settings, step, 100) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_one_cycle_by_hand() -> None:
    settings = OptimizerSettings(schedule="one_cycle")
    assert rate_factor(settings, 0, 100) == pytest.approx(0.04)
    assert rate_factor(settings, 15, 100) == pytest.approx(0.52)
    assert rate_factor(settings, 30, 100) == pytest.approx(1.0)
    assert rate_factor(settings, 65, 100) == pytest.approx(0.5)
    assert rate_factor(settings, 99, 100) == pytest.approx(0.5 + 0.5 * math.cos(math.pi * 69 / 70), abs=1e-6)


@given(st.sampled_from(["poly", "one_cycle", "constant"]), st.integers(1, 500), st.integers(0, 50), st.data())
def test_rates_stay_between_nothing_and_the_peak(schedule: str, total: int, warmup: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, total - 1))
    settings = OptimizerSettings(schedule=schedule, warmup_steps=warmup)
    assert 0 < rate_factor(settings, step, total) <= 1


def test_plain_adam_adds_the_decay_to_the_gradient() -> None:
    settings = OptimizerSettings(kind="adam", lr=0.1, weight_decay=0.5)
    net = nn.Linear(1, 1, bias=False)
    before = float(net.weight.detach())
    optimizer = build_optimizer(settings, parameter_groups(settings, net.parameters(), []))
    assert type(optimizer) is torch.optim.Adam
    net.weight.grad = torch.zeros_like(net.weight)
    optimizer.step()
    # AdamW would shrink the weight by lr * decay = 5 %; Adam's first step is lr, whatever the gradient's size.
    assert float(net.weight.detach()) == pytest.approx(before - math.copysign(0.1, before), abs=1e-4)


def test_any_optimiser_of_timm_keeps_the_groups() -> None:
    settings = OptimizerSettings(kind="timm", opt="lion", lr=0.1, head_lr=1.0)
    groups = parameter_groups(settings, model()[:2].parameters(), model()[2].parameters())
    optimizer = build_optimizer(settings, groups)
    assert type(optimizer).__name__ == "Lion"
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in groups]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"kind": "timm"}, "kind: timm needs opt"),
        ({"opt": "lion"}, "opt needs kind: timm"),
        ({"kind": "timm", "opt": "lino"}, "Did you mean 'lion'"),
    ],
)
def test_what_timm_does_not_know_is_refused(settings: dict[str, str], match: str) -> None:
    with pytest.raises((ValidationError, InputError), match=match):
        OptimizerSettings(**settings)  # type: ignore[arg-type]
