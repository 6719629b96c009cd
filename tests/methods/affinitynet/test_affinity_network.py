"""AffinityNet's network: the published layout on WideResNet-38, other backbones, odd sizes, what learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from tagmask.backbones.build import Backbone, build_backbone
from tagmask.methods.affinitynet.model import AffinityNetwork, affinity_taps
from tagmask.methods.irnet.model import Tap

SMALL = {"channels": [8, 16, 24, 32], "stem_width": 8}


def resnet(**options) -> Backbone:
    torch.manual_seed(0)
    return build_backbone("resnet10t", args=SMALL, **options)


@pytest.fixture(scope="module")
def wide() -> AffinityNetwork:
    torch.manual_seed(0)
    backbone = build_backbone("wide_resnet38", args={"width": 4, "dropout": 0.0}, output_stride=8)
    return AffinityNetwork(backbone).eval()


def test_published_layout(wide):
    shapes = {name: tuple(value.shape) for name, value in wide.named_parameters() if not name.startswith("backbone.")}
    assert shapes == {
        "reduce.0.weight": (64, 32, 1, 1),
        "reduce.1.weight": (128, 64, 1, 1),
        "reduce.2.weight": (256, 256, 1, 1),
        "join.weight": (448, 448, 1, 1),
    }
    assert affinity_taps([512, 1024, 4096], [8, 8, 8]) == (Tap(1, 512, 8), Tap(2, 1024, 8), Tap(3, 4096, 8))


def test_published_forward(wide):
    """Three ELUs of 1x1 convolutions side by side, one on all."""
    images = torch.randn(2, 3, 45, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        conv4, conv5, conv6 = wide.backbone(images).values()
        parts = [
            functional.elu(functional.conv2d(value, layer.weight))
            for value, layer in zip((conv4, conv5, conv6), wide.reduce, strict=True)
        ]
        expected = functional.elu(functional.conv2d(torch.cat(parts, 1), wide.join.weight))
        found = wide(images)
    assert found.shape == (2, 448, 6, 9)
    assert torch.equal(found, expected)


def test_first_values_are_the_published_ones():
    network = AffinityNetwork(build_backbone("wide_resnet38", args={"width": 4}, output_stride=8))
    for layer in network.reduce:
        assert float(layer.weight.detach().std()) == pytest.approx((2 / layer.in_channels) ** 0.5, rel=0.1)
    assert float(network.join.weight.detach().abs().max()) <= 4 * (6 / 896) ** 0.5
    assert float(network.join.weight.detach().std()) == pytest.approx(4 * (2 / 896) ** 0.5, rel=0.05)


def test_taps_of_other_backbones():
    assert affinity_taps([64, 256, 512, 1024, 2048], [2, 4, 8, 16, 16])[0] == Tap(3, 512, 8)
    network = AffinityNetwork(resnet())
    assert [tap.stride for tap in network.taps] == [8, 16, 16]
    assert [layer.out_channels for layer in network.reduce] == [64, 128, 256]
    with pytest.raises(ValueError, match="nothing to read"):
        affinity_taps([8, 8], [2, 4])
    with pytest.raises(ValueError, match="argument"):
        affinity_taps([8, 8], [2])


def test_more_taps_than_three():
    """A final convolution is a stage of its own."""
    backbone = build_backbone("mobilenetv2_035", args={"pad_type": "same"}, final_conv=True)
    network = AffinityNetwork(backbone)
    assert [layer.out_channels for layer in network.reduce] == [64, 64, 128, 256]
    assert network.eval()(torch.zeros(1, 3, 61, 90)).shape == (1, 512, 8, 12)


@pytest.mark.parametrize("size", [(64, 96), (61, 75), (33, 50), (1, 7)])
def test_any_size(size):
    found = AffinityNetwork(resnet()).eval()(torch.randn(2, 3, *size))
    assert found.shape == (2, 448, -(-size[0] // 8), -(-size[1] // 8))
    assert torch.isfinite(found).all()


def test_batch_norms_stay_and_the_rest_learns():
    network = AffinityNetwork(resnet(), freeze=2).train()
    assert network.training
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(module.training for module in norms)
    network(torch.randn(2, 3, 64, 64)).sum().backward()
    named = dict(network.named_parameters())
    learns = {name for name, value in named.items() if value.grad is not None}
    assert learns == {name for name, value in named.items() if value.requires_grad}
    assert "backbone.model.layer1.0.conv1.weight" not in learns
    assert {"backbone.model.layer2.0.conv1.weight", "reduce.0.weight", "join.weight"} <= learns


def test_a_backbone_keeps_its_mode():
    backbone = resnet().train()
    AffinityNetwork(backbone)
    assert backbone.training
