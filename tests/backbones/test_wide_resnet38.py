"""WideResNet-38: the published structure, its computation by the specification's table, weights files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from tagmask.backbones.build import Backbone, build_backbone
from tagmask.backbones.wide_resnet38 import WideResNet38, build_wide_resnet38
from tagmask.errors import InputError
from tagmask.methods.cam.head import GapHead
from tagmask.models.classifier import Classifier, build_classifier
from tagmask.settings.classify import ClassifySettings

WIDTH = 4  # a 256th of the published parameters


def small(seed: int = 0) -> WideResNet38:
    """A narrow network whose statistics and affine weights are not 0 and 1."""
    torch.manual_seed(seed)
    model = WideResNet38(WIDTH)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)  # type: ignore[arg-type]
            for values in (module.bias.data, module.running_mean):
                nn.init.uniform_(values, -0.2, 0.2)  # type: ignore[arg-type]
    return model


def image(h: int = 33, w: int = 42) -> Tensor:
    return torch.randn(1, 3, h, w, generator=torch.Generator().manual_seed(h * w))


@pytest.fixture
def published(shared: Path) -> dict[str, Any]:
    """Names, shapes and counts of the published network."""
    structure: dict[str, Any] = json.loads((shared / "golden" / "structure_resnet38.json").read_text())
    return structure


def test_structure_is_the_published_one(published: dict[str, Any]) -> None:
    with torch.device("meta"):
        backbone = Backbone(WideResNet38())
        model = Classifier(backbone, GapHead().build(backbone.channels[-1], 20))
        found = [
            [key, list(value.shape), str(value.dtype).removeprefix("torch.")]
            for key, value in backbone.model.state_dict().items()
        ]
        output = model.eval()(torch.zeros(published["input_shape"]))
    assert found == published["state_dict_cls"][:-1]
    assert len(found) == published["state_dict_base_key_count"]
    counts = published["counts_cls"]
    assert sum(p.numel() for p in model.parameters()) == counts["parameters"]
    assert sum(b.numel() for b in model.buffers()) == counts["buffers"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == counts["trainable"]
    shapes = published["output_shapes"]
    for stage, name in enumerate(("conv4", "conv5", "conv6"), start=1):
        assert list(output.feature_taps[stage].shape) == shapes[name]
    assert list(output.logits.shape) == shapes["forward"]


def by_the_table(tensors: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The network of docs/methods/wide-resnet38.md, read from the tensors' names alone."""

    def norm(x: Tensor, name: str) -> Tensor:
        at = {key: tensors[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
        return functional.relu(functional.batch_norm(x, *at.values()))

    def conv(x: Tensor, name: str, stride: int = 1, dilation: int = 1) -> Tensor:
        kernel = tensors[f"{name}.weight"]
        padding = dilation if kernel.shape[-1] == 3 else 0
        return functional.conv2d(x, kernel, stride=stride, dilation=dilation, padding=padding)

    taps, x = [], conv(x, "conv1a")
    plain = [("b2", 2, 1, 1), ("b2_1", 1, 1, 1), ("b2_2", 1, 1, 1), ("b3", 2, 1, 1), ("b3_1", 1, 1, 1)]
    plain += [("b3_2", 1, 1, 1), ("b4", 2, 1, 1), *((f"b4_{i}", 1, 1, 1) for i in range(1, 6))]
    plain += [("b5", 1, 1, 2), ("b5_1", 1, 2, 2), ("b5_2", 1, 2, 2)]
    for name, stride, first, second in plain:
        a = norm(x, f"{name}.bn_branch2a")
        if name == "b5":
            taps.append(a)
        branch = norm(conv(a, f"{name}.conv_branch2a", stride, first), f"{name}.bn_branch2b1")
        shortcut = conv(a, f"{name}.conv_branch1", stride) if f"{name}.conv_branch1.weight" in tensors else x
        x = shortcut + conv(branch, f"{name}.conv_branch2b1", 1, second)
    for name in ("b6", "b7"):
        a = norm(x, f"{name}.bn_branch2a")
        if name == "b6":
            taps.append(a)
        branch = norm(conv(a, f"{name}.conv_branch2a"), f"{name}.bn_branch2b1")
        branch = norm(conv(branch, f"{name}.conv_branch2b1", 1, 4), f"{name}.bn_branch2b2")
        x = conv(a, f"{name}.conv_branch1") + conv(branch, f"{name}.conv_branch2b2")
    return [*taps, norm(x, "bn7")]


def test_it_computes_what_the_table_says() -> None:
    model = small().eval()
    with torch.no_grad():
        found, expected = model(image()), by_the_table(model.state_dict(), image())
    assert [tuple(tap.shape) for tap in found] == [(1, c * WIDTH, 5, 6) for c in (8, 16, 64)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_only_dropout_knows_of_training() -> None:
    model = small().train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    with torch.no_grad():
        one, other = model(image()), model(image())
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[2], other[2])
    dropped = (one[2] == 0).all(dim=(2, 3)).float().mean()
    assert 0.3 < float(dropped) < 0.8
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout2d)} == {0.3, 0.5}


