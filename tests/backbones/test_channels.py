"""The first convolution of a network for other channels than red, green and blue."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tagmask.backbones.build import build_backbone, take_classifier_backbone
from tagmask.backbones.channels import fit_input, fitting_statistics, set_input, widen_input
from tagmask.errors import InputError
from tagmask.methods.deeplabv2.network import DeepLabV2
from tagmask.methods.deeplabv3plus.network import DeepLabV3Plus
from tagmask.methods.segformer.network import Segformer
from tagmask.methods.upernet.network import UPerNet
from tagmask.models.classifier import build_classifier
from tagmask.settings.classify import ClassifySettings
from tagmask.storage.weights import save_weights, statistics_entry
from tagmask.types import IMAGENET, InputStatistics

FIVE = InputStatistics((0.1, 0.2, 0.3, 0.4, 0.5), (1.0, 0.9, 0.8, 0.7, 0.6))
SMALL = {"channels": [8, 16, 24, 32], "stem_width": 8}


@pytest.mark.parametrize("new", [1, 2, 4, 5, 6, 7])
def test_alike_channels_give_what_colours_gave(new: int) -> None:
    """Exactly where all colours come equally often; else the mean of the weights' response is kept."""
    torch.manual_seed(0)
    network, grey = nn.Sequential(nn.Conv2d(3, 4, 3)), torch.rand(1, 1, 9, 9)
    if new in (4, 5, 7, 2):
        network[0].weight.data[:] = network[0].weight.data.mean(1, keepdim=True)
    before = network(grey.expand(1, 3, 9, 9))
    widen_input(network, 3, new)
    torch.testing.assert_close(network(grey.expand(1, new, 9, 9)), before)


def test_three_channels_are_left_alone() -> None:
    network = nn.Conv2d(3, 4, 3)
    weight = network.weight
    widen_input(network, 3, 3)
    assert network.weight is weight


@pytest.mark.parametrize(
    "name",
    ["resnet10t", "tf_efficientnet_lite0", "mobilenetv3_small_050", "vgg16_wsol", "vit_tiny_patch16_224"],
)
def test_backbones(name: str) -> None:
    own = name == "vgg16_wsol"
    dynamic = {"dynamic_img_size": True, "dynamic_img_pad": True}
    options = {"args": dynamic, "output_stride": 32} if name.startswith("vit") else {}
    backbone = build_backbone(name, dilate=not own, **options).eval()  # type: ignore[arg-type]
    set_input(backbone, FIVE)
    assert backbone.input_statistics == FIVE
    assert backbone(torch.zeros(1, 5, 64, 64))[backbone.n_stages].shape[0] == 1
    frozen = backbone.parameters_up_to(1)
    assert any(parameter.shape[1:2] == (5,) for parameter in frozen)


@pytest.mark.parametrize(
    "settings",
    [
        DeepLabV3Plus(encoder="resnet10t", encoder_args=SMALL),
        DeepLabV2(depth=14, width=8),
        UPerNet(encoder="resnet10t", encoder_args=SMALL, decoder_channels=8, auxiliary_channels=8),
        Segformer(encoder="mit_b0", decoder_channels=8),
    ],
    ids=lambda settings: settings.name,
)
def test_networks(settings: DeepLabV3Plus) -> None:
    model = settings.build(4).eval()
    set_input(model, FIVE)
    with torch.inference_mode():
        assert model(torch.zeros(1, 5, 45, 67)).shape == (1, 4, 45, 67)


@pytest.mark.parametrize("network", ["deeplabv3plus", "deeplabv2"])
def test_a_network_starts_from_a_classifier_of_bands(network: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    deep = network == "deeplabv2"
    name, args = ("resnet26", {"stem_width": 8}) if deep else ("resnet10t", SMALL)
    classifier = build_classifier(ClassifySettings(backbone=name, backbone_args={} if deep else args), 2)
    set_input(classifier.backbone, FIVE)
    path = tmp_path / "c.safetensors"
    save_weights(path, classifier, {"kind": "classifier", **statistics_entry(FIVE)})
    settings = (
        DeepLabV2(depth=26, weights="classifier")
        if deep
        else DeepLabV3Plus(encoder=name, encoder_args=args, weights="classifier")
    )
    model = settings.build(3, classifier=path)
    assert model.input_statistics == FIVE
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    origin = next(module for module in classifier.modules() if isinstance(module, nn.Conv2d))
    torch.testing.assert_close(first.weight, origin.weight)

    backbone = build_backbone(name, args={} if deep else args)
    take_classifier_backbone(backbone, classifier.state_dict(), path)
    assert backbone.n_channels == 5


HALF = InputStatistics((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("weights", [IMAGENET, HALF], ids=["imagenet", "half"])
def test_channels_are_to_a_network_what_photographs_are_to_its_weights(weights: InputStatistics) -> None:
    fitted = fitting_statistics(weights, FIVE)
    photographs, deviation = sum(IMAGENET.mean) / 3, sum(IMAGENET.std) / 3
    centre, spread = sum(weights.mean) / 3, sum(weights.std) / 3
    for mean, std, data_mean, data_std in zip(fitted.mean, fitted.std, FIVE.mean, FIVE.std, strict=True):
        assert (data_mean - mean) / std == pytest.approx((photographs - centre) / spread)
        assert data_std / std == pytest.approx(deviation / spread)
    if weights == IMAGENET:
        assert fitted.mean == pytest.approx(FIVE.mean)
        assert fitted.std == pytest.approx(FIVE.std)
    network = build_backbone("resnet10t", args=SMALL)
    network.input_statistics = weights
    fit_input(network, FIVE)
    assert network.input_statistics == fitted


def test_what_cannot_be_widened_says_so() -> None:
    with pytest.raises(InputError, match=r"data\.channels: a network of this kind takes colours only"):
        set_input(DeepLabV2(depth=14, width=8, layout="caffe").build(3), FIVE)
    with pytest.raises(InputError, match="takes colours only"):
        set_input(build_backbone("inception_v3_wsol", dilate=False), FIVE)
    with pytest.raises(InputError, match="trained on 5 channels, the images have 3"):
        widen_input(nn.Conv2d(5, 4, 3), 5, 3)
    for network in (nn.Sequential(nn.Linear(3, 4)), nn.Sequential(nn.Conv2d(12, 4, 1))):
        with pytest.raises(InputError, match="begins with no convolution over its 3 channels"):
            widen_input(network, 3, 5)


def test_gradients_of_a_frozen_stem_stay_off() -> None:
    classifier = build_classifier(ClassifySettings(backbone="resnet10t", backbone_args=SMALL, freeze=1), 2)
    set_input(classifier.backbone, FIVE)
    first = next(module for module in classifier.modules() if isinstance(module, nn.Conv2d))
    assert first.weight.shape[1] == 5
    assert not first.weight.requires_grad
    assert classifier.input_statistics != IMAGENET
