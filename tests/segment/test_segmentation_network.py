"""DeepLabV3+ and its loss, prediction over scales and mirrors, and where its first weights come from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from tagmask.errors import InputError
from tagmask.segment import cross_entropy, predict_probabilities
from tagmask.segment.models import DeepLabV3Plus, SegmentationModel
from tagmask.segment.predict import to_mask

SMALL: dict[str, Any] = {
    "encoder_args": {"channels": [8, 16, 24, 32], "stem_width": 8},
    "decoder_channels": 8,
    "atrous_rates": (1, 2, 3),
}


# -- loss ------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_pixels_that_count() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    labels[0, :2] = 255
    counted = labels != 255
    by_hand = -logits.log_softmax(1).permute(0, 2, 3, 1)[counted][torch.arange(30), labels[counted]].mean()
    torch.testing.assert_close(cross_entropy(logits, labels), by_hand)


def test_nothing_but_ignored_pixels_costs_nothing() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 2, 2), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


# -- prediction ------------------------------------------------------------------------------------------


class Bright(nn.Module):
    """Logits = (0, brightness): the same for any mirror and size."""

    def forward(self, views: Tensor) -> Tensor:
        brightness = views.mean(1, keepdim=True)
        return torch.cat([torch.zeros_like(brightness), brightness], 1)


def picture(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_one_scale_is_the_softmax_of_the_network(height: int, width: int, flip: bool) -> None:
    from tagmask.data.transforms import normalise

    image = picture(height, width)
    found = predict_probabilities(Bright(), image, flip=flip)
    torch.testing.assert_close(found, Bright()(normalise(image)[None])[0].softmax(0), rtol=1e-5, atol=1e-6)


@given(
    st.integers(2, 30),
    st.integers(2, 30),
    st.lists(st.sampled_from([0.5, 1.0, 1.5]), min_size=1, max_size=3),
    st.booleans(),
)
def test_probabilities_at_any_size_and_scale(height: int, width: int, scales: list[float], flip: bool) -> None:
    found = predict_probabilities(Bright(), picture(height, width), scales=scales, flip=flip)
    assert found.shape == (2, height, width)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(0), torch.ones(height, width))


def test_scales_and_mirrors_are_averaged_after_the_softmax() -> None:
    """A network that says class 1 to the image and class 0 to its mirror is undecided."""

    class Fickle(nn.Module):
        def forward(self, views: Tensor) -> Tensor:
            sure = (
                torch.tensor([-4.0, 4.0])[: len(views), None, None, None]
                * torch.tensor([1.0, -1.0])[None, :, None, None]
            )
            return sure.expand(-1, -1, *views.shape[2:])

    torch.testing.assert_close(predict_probabilities(Fickle(), picture(3, 4)), torch.full((2, 3, 4), 0.5))


def test_the_mirror_is_turned_back() -> None:
    class Left(nn.Module):
        """Class 1 where the left half of the image, as it is seen, is bright."""

        def forward(self, views: Tensor) -> Tensor:
            return torch.cat([-10 * views[:, :1], 10 * views[:, :1]], 1)

    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :1] = 255
    assert to_mask(predict_probabilities(Left(), image)).tolist() == [[1, 0, 0, 0]] * 2


def test_no_scales_are_an_error() -> None:
    with pytest.raises(ValueError, match="no scales"):
        predict_probabilities(Bright(), picture(3, 3), scales=())


def test_the_most_probable_label() -> None:
    mask = to_mask(torch.tensor([[[0.2, 0.5]], [[0.7, 0.1]], [[0.1, 0.4]]]))
    assert mask.tolist() == [[1, 0]]
    assert mask.dtype == np.uint8


# -- the network -----------------------------------------------------------------------------------------


def test_padding_is_cut_off_again() -> None:
    class Echo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[int, ...]] = []

        def forward(self, views: Tensor) -> Tensor:
            self.seen.append(tuple(views.shape[2:]))
            return functional.avg_pool2d(views, 1)

    network = Echo()
    views = torch.randn(1, 3, 33, 64)
    assert torch.equal(SegmentationModel(network, grid=32)(views), views)
    assert network.seen == [(64, 64)]


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
