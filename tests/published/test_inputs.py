"""What the weights of published recipes expect of images is what their networks are fed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scripts import load_script
from tagmask.backbones.build import build_backbone
from tagmask.backbones.statistics import statistics_of
from tagmask.methods.deeplabv2.network import DeepLabV2
from tagmask.ops.transforms import normalise
from tagmask.types import IMAGENET

TABLES: Any = load_script("docs/tables/reproduction.py")
INPUTS = TABLES.table("inputs")
#: Thin copies of the networks, which feed their first convolution as the whole ones do.
THIN: dict[str, dict[str, Any]] = {
    "wide_resnet38": {"args": {"width": 4}, "output_stride": 8},
    "vgg16_wsol": {"args": {"width": 4}, "dilate": False},
    "inception_v3_wsol": {"dilate": False},
    "resnet50.tv_in1k": {"dilate": False},
}


def fed(model: nn.Module, images: Tensor) -> Tensor:
    """What the first convolution sees."""
    seen: list[Tensor] = []
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    handle = first.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].detach().clone()))
    with torch.inference_mode():
        model.eval()(images)
    handle.remove()
    return seen[0]


def expected(row: dict[str, Any], image: np.ndarray[Any, Any]) -> Tensor:
    pixels = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32)) * row["top"] / 255
    pixels = pixels.flip(0) if row["order"] == "BGR" else pixels
    mean, std = (torch.tensor(row[key], dtype=torch.float32)[:, None, None] for key in ("mean", "std"))
    return (pixels - mean) / std


@pytest.mark.parametrize("row", INPUTS, ids=lambda row: row["network"])
def test_the_network_is_fed_what_its_weights_expect(row: dict[str, Any]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    kind, _, network = row["network"].rpartition(" ")
    if kind == "deeplabv2":
        model = DeepLabV2(depth=14, width=8, layout=network).build(3)
        seen = fed(model, normalise(image, model.input_statistics)[None])
    elif kind:  # timm's encoder takes images as they are normalised
        seen = normalise(image, statistics_of(network, row["weights"], setting="segment.network.weights"))[None]
    else:
        model = build_backbone(network, **THIN[network])
        weights = row["weights"] if row["weights"] != "file" else None
        statistics = statistics_of(network, weights, setting="classify.weights")
        statistics = IMAGENET if network == "inception_v3_wsol" else statistics  # brings them to its own itself
        seen = fed(model, normalise(image, statistics)[None])
    torch.testing.assert_close(seen[0], expected(row, image), rtol=1e-4, atol=1e-3 if row["top"] == 255 else 1e-5)


@pytest.mark.parametrize("name", TABLES.published())
def test_every_network_of_a_recipe_is_in_the_table(name: str) -> None:
    stated = {(row["network"], row["weights"]) for row in INPUTS}
    assert [pair for pair in TABLES.networks(name) if pair not in stated] == []
