"""UPerNet: Swin of any image size, the auxiliary head of training, first weights, parameters without decay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from tagmask.errors import InputError
from tagmask.methods.upernet.network import UPerNet

ARGS: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
SMALL: dict[str, Any] = {"encoder_args": ARGS, "decoder_channels": 16, "auxiliary_channels": 8}


@pytest.mark.parametrize(
    ("size", "millions"), [("tiny", 59.83), ("small", 81.15), ("base", 121.18)]
)  # published with 150 classes: 60, 81, 121
def test_swin_in_its_sizes(size: str, millions: float) -> None:
    with torch.device("meta"):
        model = UPerNet(encoder=f"swin_{size}_patch4_window7_224")
        network = model.assemble(__import__("segmentation_models_pytorch").UPerNet, 150, decoder_channels=512)
    head = 256 * network.encoder.out_channels[-2] * 9 + 2 * 256 + 257 * 150
    total = sum(p.numel() for p in network.parameters()) + head
    assert total / 1e6 == pytest.approx(millions, abs=0.2)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (33, 250)])
def test_swin_sees_any_size(size: tuple[int, int]) -> None:
    model = UPerNet(**SMALL).build(3).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 3, *size)).shape == (1, 3, *size)


def test_the_auxiliary_head_is_of_training() -> None:
    model = UPerNet(**SMALL).build(3)
    outputs = model.train()(torch.randn(2, 3, 40, 56))
    assert [tuple(o.shape) for o in outputs] == [(2, 3, 40, 56)] * 2
    assert model.output_weights == (1.0, 0.4)
    assert isinstance(model.eval()(torch.randn(1, 3, 40, 56)), Tensor)
    alone = UPerNet(**{**SMALL, "auxiliary": 0.0}).build(3)
    assert isinstance(alone.train()(torch.randn(2, 3, 40, 56)), Tensor)
    assert alone.output_weights == (1.0,)


def test_tables_of_relative_positions_do_not_decay() -> None:
    model = UPerNet(**SMALL).build(3)
    tables = [p for name, p in model.named_parameters() if "relative_position_bias_table" in name]
    assert len(tables) == 4
    assert {id(p) for p in model.undecayed()} == {id(p) for p in tables}


def test_weights_of_a_local_file(tmp_path: Path) -> None:
    torch.manual_seed(4)
    full = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, **ARGS)
    stored = {key: value.contiguous() for key, value in full.state_dict().items()}
    save_file(stored, tmp_path / "s.safetensors")
    model = UPerNet(**SMALL, weights=tmp_path / "s.safetensors").build(2)
    assert torch.equal(model.encoder.model.patch_embed.proj.weight, stored["patch_embed.proj.weight"])  # type: ignore[union-attr]
    name = "layers.2.blocks.0.attn.qkv.weight"
    assert torch.equal(model.encoder.state_dict()[f"model.{name.replace('layers.', 'layers_')}"], stored[name])


def test_swins_own_release_fits(tmp_path: Path) -> None:
    """Its state dict lies below 'model', and it counts the downsampling to the stage before."""
    full = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, **ARGS)
    stored = {}
    for key, value in full.state_dict().items():
        stage, _, rest = key.removeprefix("layers.").partition(".")
        moved = f"layers.{int(stage) - 1}.{rest}" if ".downsample." in key else key
        stored[moved.replace("head.fc.", "head.")] = value
    torch.save({"model": stored}, tmp_path / "s.pth")
    model = UPerNet(**SMALL, weights=tmp_path / "s.pth").build(2)
    expected = full.state_dict()["layers.1.downsample.reduction.weight"]
    assert torch.equal(model.encoder.state_dict()["model.layers_1.downsample.reduction.weight"], expected)


def test_other_encoders() -> None:
    small = {"encoder": "resnet10t", "encoder_args": {"channels": [8, 16, 24, 32], "stem_width": 8}}
    model = UPerNet(**{**SMALL, **small}).build(2)
    assert len(model.train()(torch.randn(2, 3, 33, 40))) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"encoder": "swin_tiny"}, "Did you mean"),
        ({"encoder": "vit_tiny_patch16_224"}, "cannot be an encoder here"),
        ({"weights": Path("none.pth")}, "no such weights file"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        UPerNet(**{**SMALL, "encoder_args": {}, **settings}).build(2)
    assert "\n" not in str(raised.value)
