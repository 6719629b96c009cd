"""DeepLabV3+: where its first weights come from, and what cannot be its encoder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tagmask.errors import InputError
from tagmask.methods.deeplabv3plus.network import DeepLabV3Plus

SMALL: dict[str, Any] = {
    "encoder_args": {"channels": [8, 16, 24, 32], "stem_width": 8},
    "decoder_channels": 8,
    "atrous_rates": (1, 2, 3),
}


@pytest.fixture(scope="module")
def classifier(finished: Path) -> Path:
    return finished / "classify" / "model.safetensors"


def test_it_starts_from_the_classifier(classifier: Path) -> None:
    torch.manual_seed(0)
    model = DeepLabV3Plus(weights="classifier", **SMALL).build(4, classifier=classifier)
    stored = load_file(classifier)
    encoder = model.encoder.model.state_dict()  # type: ignore[union-attr]
    assert encoder.keys() == {k.removeprefix("backbone.model.") for k in stored if k.startswith("backbone.model.")}
    assert all(torch.equal(value, stored[f"backbone.model.{name}"]) for name, value in encoder.items())


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_another_networks_classifier_is_one_line(classifier: Path, tmp_path: Path) -> None:
    other = DeepLabV3Plus(weights="classifier", encoder="resnet18")
    assert "'resnet18' is not the classifier's backbone" in refusal(lambda: other.build(4, classifier=classifier))
    mine = DeepLabV3Plus(weights="classifier", **SMALL)
    assert "there is no classifier here" in refusal(lambda: mine.build(4))
    torn = Path(shutil.copy(classifier, tmp_path))
    torn.write_bytes(torn.read_bytes()[:100])
    assert str(torn) in refusal(lambda: mine.build(4, classifier=torn))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"encoder": "resnet_18"}, "Did you mean 'resnet18'"),
        ({"encoder_args": {"bogus": 1}}, "unexpected keyword argument 'bogus'"),
        ({"encoder": "vgg11"}, "cannot be an encoder here"),
        ({"encoder": "vit_tiny_patch16_224"}, "cannot be an encoder here"),
        ({"weights": Path("none.safetensors")}, "no such weights file"),
    ],
    ids=str,
)
def test_what_cannot_be_an_encoder_is_one_line(settings: dict[str, Any], said: str) -> None:
    assert said in refusal(lambda: DeepLabV3Plus(**settings).build(4))


def test_real_weights_go_into_the_encoder(shared: Path) -> None:
    path = shared / "weights" / "mobilenetv2_100-imagenet.safetensors"
    model = DeepLabV3Plus(encoder="mobilenetv2_100", weights=path).build(3)
    stored, encoder = load_file(path), model.encoder.model.state_dict()  # type: ignore[union-attr]
    assert torch.equal(encoder["conv_stem.weight"], stored["conv_stem.weight"])
    assert all(torch.equal(value, stored[name]) for name, value in encoder.items() if name in stored)
    assert sum(name in stored for name in encoder) > 200
