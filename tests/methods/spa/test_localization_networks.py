"""VGG16, InceptionV3, the neck, class maps with a bias, and SPA's loss: the classifiers of object localisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from tagmask.backbones.build import build_backbone
from tagmask.backbones.neck import NeckSettings
from tagmask.contracts.localizer import Trained
from tagmask.errors import InputError
from tagmask.methods.cam.head import GapHead
from tagmask.methods.cam.localizer import Cam
from tagmask.methods.spa.head import CLASS_MAPS, RestrictedHead, restricted_activation_loss
from tagmask.models.classifier import build_classifier
from tagmask.settings.classify import ClassifySettings


def small(backbone: str = "vgg16_wsol", **options: Any) -> ClassifySettings:
    args = {"width": 8} if backbone == "vgg16_wsol" else {}
    return ClassifySettings(backbone=backbone, backbone_args=args, dilate=False, **options)


@pytest.mark.parametrize(("stride", "side"), [(16, 14), (8, 28)])
def test_vgg16_stages_and_size(stride: int, side: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone("vgg16_wsol", output_stride=stride, dilate=False)
    assert sum(p.numel() for p in backbone.parameters()) == 14_714_688  # VGG-16's convolutions
    thin = build_backbone("vgg16_wsol", args={"width": 2}, output_stride=stride, dilate=False).eval()
    sizes = {stage: tuple(f.shape[1:]) for stage, f in thin(torch.zeros(1, 3, 224, 224)).items()}
    assert sizes == {1: (2, 112, 112), 2: (4, 56, 56), 3: (8, 28, 28), 4: (16, side, side), 5: (16, side, side)}


@pytest.mark.parametrize(("stride", "side"), [(16, 14), (8, 28)])
def test_inception_v3_stages_and_size(stride: int, side: int) -> None:
    backbone = build_backbone("inception_v3_wsol", output_stride=stride, dilate=False).eval()
    with torch.inference_mode():
        sizes = {stage: tuple(f.shape[1:]) for stage, f in backbone(torch.zeros(1, 3, 224, 224)).items()}
    ends = {4: (768, side, side), 5: (768, side, side)}
    assert sizes == {1: (64, 56, 56), 2: (192, 28, 28), 3: (288, 28, 28), **ends}


@pytest.mark.parametrize("backbone", ["vgg16_wsol", "inception_v3_wsol"])
@pytest.mark.parametrize("size", [(1, 1), (33, 7)])
def test_images_of_any_size(backbone: str, size: tuple[int, int]) -> None:
    model = build_backbone(backbone, dilate=False, args=small(backbone).backbone_args).eval()
    with torch.inference_mode():
        assert all(torch.isfinite(f).all() for f in model(torch.zeros(1, 3, *size)).values())


def test_vgg16_is_timms_up_to_where_it_is_cut(tmp_path: Path) -> None:
    """The same weights, from a local file with a classifier in it, give the same features."""
    twin = timm.create_model("vgg16", num_classes=3).eval()
    save_file({**twin.state_dict(), "head.fc.more": torch.zeros(1)}, tmp_path / "w.safetensors")
    ours = build_backbone("vgg16_wsol", weights=tmp_path / "w.safetensors", dilate=False).eval()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, expected = ours(image), twin.forward_features(image)
    torch.testing.assert_close(functional.max_pool2d(found[5], 2), expected)


def test_inception_v3_takes_timms_weights_and_scales_pixels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    twin = timm.create_model("inception_v3.tv_in1k", num_classes=0).eval()
    save_file(twin.state_dict(), tmp_path / "w.safetensors")
    ours: Any = build_backbone("inception_v3_wsol", weights=tmp_path / "w.safetensors", dilate=False).eval()
    pixels = torch.rand(1, 3, 40, 40)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (pixels - mean[:, None, None]) / std[:, None, None]
    with torch.inference_mode():
        stem = ours.model.Conv2d_1a_3x3((pixels - 0.5) / 0.5)
        theirs = twin.Conv2d_1a_3x3(functional.pad((pixels - 0.5) / 0.5, (1, 1, 1, 1)))
        torch.testing.assert_close(stem, theirs)
        rest = ours.model.Conv2d_2b_3x3(ours.model.Conv2d_2a_3x3(stem))
        pooled = functional.max_pool2d(rest, 3, stride=2, padding=1, ceil_mode=True)
        torch.testing.assert_close(ours(normalised)[1], pooled, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_stride": 32, "dilate": False}, "its stride is 16, or 8"),
        ({"dilate": True}, "set dilate: false"),
        ({"dilate": False, "final_conv": True}, "set final_conv: false"),
        ({"dilate": False, "args": {"depth": 3}}, "classify.backbone_args: .*depth"),
        ({"dilate": False, "weights": Path("gone.safetensors")}, "gone.safetensors: no such weights file"),
    ],
)
def test_settings_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_backbone("vgg16_wsol", **options)


# -- neck and class maps -----------------------------------------------------------------------------------------------


def test_the_neck_makes_the_features_and_leaves_the_taps() -> None:
    torch.manual_seed(0)
    model = build_classifier(small(neck=NeckSettings(channels=12), head=GapHead(bias=True, init_std="xavier")), 5)
    assert model.class_weights.shape == (5, 12)
    assert model.class_bias is not None
    assert not model.class_bias.any()
    output = model.eval()(torch.randn(2, 3, 64, 64))
    assert output.features.shape == (2, 12, 4, 4)
    assert output.feature_taps[5].shape == (2, 64, 4, 4)
    assert float(output.features.detach().min()) >= 0
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == {"backbone", "neck", "head"}
    for bias in (conv.bias for conv in model.neck.convs):  # type: ignore[union-attr]
        assert not bias.any()


def test_dropout_of_the_neck_is_for_training() -> None:
    neck = NeckSettings(convs=1, channels=4, dropout=0.9).build(3)
    features = torch.ones(1, 3, 5, 5)
    assert torch.equal(neck.eval()(features), neck(features))
    assert not torch.equal(neck.train()(features), neck(features))


def test_class_maps_with_the_bias_have_the_logits_as_means() -> None:
    torch.manual_seed(0)
    model = build_classifier(small(head=GapHead(bias=True, init_std=0.5)), 3).eval()
    nn.init.constant_(model.class_bias, 5.0)  # type: ignore[arg-type]
    channels = torch.tensor([2, 0])
    with torch.inference_mode():
        output = model(torch.randn(1, 3, 48, 48))
        maps = Cam(bias=True).view_maps(Trained(model), output, channels)
        plain = Cam().view_maps(Trained(model), output, channels)
    assert float(maps.min()) > 0, "nothing is cut off, so that the mean is the logit"
    torch.testing.assert_close(maps.mean(dim=(2, 3)), output.logits[:, channels])
    torch.testing.assert_close(plain, (maps - 5).relu(), rtol=1e-4, atol=1e-4)


def test_a_head_without_a_bias_has_none_to_add() -> None:
    model = build_classifier(small(), 3).eval()
    output = model(torch.randn(1, 3, 32, 32))
    channels = torch.tensor([1])
    both = [method.view_maps(Trained(model), output, channels) for method in (Cam(), Cam(bias=True))]
    assert torch.equal(*both)


# -- restricted activation ---------------------------------------------------------------------------------------------


def by_hand(class_maps: Tensor, label: int, delta: float, gap: float) -> float:
    total = 0.0
    _, height, width = class_maps.shape
    spread = class_maps.softmax(0).var(dim=0)
    spread = (spread - spread.min()) / (spread.max() - spread.min())
    for y in range(height):
        for x in range(width):
            active = float(class_maps[label, y, x].sigmoid())
            total += active * float(spread[y, x] < delta) + (1 - active) * float(spread[y, x] > delta + gap)
    return total / (height * width)


def test_restricted_activation_by_hand() -> None:
    maps = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(1)) * 2
    tags = torch.tensor([[0.0, 1, 0, 0], [0, 0, 0, 1]])
    expected = (by_hand(maps[0], 1, 0.1, 0.2) + by_hand(maps[1], 3, 0.1, 0.2)) / 2
    assert float(restricted_activation_loss(maps, tags)) == pytest.approx(expected, rel=1e-4)
    assert float(restricted_activation_loss(maps, torch.zeros(2, 4))) == 0


def test_restricted_activation_begins_after_so_many_images() -> None:
    head = RestrictedHead(after=6, weight=0.5).build(3, 4).train()
    tags = torch.eye(4)
    terms = []
    for _ in range(3):
        logits, extras = head(torch.rand(4, 3, 2, 2))
        assert extras[CLASS_MAPS].shape == (4, 4, 2, 2)
        torch.testing.assert_close(extras[CLASS_MAPS].mean(dim=(2, 3)), logits)
        terms.append(head.losses(logits, tags, extras))
    assert [("restricted" in term) for term in terms] == [False, True, True]
    assert int(head.state_dict()["seen"]) == 12  # so that a resumed training goes on counting
    last = terms[-1]
    torch.testing.assert_close(last["loss"], last["classes"] + 0.5 * last["restricted"])
    assert head.eval()(torch.rand(1, 3, 2, 2))[1] == {}
