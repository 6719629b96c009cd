"""Folded batch norms: the same outputs, and only where a convolution's output goes nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers.std_conv import ScaledStdConv2d
from torch import Tensor, nn

from tagmask import registry
from tagmask.contracts.network import SegmentationModel
from tagmask.models.classifier import build_classifier
from tagmask.models.folding import fold_batch_norms
from tagmask.settings.classify import ClassifySettings
from tagmask.types import ClassifierOutput

NETWORKS: dict[str, dict[str, Any]] = {
    "deeplabv2": {"depth": 14, "width": 8},
    "deeplabv3plus": {"encoder": "mobilenetv2_035", "decoder_channels": 16, "encoder_args": {"pad_type": "same"}},
    "segformer": {"encoder": "resnet10t", "decoder_channels": 16},
    "unet": {"decoder_channels": (32, 16, 16, 8, 8)},
    "upernet": {"encoder": "efficientnet_b0", "decoder_channels": 16},
}


def with_statistics(model: nn.Module) -> nn.Module:
    """In eval mode, with batch norms that do something."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(module.bias, 0, 0.2, generator=generator)
    return model.eval()


def noise(height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize("name", registry.entries("network"))
def test_every_network_is_the_same_afterwards(name: str) -> None:
    torch.manual_seed(0)
    model = with_statistics(registry.get("network", name)(**NETWORKS.get(name, {})).build(4))
    views, norms = noise(47, 90), sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    with torch.inference_mode():
        before = model(views)
        assert fold_batch_norms(model, noise()) > 0.8 * norms > 0
        after = model(views)
    assert float((after - before).abs().max()) < 1e-4 * float(before.abs().max())


CLASSIFIERS: dict[str, dict[str, Any]] = {
    "mobilenetv2": {"backbone": "mobilenetv2_035", "backbone_args": {"pad_type": "same"}, "final_conv": True},
    "efficientnet": {"backbone": "tf_efficientnet_lite0", "final_conv": True},
    "resnet": {"backbone": "resnet10t", "output_stride": 16, "head": "visual_words"},
    "wide_resnet38": {"backbone": "wide_resnet38", "backbone_args": {"width": 4}, "output_stride": 8},
    "inception_v3": {"backbone": "inception_v3_wsol", "dilate": False, "head": "recam"},
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_gives_the_same_features_logits_and_gradients(name: str) -> None:
    """All stages, for polishers; and the gradient of the image, which AdvCAM climbs."""
    torch.manual_seed(0)
    settings = ClassifySettings.model_validate({"weights": None, **CLASSIFIERS[name]})
    model: Any = with_statistics(build_classifier(settings, 5)).requires_grad_(False)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())

    def outputs() -> list[Tensor]:
        views = noise(75, 92).requires_grad_()
        output = model(views)
        (gradient,) = torch.autograd.grad(output.features.square().sum(), views)
        return [gradient, output.logits, output.features, *output.feature_taps.values()]

    before = outputs()
    folded = fold_batch_norms(model, noise())
    assert folded > (0.2 if name == "wide_resnet38" else 0.9) * norms > 0  # units that begin with a norm keep it
    for number, (one, other) in enumerate(zip(outputs(), before, strict=True)):
        # A gradient has steps where a ReLU6 opens and closes, by which rounding is enlarged.
        limit = 2e-3 if number == 0 else 1e-4
        assert float((one - other).detach().abs().max()) < limit * float(other.detach().abs().max())


def test_what_a_classifier_gives_away_is_not_folded() -> None:
    def use(net: Any, views: Tensor) -> ClassifierOutput:
        low = net.conv(views)
        return ClassifierOutput(net.bn(low), {1: low}, low.mean((2, 3)))

    net = with_statistics(Net(use))
    before = net(noise()).feature_taps[1]
    assert fold_batch_norms(net, noise(8, 8)) == 0
    assert torch.equal(net(noise()).feature_taps[1], before)


class Net(nn.Module):
    """What a test says, on one convolution and one batch norm."""

    def __init__(self, use: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.use = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), use
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, views: Tensor) -> Tensor:
        return self.use(self, views)


SHARED = nn.Conv2d(3, 3, 1)
CASES: dict[str, tuple[Net, int]] = {
    "one after the other": (Net(lambda m, x: m.bn(m.conv(x))), 1),
    "several times": (Net(lambda m, x: m.bn(m.conv(m.bn(m.conv(x))))), 1),
    "without affine": (Net(lambda m, x: m.bn(m.conv(x)), bn=nn.BatchNorm2d(3, affine=False)), 1),
    "without bias": (Net(lambda m, x: m.bn(m.conv(x)), conv=nn.Conv2d(3, 3, 1, bias=False)), 1),
    "groups": (Net(lambda m, x: m.bn(m.conv(x)), conv=nn.Conv2d(3, 3, 3, groups=3)), 1),
    "something between": (Net(lambda m, x: m.bn(m.conv(x).relu())), 0),
    "seen twice": (Net(lambda m, x: (lambda y: m.bn(y) + y)(m.conv(x))), 0),
    "changed in place": (Net(lambda m, x: m.bn(m.conv(x).mul_(2))), 0),
    "also given away": (Net(lambda m, x: (lambda y: (m.bn(y), y))(m.conv(x))), 0),  # type: ignore[arg-type, return-value]
    "norm first": (Net(lambda m, x: m.conv(m.bn(x))), 0),
    "norm on two": (Net(lambda m, x: m.bn(m.conv(x)) + m.bn(x)), 0),
    "convolution for two": (Net(lambda m, x: m.bn(m.conv(x)) + m.conv(2 * x)), 0),
    "its own kind of convolution": (Net(lambda m, x: m.bn(m.conv(x)), conv=ScaledStdConv2d(3, 3, 3, padding=1)), 0),
    "statistics of the batch": (Net(lambda m, x: m.bn(m.conv(x)), bn=nn.BatchNorm2d(3, track_running_stats=False)), 0),
    "weights of two": (Net(lambda m, x: m.bn(m.conv(x)) + m.other(x), conv=SHARED, other=nn.Conv2d(3, 3, 1)), 0),
}
CASES["weights of two"][0].other.weight = SHARED.weight


@pytest.mark.parametrize("case", CASES)
def test_only_what_may_be_folded_is(case: str) -> None:
    net, expected = CASES[case]
    if case != "statistics of the batch":
        with_statistics(net)
    net.eval()
    with torch.no_grad():
        before = net(noise())
        assert fold_batch_norms(net, noise(8, 8)) == expected
        after = net(noise())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert isinstance(net.bn, nn.Identity) == (expected == 1)


def test_one_in_training_mode_stays() -> None:
    net = Net(lambda m, x: m.bn(m.conv(x))).train()
    assert fold_batch_norms(net, noise()) == 0


def test_hooks_stay_with_what_they_were_put_on() -> None:
    net = Net(lambda m, x: m.bn(m.conv(x))).eval()
    seen: list[Tensor] = []
    net.conv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert fold_batch_norms(net, noise()) == 0
    assert len(seen) == 1


def test_within_a_model_of_any_size() -> None:
    model = SegmentationModel(with_statistics(Net(lambda m, x: m.bn(m.conv(x)))), grid=32).eval()
    assert fold_batch_norms(model, noise(5, 7)) == 1
