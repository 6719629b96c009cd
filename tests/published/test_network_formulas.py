"""Backbones with random weights against forwards written down block by block, folded batch norms, and SPA's loss.

The weights are random and the images are not symmetric, so that a block left out, taken twice, in another place or with
its axes mirrored gives other numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from formulas import close, drawn, sigmoid, softmax
from tagmask.backbones.inception_v3 import InceptionV3
from tagmask.backbones.vgg16 import Vgg16
from tagmask.backbones.wide_resnet38 import WideResNet38
from tagmask.methods.spa.head import restricted_activation_loss
from tagmask.models.folding import fold_batch_norms

State = dict[str, Tensor]
IMAGENET = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def restless(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that keep numbers of about one, biases, and batch norms that are not the identity; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            inputs = module.weight[0].numel()
            module.weight.data.normal_(0, math.sqrt(2 / inputs), generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.7, 1.3, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)  # type: ignore[union-attr]
            module.running_var.uniform_(0.7, 1.3, generator=generator)  # type: ignore[union-attr]
    return model.eval()


def image(height: int, width: int) -> Tensor:
    return torch.from_numpy(drawn(height * width, 1, 3, height, width, low=-2, high=2)).float()


def norm(state: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, ReLU."""
    mean, var, weight, bias = (
        state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return ((x - mean) / (var + eps).sqrt() * weight + bias).relu()


def basic(state: State, name: str, x: Tensor, stride: int = 1, padding: Any = 0) -> Tensor:
    """Inception's convolution: without bias, batch norm with eps 0.001, ReLU."""
    return norm(state, f"{name}.bn", functional.conv2d(x, state[f"{name}.conv.weight"], None, stride, padding), 1e-3)


def mixed_5(state: State, name: str, x: Tensor) -> Tensor:
    """35x35 block: 1x1; 5x5; two 3x3; pool."""
    five = basic(state, f"{name}.branch5x5_2", basic(state, f"{name}.branch5x5_1", x), padding=2)
    three = basic(state, f"{name}.branch3x3dbl_1", x)
    for part in ("branch3x3dbl_2", "branch3x3dbl_3"):
        three = basic(state, f"{name}.{part}", three, padding=1)
    pool = basic(state, f"{name}.branch_pool", functional.avg_pool2d(x, 3, stride=1, padding=1))
    return torch.cat([basic(state, f"{name}.branch1x1", x), five, three, pool], 1)


def mixed_6a(state: State, x: Tensor) -> Tensor:
    """SPG's: no stride, padding 1 everywhere, the pool included."""
    three = basic(state, "Mixed_6a.branch3x3", x, padding=1)
    double = basic(state, "Mixed_6a.branch3x3dbl_2", basic(state, "Mixed_6a.branch3x3dbl_1", x), padding=1)
    double = basic(state, "Mixed_6a.branch3x3dbl_3", double, padding=1)
    return torch.cat([three, double, functional.max_pool2d(x, 3, stride=1, padding=1)], 1)


def mixed_6(state: State, name: str, x: Tensor) -> Tensor:
    """17x17 block: 1x1; 1x7 and 7x1; twice 7x1 and 1x7; pool."""
    row, column = (0, 3), (3, 0)  # padding of 1x7 and of 7x1
    seven = basic(state, f"{name}.branch7x7_1", x)
    seven = basic(state, f"{name}.branch7x7_2", seven, padding=row)
    seven = basic(state, f"{name}.branch7x7_3", seven, padding=column)
    double = basic(state, f"{name}.branch7x7dbl_1", x)
    for number, padding in ((2, column), (3, row), (4, column), (5, row)):
        double = basic(state, f"{name}.branch7x7dbl_{number}", double, padding=padding)
    pool = basic(state, f"{name}.branch_pool", functional.avg_pool2d(x, 3, stride=1, padding=1))
    return torch.cat([basic(state, f"{name}.branch1x1", x), seven, double, pool], 1)


def inception(state: State, images: Tensor, stride: int) -> list[Tensor]:
    """Table of 1.3: stem, Mixed_5b to 5d, a pool where the stride is 16, Mixed_6a to 6e; five taps."""
    mean, std = IMAGENET
    x = (images * std + mean) * 2 - 1  # what these weights expect
    x = basic(state, "Conv2d_1a_3x3", x, stride=2, padding=1)
    x = basic(state, "Conv2d_2b_3x3", basic(state, "Conv2d_2a_3x3", x), padding=1)
    first = functional.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)
    x = basic(state, "Conv2d_4a_3x3", basic(state, "Conv2d_3b_1x1", first))
    second = functional.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)
    third = second
    for letter in "bcd":
        third = mixed_5(state, f"Mixed_5{letter}", third)
    x = functional.max_pool2d(third, 3, stride=2, ceil_mode=True) if stride == 16 else third
    fourth = mixed_6(state, "Mixed_6c", mixed_6(state, "Mixed_6b", mixed_6a(state, x)))
    return [first, second, third, fourth, mixed_6(state, "Mixed_6e", mixed_6(state, "Mixed_6d", fourth))]


