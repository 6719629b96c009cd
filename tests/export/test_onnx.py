"""ONNX files: what goes in and comes out, any size, agreement with torch, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional

from tagmask import cli, registry
from tagmask.backbones.channels import set_input
from tagmask.contracts.network import SegmentationModel
from tagmask.errors import InputError, RunError
from tagmask.export import onnx as export
from tagmask.methods.hspp.head import HsppHead
from tagmask.models.classifier import build_classifier
from tagmask.models.tag_gate import TagGated
from tagmask.ops.transforms import normalise
from tagmask.settings.classify import ClassifySettings
from tagmask.storage.weights import load_tensors, read_description, save_tensors
from tagmask.types import IMAGENET, ClassifierOutput, InputStatistics, PixelValues

HALF = InputStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in export.NEEDED), reason="the extra 'onnx' is not installed"
)


class Small(nn.Module):
    """Stride 4 and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 4, 4, stride=4)

    def forward(self, views: Tensor) -> Tensor:
        return functional.interpolate(self.encoder(views), scale_factor=4, mode="bilinear", align_corners=False)


@pytest.fixture(scope="module", params=[IMAGENET, HALF], ids=["imagenet", "half"])
def exported(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[SegmentationModel, Path, export.Agreement]:
    torch.manual_seed(0)
    model = SegmentationModel(Small(), grid=4, statistics=request.param)
    path = tmp_path_factory.mktemp("onnx") / "folder" / "m.onnx"
    return model, path, export.export_onnx(model, path, classes=["background", "Kätzchen", "b", "c"], max_side=512)


def test_it_says_how_far_it_is_from_torch(exported: tuple[SegmentationModel, Path, export.Agreement]) -> None:
    _, path, result = exported
    assert result.largest < 1e-5
    assert result.other_labels == 0
    assert result.dynamic
    assert [file.name for file in path.parent.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("shape", [(1, 20, 31), (3, 7, 5)])
def test_images_go_in_as_they_are(
    exported: tuple[SegmentationModel, Path, export.Agreement], shape: tuple[int, int, int]
) -> None:
    import onnxruntime

    model, path, _ = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    result = session.run(["logits"], {"images": images})[0]
    with torch.inference_mode():
        expected = model.eval()(torch.stack([normalise(image, model.input_statistics) for image in images]))
    np.testing.assert_allclose(result, expected.numpy(), atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"])[1] == "Kätzchen"
    assert json.loads(metadata["max_side"]) == 512


def test_a_gate_with_other_statistics_is_exported_too(tmp_path: Path) -> None:
    class Tags(nn.Module):
        input_statistics = HALF

        def forward(self, views: Tensor) -> Any:
            return ClassifierOutput(views, {}, 5 * views.mean((2, 3)))

    torch.manual_seed(0)
    model = TagGated(SegmentationModel(Small(), grid=4), Tags(), 0.5)  # type: ignore[arg-type]
    assert export.export_onnx(model, tmp_path / "m.onnx", classes=["background", "a", "b", "c"]).largest < 1e-4


def test_bands_go_in_as_they_are(tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(0)
    model = SegmentationModel(Small(), grid=4)
    set_input(model, InputStatistics((0.1, 0.2, 0.3, 0.4, 0.5), (1.0, 0.5, 0.25, 0.2, 0.1)))
    pixels = PixelValues((0.0,) * 5, (4095.0,) * 5, (5, 4, 3, 2, 1))
    result = export.export_onnx(model, tmp_path / "m.onnx", classes=["background", "a", "b", "c"], pixels=pixels)
    assert result.dynamic
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).integers(0, 256, (1, 9, 10, 5), dtype=np.uint8)
    with torch.inference_mode():
        expected = model.eval()(normalise(image[0], model.input_statistics)[None])
    np.testing.assert_allclose(session.run(["logits"], {"images": image})[0], expected.numpy(), atol=1e-5)
    said = json.loads(session.get_modelmeta().custom_metadata_map["pixels"])
    assert said == {"low": [0.0] * 5, "high": [4095.0] * 5, "channels": [5, 4, 3, 2, 1]}


def test_another_network_is_not_called_the_same(exported: tuple[SegmentationModel, Path, export.Agreement]) -> None:
    _, path, _ = exported
    torch.manual_seed(1)
    other = export.WithNormalisation(SegmentationModel(Small(), grid=4)).eval()
    with pytest.raises(RunError, match=r"m\.onnx: its logits differ from torch's by up to"):
        export.compare(other, path, None)


def test_what_cannot_be_exported_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    class Fickle(nn.Module):
        encoder = nn.Identity()

        def forward(self, views: Tensor) -> Tensor:
            return views if float(views.sum()) > 0 else -views

    with pytest.raises(InputError, match="cannot be exported") as raised:
        export.export_onnx(SegmentationModel(Fickle(), grid=4), tmp_path / "m.onnx", classes=["background", "a"])
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(InputError, match=r"needs no_such_package: pip install 'tagmask\[onnx\]'"):
        export.check_installed()


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        cli.main(["export", "onnx", *map(str, arguments)])
    result = capsys.readouterr()
    return int(left.value.code or 0), result.out, result.err


def test_a_run_through_the_command(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, finished, "--output", tmp_path / "m.onnx", "--size", "64x96")
    assert code == 0
    assert out.splitlines()[0] == f"{tmp_path / 'm.onnx'}: 9 classes, images of 64x96 alone"
    assert out.splitlines()[1].startswith("against torch: largest difference of a logit ")
    assert (tmp_path / "m.onnx").stat().st_size > 10_000


def test_the_working_size_is_said(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    stored, limited = finished / "segment" / "model.safetensors", tmp_path / "limited.safetensors"
    save_tensors(limited, load_tensors(stored), {**read_description(stored), "max_side": 64})
    code, out, _ = call(capsys, limited, "--output", tmp_path / "m.onnx", "--size", "64x64")
    assert code == 0
    assert "reduce images with a side of more than 64 pixels to that before they go in (max_side)" in out.splitlines()
    properties = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "m.onnx")).metadata_props}
    assert properties["max_side"] == "64"


@pytest.mark.parametrize("size", ["512", "0x3", "ax3"])
def test_sizes_are_two_numbers(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str) -> None:
    code, _, err = call(capsys, finished, "--output", tmp_path / "m.onnx", "--size", size)
    assert code == 2
    assert "such as 512x512" in err


@pytest.mark.parametrize("size", [(1, 1), (7, 8), (32, 33), (15, 30)])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 2, 1), (3, 1, 1), (5, 2, 1), (2, 1, 1), (3, 2, 2), (5, 4, 1)]
)
def test_padding_is_that_of_timm(size: tuple[int, int], kernel: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    conv = Conv2dSame(4, 6, kernel, stride=stride, dilation=dilation, groups=2)
    views = torch.randn(2, 4, *size)
    torch.testing.assert_close(export.SamePadding(conv)(views), conv(views))


def test_only_a_copy_is_changed() -> None:
    model = nn.Sequential(Conv2dSame(3, 3, 3, stride=2), Conv2dSame(3, 3, 1, stride=3))
    copied = export.traceable(model)
    assert [type(module) for module in model] == [Conv2dSame, Conv2dSame]
    assert [type(module) for module in copied] == [export.SamePadding, Conv2dSame]  # type: ignore[arg-type]
    views = torch.randn(1, 3, 9, 11)
    torch.testing.assert_close(copied(views), model(views))


UPERNET: dict[str, Any] = {"decoder_channels": 16, "auxiliary": 0.0}
SWIN: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 1, 2), "num_heads": (1, 1, 2, 2)}
RESNET: dict[str, Any] = {"channels": [8, 16, 24, 32], "stem_width": 8}


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("upernet", {**UPERNET, "encoder": "resnet10t", "encoder_args": RESNET}, "pooling to a grid"),
        ("segformer", {"encoder": "swin_tiny_patch4_window7_224", "encoder_args": SWIN}, "attention in windows"),
    ],
)
def test_some_networks_are_for_one_size(name: str, settings: dict[str, Any], why: str, tmp_path: Path) -> None:
    model = registry.get("network", name)(**settings).build(4)
    with pytest.raises(InputError, match=rf"one size only \({why}\): --size 512x512"):
        export.export_onnx(model, tmp_path / "m.onnx", classes=["background", "a", "b", "c"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_upernet_with_swin_for_one_size(tmp_path: Path) -> None:
    model = registry.get("network", "upernet")(**UPERNET, encoder_args=SWIN).build(4)
    result = export.export_onnx(model, tmp_path / "m.onnx", classes=["background", "a", "b", "c"], size=(64, 96))
    assert result.largest < 1e-4
    assert not result.dynamic


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deeplabv3plus", "deeplabv2", "segformer", "unet"])
def test_networks_that_take_any_size(name: str, tmp_path: Path) -> None:
    small: dict[str, dict[str, Any]] = {"deeplabv2": {"depth": 14, "width": 8}, "segformer": {"decoder_channels": 16}}
    model = registry.get("network", name)(**small.get(name, {})).build(4)
    result = export.export_onnx(model, tmp_path / "m.onnx", classes=["background", "a", "b", "c"])
    assert result.largest < 1e-4


@pytest.mark.slow
def test_a_gated_mobilenet_takes_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder: dict[str, Any] = {"pad_type": "same"}
    network = registry.get("network", "deeplabv3plus")(encoder="mobilenetv2_100", encoder_args=encoder).build(4)
    head = HsppHead()
    classifier = build_classifier(ClassifySettings(backbone="mobilenetv2_100", backbone_args=encoder, head=head), 3)
    model = TagGated(network.eval(), classifier.eval(), 0.05)
    result = export.export_onnx(model, tmp_path / "m.onnx", classes=["background", "a", "b", "c"])
    assert result.largest < 1e-3
    assert result.dynamic
