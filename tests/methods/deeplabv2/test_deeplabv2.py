"""DeepLabV2: names, sizes and counts of the published network, its scales, frozen norms, and its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from tagmask.errors import InputError
from tagmask.methods.deeplabv2.network import DeepLabV2, DeepLabV2Network, MultiScale, published_names
from tagmask.storage.weights import save_tensors

SMALL: dict[str, Any] = {"depth": 14, "width": 8}


@pytest.fixture(scope="module")
def structure(shared: Path) -> dict[str, Any]:
    path = shared / "golden" / "structure_deeplabv2.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not among the goldens")
    return dict(json.loads(path.read_text()))


def test_it_is_the_published_network(structure: dict[str, Any]) -> None:
    with torch.device("meta"):  # names and shapes need no values
        network = DeepLabV2Network(21)
        x = torch.zeros(structure["input_shape"])
        network.eval()
    found = [[name, list(value.shape), str(value.dtype).removeprefix("torch.")]
             for name, value in network.state_dict().items()]  # fmt: skip
    assert found == structure["state_dict"]
    counts = structure["counts"]
    assert sum(p.numel() for p in network.parameters()) == counts["parameters"]
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == counts["trainable"]
    assert sum(b.numel() for b in network.buffers()) == counts["buffers"]
    shapes = {}
    for name, part in network.named_children():
        x = part(x)
        shapes[name] = list(x.shape)
    assert {**shapes, "forward": shapes["aspp"]} == structure["output_shapes"]


def test_where_the_stride_is() -> None:
    for layout, strides in (("caffe", [(2, 2), (1, 1)]), ("torchvision", [(1, 1), (2, 2)])):
        with torch.device("meta"):
            block = DeepLabV2Network(2, layout=layout).layer3.block1  # type: ignore[arg-type]
        assert [block.reduce.conv.stride, block.conv3x3.conv.stride] == strides


def test_training_gives_every_scale_and_the_highest() -> None:
    torch.manual_seed(0)
    model = DeepLabV2(**SMALL).build(3)
    images = torch.randn(1, 3, 97, 129)
    whole, half, three, highest = model.train()(images)
    assert [tuple(o.shape[2:]) for o in (whole, half, three, highest)] == [(13, 17), (7, 9), (10, 13), (13, 17)]
    assert (highest >= whole).all()
    assert not torch.equal(highest, whole)
    logits = model.eval()(images)
    assert logits.shape == (1, 3, 97, 129)
    torch.testing.assert_close(
        logits, nn.functional.interpolate(highest, size=(97, 129), mode="bilinear", align_corners=False)
    )


def test_caffe_sees_blue_green_red_of_0_to_255() -> None:
    seen: list[Tensor] = []

    class Watch(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x

    from tagmask.ops.transforms import normalise
    from tagmask.types import IMAGENET

    pixels = torch.randint(0, 256, (5, 7, 3), dtype=torch.uint8)
    MultiScale(Watch(), layout="caffe", scales=()).train()(normalise(pixels.numpy(), IMAGENET)[None])  # type: ignore[arg-type]
    expected = pixels.flip(-1).permute(2, 0, 1) - torch.tensor([104.008, 116.669, 122.675]).view(3, 1, 1)
    torch.testing.assert_close(seen[0][0], expected, atol=1e-3, rtol=0)


def test_norms_are_frozen_unless_said_otherwise() -> None:
    model = DeepLabV2(**SMALL).build(2).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(m.training for m in norms)
    assert not any(p.requires_grad for m in norms for p in m.parameters())
    free = DeepLabV2(**SMALL, frozen_norms=False).build(2).train()
    assert all(m.training and m.weight.requires_grad for m in free.modules() if isinstance(m, nn.BatchNorm2d))


# -- weights ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return dict(timm.create_model("resnet50.tv_in1k", pretrained=False).state_dict())


def test_it_computes_what_torchvisions_resnet_does(resnet: dict[str, Tensor], tmp_path: Path) -> None:
    """Up to layer2, where neither stride nor dilation has changed (the pool's extra column is on even sizes only)."""
    save_file(resnet, tmp_path / "r.safetensors")
    model = DeepLabV2(depth=50, weights=tmp_path / "r.safetensors").build(2).eval()
    other = timm.create_model("resnet50.tv_in1k", pretrained=False, features_only=True, out_indices=(2,)).eval()
    other.load_state_dict(resnet, strict=False)
    images = torch.randn(1, 3, 65, 81)
    with torch.inference_mode():
        torch.testing.assert_close(model.encoder[:3](images), other(images)[0], rtol=1e-4, atol=1e-4)


def test_published_files_fit(tmp_path: Path) -> None:
    """Names of the published code, behind the prefix of its multi-scale wrapper, with a pyramid of other classes."""
    stored = {f"base.{k}": v for k, v in DeepLabV2Network(182, blocks=(1, 1, 1, 1), width=8).state_dict().items()}
    torch.save(stored, tmp_path / "m.pth")
    model = DeepLabV2(**SMALL, layout="caffe", weights=tmp_path / "m.pth").build(4)
    for key, value in model.encoder.state_dict().items():
        assert torch.equal(value, stored[f"base.{key}"])


def test_the_layout_must_be_that_of_the_weights(resnet: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(resnet, tmp_path / "r.safetensors")
    with pytest.raises(InputError, match="names are those of layout: torchvision"):
        DeepLabV2(depth=50, layout="caffe", weights=tmp_path / "r.safetensors").build(2)
    with pytest.raises(ValidationError, match="Caffe's layout takes a local file"):
        DeepLabV2(layout="caffe", weights="timm")


def test_it_starts_from_a_classifier(resnet: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_tensors(path, {f"backbone.model.{key}": value for key, value in resnet.items()}, {"kind": "classifier"})
    model = DeepLabV2(depth=50, weights="classifier").build(2, classifier=path)
    assert torch.equal(model.encoder.layer1.conv1.conv.weight, resnet["conv1.weight"])  # type: ignore[union-attr]
    with pytest.raises(InputError, match="'ResNet-101' is not the classifier's backbone"):
        DeepLabV2(weights="classifier").build(2, classifier=path)
    with pytest.raises(InputError, match="there is no classifier here"):
        DeepLabV2(**SMALL, weights="classifier").build(2)


def test_other_files_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.pth").write_bytes(b"no weights")
    for path, said in ((tmp_path / "none.pth", "no such weights file"), (tmp_path / "no.pth", "neither a safetensors")):
        with pytest.raises(InputError, match=said) as raised:
            DeepLabV2(**SMALL, layout="caffe", weights=path).build(2)
        assert "\n" not in str(raised.value)


def test_every_name_of_torchvision_has_a_published_one(resnet: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        wanted = DeepLabV2Network(2, blocks=(3, 4, 6, 3)).encoder.state_dict()
    assert {k for k in published_names(resnet) if not k.startswith("fc.")} == set(wanted)
