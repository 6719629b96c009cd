"""Narrow images in half precision on a CPU are computed in float32: the same bits as without autocast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tagmask.backbones.build import build_backbone
from tagmask.methods.deeplabv3plus.network import DeepLabV3Plus
from tagmask.ops.narrow import LARGEST_STRIDE, full_precision_if_narrow
from tagmask.pipeline.execute import run

SMALL = {"channels": [8, 16, 24, 32], "stem_width": 8}


@pytest.mark.parametrize(
    ("size", "narrow"), [((256, 16), True), ((16, 256), True), ((48, LARGEST_STRIDE), True), ((48, 33), False)]
)
def test_features_of_narrow_images_are_those_of_float32(size: tuple[int, int], narrow: bool) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(
        "resnet10t", args=SMALL, weights=None, output_stride=16, dilate=True, final_conv=False
    ).eval()
    images = torch.randn(1, 3, *size).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = backbone(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = backbone(images)
    last = max(features)
    assert features[last].dtype == (torch.float32 if narrow else torch.bfloat16)
    assert torch.equal(features[last], expected[last]) == narrow


def test_so_are_the_logits_of_a_network() -> None:
    torch.manual_seed(0)
    network = DeepLabV3Plus(encoder="resnet10t", encoder_args=SMALL, decoder_channels=8, atrous_rates=(1, 2, 3))
    model = network.build(3, pretrained=False).eval()
    images = torch.randn(1, 3, 90, 20)
    with torch.inference_mode():
        expected = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(model(images), expected)


def test_nothing_is_asked_of_the_size_without_autocast() -> None:
    class Sizeless(torch.Tensor):
        @property
        def shape(self) -> torch.Size:  # type: ignore[override]
            raise AssertionError

    images = torch.zeros(1).as_subclass(Sizeless)  # type: ignore[no-untyped-call]
    assert full_precision_if_narrow(images)[0] is images


def test_a_training_on_narrow_crops_in_half_precision(tiny: dict[str, Any], tmp_path: Path) -> None:
    """The images of a training come in half precision already."""
    tiny["engine"]["precision"] = "bf16"
    tiny["classify"]["augment"] = {"crop": 32}
    tiny["segment"]["augment"] = {"crop": 32}
    assert run(tiny, output=tmp_path / "run").metrics