@pytest.mark.parametrize("stride", [16, 8])
def test_inception_block_by_block(stride: int) -> None:
    model = restless(InceptionV3(stride))
    with torch.inference_mode():
        pictures = image(75, 91)
        result, expected = model(pictures), inception(model.state_dict(), pictures, stride)
        mirrored = model(pictures.flip(-1))
    assert len(result) == len(expected) == 5
    for number, (one, own) in enumerate(zip(result, expected, strict=True)):
        assert float(own.std()) > 0.05, f"stage {number} carries nothing"
        close(one, own.numpy(), 1e-4)
    assert [tap.shape[1] for tap in result] == [64, 192, 288, 768, 768]
    assert not torch.allclose(mirrored[4].flip(-1), result[4], atol=0.01), "a mirror is told from its image"


def test_vgg16_layer_by_layer() -> None:
    model = restless(Vgg16(width=8))
    pictures, state = image(37, 50), model.state_dict()
    x, number, expected = pictures, 0, []
    for block, convs in enumerate((2, 2, 3, 3, 3)):
        for _ in range(convs):
            x = functional.conv2d(x, state[f"features.{number}.weight"], state[f"features.{number}.bias"], padding=1)
            x, number = x.relu(), number + 2  # the ReLU has a number too
        number += 1  # and so has the pool, the fifth in name only
        if block < 4:
            x = functional.max_pool2d(x, 2, ceil_mode=True)
        expected.append(x)
    with torch.inference_mode():
        for one, own in zip(model(pictures), expected, strict=True):
            close(one, own.numpy(), 1e-4)
    assert expected[3].shape[2:] == expected[4].shape[2:] == (3, 4), "stages 4 and 5 are both at stride 16"


