"""The contract of segmentation networks: any image size in, logits of that size out, an encoder, exact reloading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tagmask.models.inference import Inference
from tagmask.models.probabilities import full_logits
from tagmask.ops.losses import cross_entropy, nearest_to
from tagmask.ops.transforms import normalise
from tagmask.storage.weights import load_weights, save_weights
from tagmask.types import IMAGENET

LABELS = 4
#: Their decoders end at the image's size, so there is no last enlargement to leave out.
DOWN_TO_PIXELS = {"unet"}


@pytest.fixture(scope="module")
def built() -> dict[str, nn.Module]:
    """Networks take a moment to build: once each."""
    return {}


@pytest.fixture
def model(network: Any, built: dict[str, nn.Module]) -> nn.Module:
    if network.name not in built:
        torch.manual_seed(0)
        built[network.name] = network.build(LABELS)
    return built[network.name].eval()


def views(b: int = 2, h: int = 40, w: int = 56) -> Tensor:
    return torch.randn(b, 3, h, w, generator=torch.Generator().manual_seed(h + w))


@pytest.mark.parametrize("size", [(64, 64), (47, 61), (33, 7), (1, 1), (5, 90)])
def test_logits_have_the_size_of_the_image(model: nn.Module, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        logits = model(views(1, *size))
    assert logits.shape == (1, LABELS, *size)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("tags", [None, [1, 3]])
@pytest.mark.parametrize("size", [(64, 64), (47, 61), (1, 1), (5, 90)])
def test_labels_without_the_last_enlargement_are_its_highest_logits(
    network: Any, model: Any, size: tuple[int, int], tags: list[int] | None
) -> None:
    image = np.random.default_rng(size[1]).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert (model.coarse(views(1, *size)) is None) == (network.name in DOWN_TO_PIXELS)
    found = Inference(flip=False).labels(model, image, n_labels=LABELS, tags=tags)
    with torch.inference_mode():
        logits = model(normalise(image, IMAGENET)[None])[0]
        torch.testing.assert_close(
            full_logits(model, normalise(image, IMAGENET)[None])[0], logits, rtol=1e-4, atol=1e-5
        )
    if tags is not None:
        logits = logits.clone().index_fill(0, torch.tensor([2]), -torch.inf)
    reached = logits.gather(0, torch.from_numpy(found.astype(np.int64))[None])[0]
    assert bool((logits.amax(0) - reached <= 1e-4 * logits[0].abs().max()).all())


def test_an_image_does_not_see_its_neighbours(model: nn.Module) -> None:
    batch = views(2)
    with torch.inference_mode():
        torch.testing.assert_close(model(batch)[:1], model(batch[:1]), rtol=1e-3, atol=1e-4)


def test_the_same_bits_every_time(model: nn.Module) -> None:
    with torch.inference_mode():
        assert torch.equal(model(views()), model(views()))


def test_half_precision_is_close(model: nn.Module) -> None:
    with torch.inference_mode():
        exact = model(views()).softmax(1)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(views()).float().softmax(1)
    assert float((half - exact).abs().mean()) < 0.02


def test_the_encoder_is_part_of_it(model: Any) -> None:
    whole = {id(parameter) for parameter in model.parameters()}
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    assert encoder < whole


def test_every_output_of_training_has_its_weight(model: Any) -> None:
    """One tensor, or a tuple of them; each covers the whole image."""
    outputs = model.train()(views())
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    assert len(outputs) == len(model.output_weights)
    assert all(logits.shape[:2] == (2, LABELS) for logits in outputs)
    assert all(0.5 < (logits.shape[3] / logits.shape[2]) / (56 / 40) < 2 for logits in outputs)


def test_every_parameter_that_trains_gets_a_gradient(model: nn.Module) -> None:
    """Otherwise several processes would wait for a gradient that never comes."""
    model.train()
    labels = torch.randint(0, LABELS, (2, 40, 56), generator=torch.Generator().manual_seed(0))
    outputs = model(views())
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    torch.stack([cross_entropy(o, nearest_to(labels, o.shape[-2:])) for o in outputs]).sum().backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    model.zero_grad(set_to_none=True)
    assert without == []


def test_it_comes_back_from_its_file(model: nn.Module, network: Any, tmp_path: Path) -> None:
    save_weights(tmp_path / "m.safetensors", model, {})
    other = network.build(LABELS, pretrained=False)
    load_weights(tmp_path / "m.safetensors", other)
    with torch.inference_mode():
        assert torch.equal(other.eval()(views()), model.eval()(views()))


def test_built_twice_from_a_seed_it_is_the_same(network: Any) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(network.build(LABELS).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
