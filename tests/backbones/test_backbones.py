"""Backbones: strides, frozen stages, weights files that fit or not; each failure is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from tagmask.backbones.build import Backbone, build_backbone
from tagmask.errors import InputError
from tagmask.models.classifier import Classifier, build_classifier, load_classifier
from tagmask.settings.classify import ClassifySettings
from tagmask.storage.weights import save_weights
from tagmask.types import ClassList

SMALL = {"channels": [8, 16, 24, 32], "stem_width": 8}


def small(**options: Any) -> Backbone:
    torch.manual_seed(0)
    return build_backbone("resnet10t", args=SMALL, **options)


def image(h: int = 64, w: int = 96) -> torch.Tensor:
    return torch.randn(1, 3, h, w, generator=torch.Generator().manual_seed(h * w))


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_the_stride_is_the_one_asked_for(stride: int) -> None:
    taps = small(output_stride=stride).eval()(image())
    assert [taps[stage].shape[1] for stage in taps] == [16, 8, 16, 24, 32]
    assert taps[5].shape[2:] == (64 // stride, 96 // stride)
    assert taps[1].shape[2:] == (32, 48)


@pytest.mark.parametrize(("dilate", "expected"), [(True, 2), (False, 1)])
def test_a_removed_stride_is_dilated_or_not(dilate: bool, expected: int) -> None:
    model = small(output_stride=16, dilate=dilate)
    assert max(max(m.dilation) for m in model.modules() if isinstance(m, nn.Conv2d)) == expected
    assert model.eval()(image())[5].shape[2:] == (4, 6)


def test_features_behind_the_final_convolution() -> None:
    taps = build_backbone("mobilenetv2_050", final_conv=True).eval()(image())
    assert taps[len(taps)].shape == (1, 1280, 4, 6)
    assert taps[len(taps) - 1].shape == (1, 160, 4, 6)


def test_parameters_up_to_a_stage() -> None:
    model = small()
    assert model.parameters_up_to(0) == []
    sizes = [sum(p.numel() for p in model.parameters_up_to(stage)) for stage in range(1, 6)]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == sum(p.numel() for p in model.parameters())
    with pytest.raises(InputError, match=r"classify\.freeze=6: this backbone has 5 stages"):
        model.parameters_up_to(6)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("resnet_50", {}, "Did you mean 'resnet50'"),
        ("resnet10t", {"args": {"bogus": 1}}, "unexpected keyword argument 'bogus'"),
        ("vgg11", {}, "Set output_stride: 32"),
        ("test_vit", {"output_stride": 32}, "dynamic_img_size"),
    ],
)
def test_what_cannot_be_a_backbone_is_one_line(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as raised:
        build_backbone(name, **options)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_transformer_with_the_named_remedy() -> None:
    args = {"dynamic_img_size": True, "dynamic_img_pad": True}
    taps = build_backbone("test_vit", args=args, output_stride=32).eval()(image(40, 56))
    assert all(value.shape[1] == 64 for value in taps.values())


# -- weights files ---------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, nn.Module]:
    """A whole timm model with its classifier, as published ones are."""
    torch.manual_seed(9)
    model = timm.create_model("resnet10t", **SMALL)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors", model.eval()


@pytest.mark.parametrize("options", [{"output_stride": 32}, {"output_stride": 16}])
def test_a_weights_file_is_loaded_whole(published: tuple[Path, nn.Module], options: dict[str, Any]) -> None:
    path, model = published
    mine = small(weights=path, **options)
    theirs = model.state_dict()
    for name, value in mine.model.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    if options["output_stride"] == 32:
        expected = model.forward_features(image())  # type: ignore[operator]
        torch.testing.assert_close(mine.eval()(image())[5], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such weights file"),
        (b"", "neither a safetensors file"),
        (b"x" * 500, "neither a safetensors file"),
        ({"conv1.weight": torch.ones(3)}, "tensors missing, such as"),
    ],
    ids=["missing", "empty", "noise", "other"],
)
def test_what_is_no_weights_file_is_one_line(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "w.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_file(content, path)
    with pytest.raises(InputError) as raised:
        small(weights=path)
    assert said in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_weights_of_another_width_are_named(published: tuple[Path, nn.Module]) -> None:
    with pytest.raises(InputError, match=r"is \(6, 3, 3, 3\), the model has \(12, 3, 3, 3\)"):
        build_backbone("resnet10t", args={"channels": [16, 16, 24, 32], "stem_width": 16}, weights=published[0])


def test_real_weights_fit(shared: Path) -> None:
    path = shared / "weights" / "mobilenetv2_100-imagenet.safetensors"
    model = build_backbone("mobilenetv2_100", weights=path, final_conv=True).eval()
    assert model(image())[model.n_stages].shape == (1, 1280, 4, 6)
    with pytest.raises(InputError, match="not weights of resnet18"):
        build_backbone("resnet18", weights=path)


# -- the classifier --------------------------------------------------------------------------------------


def classifier(**options: Any) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(ClassifySettings(backbone="resnet10t", backbone_args=SMALL, **options), 3)


def test_the_output_is_the_contract() -> None:
    model = classifier().eval()
    output = model(image())
    assert output.logits.shape == (1, 3)
    assert output.features is output.feature_taps[5]
    assert model.class_weights.shape == (3, output.features.shape[1])


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_batch_norm_learns_statistics_only_where_asked(mode: str) -> None:
    model = classifier(batch_norm=mode).train()
    before = {name: value.clone() for name, value in model.named_buffers() if name.endswith("running_mean")}
    model(torch.cat([image(), image() + 1]))
    changed = [name for name, value in model.named_buffers() if name in before and not torch.equal(value, before[name])]
    assert bool(changed) == (mode == "train")
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.weight.requires_grad for norm in norms)


def test_frozen_stages_get_no_gradient_and_the_rest_does() -> None:
    model = classifier(freeze=3).train()
    frozen = {id(p) for p in model.parameters() if not p.requires_grad}
    stem_to_layer2 = ("conv1", "bn1", "layer1", "layer2")
    expected = {id(p) for name, p in model.backbone.model.named_parameters() if name.startswith(stem_to_layer2)}
    assert frozen == expected
    model(image()).logits.sum().backward()
    for parameter in model.parameters():
        assert (parameter.grad is None) == (id(parameter) in frozen)


def test_a_trained_classifier_comes_back(tmp_path: Path) -> None:
    model = classifier()
    save_weights(tmp_path / "m.safetensors", model, {})
    settings = ClassifySettings(backbone="resnet10t", backbone_args=SMALL)
    again = load_classifier(tmp_path / "m.safetensors", settings, ClassList(("background", "a", "b", "c")))
    assert not again.training
    assert torch.equal(again(image()).logits, model.eval()(image()).logits)
    with pytest.raises(InputError, match="does not fit"):
        load_classifier(tmp_path / "m.safetensors", settings, ClassList(("background", "a")))