def wide(state: State, images: Tensor) -> list[Tensor]:
    """Table of 1.2."""

    def conv(name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        padding = dilation if weight.shape[-1] == 3 else 0
        return functional.conv2d(x, weight, None, stride, padding, dilation)

    def unit_a(name: str, x: Tensor, stride: int = 1, first: int = 1, second: int = 1) -> Tensor:
        a = norm(state, f"{name}.bn_branch2a", x)
        branch = norm(state, f"{name}.bn_branch2b1", conv(f"{name}.conv_branch2a", a, stride, first))
        shortcut = conv(f"{name}.conv_branch1", a, stride) if f"{name}.conv_branch1.weight" in state else x
        return shortcut + conv(f"{name}.conv_branch2b1", branch, 1, second)

    def unit_b(name: str, x: Tensor) -> Tensor:
        a = norm(state, f"{name}.bn_branch2a", x)
        branch = norm(state, f"{name}.bn_branch2b1", conv(f"{name}.conv_branch2a", a))
        branch = norm(state, f"{name}.bn_branch2b2", conv(f"{name}.conv_branch2b1", branch, 1, 4))
        return conv(f"{name}.conv_branch1", a) + conv(f"{name}.conv_branch2b2", branch)

    x = conv("conv1a", images)
    for block, more in (("b2", 2), ("b3", 2), ("b4", 5)):
        x = unit_a(block, x, stride=2)
        for number in range(1, more + 1):
            x = unit_a(f"{block}_{number}", x)
    conv4 = norm(state, "b5.bn_branch2a", x)
    x = unit_a("b5", x, 1, 1, 2)
    x = unit_a("b5_2", unit_a("b5_1", x, 1, 2, 2), 1, 2, 2)
    conv5 = norm(state, "b6.bn_branch2a", x)
    return [conv4, conv5, norm(state, "bn7", unit_b("b7", unit_b("b6", x)))]


def test_wide_resnet38_unit_by_unit() -> None:
    model = restless(WideResNet38(width=4))
    pictures = image(33, 47)
    with torch.inference_mode():
        for one, own in zip(model(pictures), wide(model.state_dict(), pictures), strict=True):
            close(one, own.numpy(), 1e-4)
            assert own.shape[2:] == (5, 6), "each of three strides rounds up"


class Chain(nn.Module):
    """A folded pair with bias, one without, a shortcut that reads a convolution, and a norm before a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.one_norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, eps=0.1)
        self.two, self.two_norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.three, self.three_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.four_norm, self.four = nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one_norm(self.one(x)).relu()
        x = self.two_norm(self.two(x)).relu()
        seen = self.three(x)
        x = self.three_norm(seen) + seen
        result: Tensor = self.four(self.four_norm(x))
        return result


def test_a_folded_norm_is_a_factor_and_an_offset_of_its_convolution() -> None:
    model = restless(Chain())
    pictures, before = image(7, 9), {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        expected = model(pictures)
    assert fold_batch_norms(model, pictures) == 2
    with torch.inference_mode():
        close(model(pictures), expected.numpy(), 1e-5)
    for name, eps in (("one", 0.1), ("two", 1e-5)):
        state = {key: value.double().numpy() for key, value in before.items()}
        factor = state[f"{name}_norm.weight"] / np.sqrt(state[f"{name}_norm.running_var"] + eps)
        bias = state.get(f"{name}.bias", 0.0) - state[f"{name}_norm.running_mean"]
        folded = getattr(model, name)
        close(folded.weight, state[f"{name}.weight"] * factor[:, None, None, None], 1e-6)
        close(folded.bias, bias * factor + state[f"{name}_norm.bias"], 1e-6)
    for name in ("three", "four"):
        close(getattr(model, name).weight, before[f"{name}.weight"].numpy(), 0)


@pytest.mark.parametrize(
    ("build", "size"), [(lambda: InceptionV3(), (75, 80)), (lambda: WideResNet38(width=4), (24, 32))]
)
def test_folding_leaves_a_backbone_as_it_is(build: Callable[[], nn.Module], size: tuple[int, int]) -> None:
    model = restless(build())
    pictures = image(*size)
    with torch.inference_mode():
        before = model(pictures)
    assert fold_batch_norms(model, pictures) > 10
    with torch.inference_mode():
        for one, own in zip(model(pictures), before, strict=True):
            close(one, own.numpy(), 1e-4)


def restricted(maps: np.ndarray, tags: np.ndarray, delta: float, gap: float) -> float:
    """9.5: v = variance over classes of the softmax, min-max per image; a = sigmoid of the true class's map."""
    total = 0.0
    for b in range(len(maps)):
        spread = np.var(softmax(maps[b], 0), axis=0, ddof=1)
        v = (spread - spread.min()) / (spread.max() - spread.min())
        terms = []
        for c in np.flatnonzero(tags[b]):
            own = 0.0
            for y, x in np.ndindex(*v.shape):
                a = sigmoid(maps[b, c, y, x])
                own += a if v[y, x] < delta else 1 - a if v[y, x] > delta + gap else 0.0
            terms.append(own / v.size)
        total += sum(terms) / len(terms) if terms else 0.0
    return total / len(maps)


@pytest.mark.parametrize(("delta", "gap"), [(0.1, 0.2), (0.4, 0.1)])
def test_spas_restricted_activation(delta: float, gap: float) -> None:
    maps = drawn(3, 3, 4, 5, 6, low=-3, high=3)
    tags = np.array([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]], float)
    result = restricted_activation_loss(*map(torch.from_numpy, (maps, tags)), delta=delta, gap=gap)
    assert result.item() == pytest.approx(restricted(maps, tags, delta, gap), abs=1e-6)


def test_a_place_exactly_at_delta_is_no_background() -> None:
    """The least spread is 0, which is not below 0; and none lies above 1."""
    maps = torch.from_numpy(drawn(3, 1, 4, 3, 5, low=-2, high=2))
    tags = torch.tensor([[0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    assert restricted_activation_loss(maps, tags, delta=0.0, gap=1.0).item() == 0.0
    assert restricted_activation_loss(maps, tags, delta=1e-9, gap=1.0).item() > 0.0
