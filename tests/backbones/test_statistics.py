"""What images are normalised with: what the weights were made for, whoever starts from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from tagmask import registry
from tagmask.backbones import build, published
from tagmask.backbones.build import BackboneSettings, build_backbone, take_classifier_backbone
from tagmask.backbones.statistics import statistics_of
from tagmask.errors import InputError
from tagmask.models.classifier import build_classifier, load_classifier
from tagmask.settings.classify import ClassifySettings
from tagmask.storage.weights import load_tensors, save_weights, statistics_entry
from tagmask.types import IMAGENET, ClassList, InputStatistics

HALF = InputStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = InputStatistics((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
OWN = InputStatistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
CLASSES = ClassList(("background", "a", "b"))


@pytest.fixture
def weights(tmp_path: Path) -> Callable[..., Path]:
    """``weights(mean=..., std=...)``: a file of timm's test_resnet (0.5 and 0.5 by its configuration)."""

    def write(**metadata: str) -> Path:
        torch.manual_seed(0)
        path = tmp_path / "w.safetensors"
        save_file(timm.create_model("test_resnet").state_dict(), path, metadata=metadata or None)
        return path

    return write


@pytest.mark.parametrize(
    ("network", "start", "expected"),
    [
        ("resnet50", "timm", IMAGENET),
        ("mobilenetv2_100", "timm", IMAGENET),
        ("tf_efficientnet_lite0", "timm", HALF),
        ("tf_efficientnet_lite0", "installed", HALF),
        ("vit_base_patch16_224.augreg_in21k", "timm", HALF),
        ("vit_base_patch16_clip_224.openai", "timm", CLIP),
        ("tf_efficientnet_lite0", None, IMAGENET),
        ("vit_base_patch16_clip_224.openai", Path("w.pth"), CLIP),
        ("wide_resnet38", Path("w.pth"), IMAGENET),
        ("vgg16_wsol", "timm", IMAGENET),
        ("resnet50.nothing", "timm", IMAGENET),
    ],
    ids=str,
)
def test_weights_bring_their_own(network: str, start: Any, expected: InputStatistics) -> None:
    assert statistics_of(network, start, setting="here") == expected


def test_a_file_states_its_own_or_gets_the_architectures(weights: Callable[..., Path]) -> None:
    assert statistics_of("test_resnet", weights(), setting="here") == HALF
    stated = weights(mean="[0.1, 0.2, 0.3]", std="[0.4, 0.5, 0.6]", format="pt")
    assert statistics_of("test_resnet", stated, setting="here") == OWN
    assert build_backbone("test_resnet", weights=stated).input_statistics == OWN


@pytest.mark.parametrize(
    "metadata",
    [
        {"mean": "[0.5, 0.5, 0.5]"},
        {"mean": "half", "std": "half"},
        {"mean": "[0.5]", "std": "[0.5]"},
        {"mean": "[0, 0, 0]", "std": "[1, 0, 1]"},
        {"mean": "0.5", "std": "0.5"},
        {"mean": '["a", 1, 2]', "std": "[1, 1, 1]"},
        {"mean": "[NaN, 0, 0]", "std": "[1, 1, 1]"},
    ],
    ids=str,
)
def test_what_is_no_statement_is_one_line(weights: Callable[..., Path], metadata: dict[str, str]) -> None:
    path = weights(**metadata)
    with pytest.raises(InputError, match="expected two JSON lists of three numbers") as raised:
        build_backbone("test_resnet", weights=path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_everything_that_starts_from_weights_has_them(weights: Callable[..., Path]) -> None:
    path = weights()
    assert build_classifier(ClassifySettings(backbone="test_resnet", weights=path), 2).input_statistics == HALF
    assert BackboneSettings(backbone="test_resnet", weights=path).build().input_statistics == HALF
    for name in ("deeplabv3plus", "upernet", "segformer", "unet"):
        network = registry.get("network", name)(encoder="test_resnet", weights=path)
        assert network.build(3).input_statistics == HALF, name
        assert registry.get("network", name)(encoder="test_resnet").build(3).input_statistics == IMAGENET, name


def test_published_weights_bring_them_into_every_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm is not asked for weights here, but for everything else."""
    original = timm.create_model
    monkeypatch.setattr(published, "published_copy", lambda *_: None)
    monkeypatch.setattr(build, "published_copy", lambda *_: None)
    monkeypatch.setattr(timm, "create_model", lambda name, **o: original(name, **{**o, "pretrained": False}))
    assert build_backbone("test_resnet", weights="timm").input_statistics == HALF
    assert (
        registry.get("network", "deeplabv3plus")(encoder="test_resnet", weights="timm").build(3).input_statistics
        == HALF
    )
    inception = build_backbone("inception_v3_wsol", weights="timm", dilate=False)
    assert inception.input_statistics == IMAGENET  # it brings them into its own range itself
    assert registry.get("network", "deeplabv2")(depth=50, weights="timm").build(3).input_statistics == IMAGENET


def test_a_stored_classifier_keeps_its_own(weights: Callable[..., Path], tmp_path: Path) -> None:
    """And hands them on, to a network and to a refiner that start from it."""
    settings = ClassifySettings(backbone="test_resnet", weights=weights(mean="[0.1, 0.2, 0.3]", std="[0.4, 0.5, 0.6]"))
    model = build_classifier(settings, 2)
    path = tmp_path / "classifier.safetensors"
    save_weights(path, model, {"kind": "classifier", **statistics_entry(model.input_statistics)})
    weights().unlink()  # the file they came from is no longer needed
    assert load_classifier(path, settings, CLASSES).input_statistics == OWN
    network = registry.get("network", "deeplabv3plus")(encoder="test_resnet", weights="classifier")
    assert network.build(3, classifier=path).input_statistics == OWN
    backbone = BackboneSettings(backbone="test_resnet").build(pretrained=False)
    take_classifier_backbone(backbone, load_tensors(path), path)
    assert backbone.input_statistics == OWN


def test_a_file_of_an_older_version_was_fed_imagenets(tmp_path: Path) -> None:
    settings = ClassifySettings(backbone="tf_efficientnet_lite0", weights="installed")
    path = tmp_path / "classifier.safetensors"
    save_weights(path, build_classifier(settings, 2), {"kind": "classifier"})
    assert load_classifier(path, settings, CLASSES).input_statistics == IMAGENET


def test_a_broken_entry_is_one_line(tmp_path: Path) -> None:
    settings = ClassifySettings(backbone="test_resnet")
    path = tmp_path / "classifier.safetensors"
    save_weights(path, build_classifier(settings, 2), {"input_statistics": {"mean": [1, 2, "x"]}})
    with pytest.raises(InputError, match="no readable input_statistics"):
        load_classifier(path, settings, CLASSES)