def test_the_classifier_trains_what_is_to_be_trained() -> None:
    settings = ClassifySettings(backbone="wide_resnet38", backbone_args={"width": WIDTH}, output_stride=8)
    model = build_classifier(settings, 3).train()
    model(image()).logits.sum().backward()
    for name, parameter in model.named_parameters():
        frozen = ".bn" in name or name.startswith(("backbone.model.conv1a", "backbone.model.b2"))
        assert (parameter.grad is None) == frozen, name


# -- weights files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_published_weights_are_loaded_whole(tmp_path: Path, kind: str) -> None:
    model = small(1)
    path = tmp_path / f"w.{kind}"
    tensors = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    tensors["fc8.weight"] = torch.ones(20, 64 * WIDTH, 1, 1)
    save_file(tensors, path) if kind == "safetensors" else torch.save(tensors, path)
    backbone = build_backbone("wide_resnet38", args={"width": WIDTH}, weights=path, output_stride=8).eval()
    expected = model.eval()(image())
    assert all(torch.equal(tap, expected[stage - 1]) for stage, tap in backbone(image()).items())
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, p in backbone.model.named_parameters() if p.requires_grad} == trainable


class Harmful:
    """What no weights file may hold."""


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("w.pth", None, "no such weights file"),
        ("w.safetensors", None, "no such weights file"),
        ("w.pth", b"", "neither a safetensors file"),
        ("w.safetensors", b"x" * 100, "neither a safetensors file"),
        ("w.pth", {"net": Harmful()}, "neither a safetensors file"),
        ("w.pth", {"net": {}}, "tensors by name"),
        ("w.pth", {"conv1a.weight": torch.ones(3)}, "tensors missing, such as"),
    ],
)
def test_what_is_no_weights_file_is_one_line(tmp_path: Path, name: str, content: Any, said: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError) as raised:
        build_wide_resnet38(path, width=WIDTH)
    assert said in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_weights_of_another_width_are_named(tmp_path: Path) -> None:
    save_file(small().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"conv1a\.weight is \(4, 3, 3, 3\), the model has \(8, 3, 3, 3\)"):
        build_wide_resnet38(tmp_path / "w.safetensors", width=8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"output_stride": 16}, "set output_stride: 8"),
        ({"dilate": False}, "set dilate: true"),
        ({"final_conv": True}, "set final_conv: false"),
        ({"weights": "timm"}, "local file"),
        ({"args": {"bogus": 1}}, "bogus"),
    ],
)
def test_what_it_cannot_do_is_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as raised:
        build_backbone("wide_resnet38", **{"output_stride": 8, "args": {"width": WIDTH}, **options})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
