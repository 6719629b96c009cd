"""IRNet's branches: the published layout on ResNet-50, other backbones, odd sizes, constants and switches."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from tagmask.backbones.build import build_backbone
from tagmask.methods.irnet.losses import irnet_losses
from tagmask.methods.irnet.model import (
    BoundaryBranch,
    DisplacementBranch,
    MeanShift,
    Tap,
    choose_taps,
    grid_size,
    stage_strides,
)

RESNET50 = ((64, 256, 512, 1024, 2048), (2, 4, 8, 16, 16))
SMALL = ((8, 8, 16, 24, 32), (2, 4, 8, 16, 16))


def resnet_features(height, width, channels=SMALL[0], batch=2, seed=0):
    """Features of the sizes that ResNet gives: every stride rounds up."""
    generator = torch.Generator().manual_seed(seed)
    return {
        stage: torch.randn(batch, c, -(-height // s), -(-width // s), generator=generator)
        for stage, (c, s) in enumerate(zip(channels, SMALL[1], strict=True), 1)
    }


def test_published_layout():
    taps = choose_taps(*RESNET50)
    assert taps == (Tap(1, 64, 4, pooled=True), Tap(2, 256, 4), Tap(3, 512, 8), Tap(4, 1024, 16), Tap(5, 2048, 16))
    boundary, displacement = BoundaryBranch(taps), DisplacementBranch(taps)
    shapes = {name: tuple(values.shape[:2]) for name, values in boundary.named_parameters() if values.ndim == 4}
    assert shapes == {f"blocks.{i}.conv.weight": (32, c) for i, c in enumerate(RESNET50[0])} | {
        "logit.weight": (1, 160)
    }
    assert boundary.logit.bias is not None
    assert [block.norm.num_groups for block in boundary.blocks] == [4] * 5
    assert [block.scale for block in boundary.blocks] == [1, 1, 2, 4, 4]
    convs = [m for m in displacement.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convs] == [
        (64, 64), (256, 128), (512, 256), (1024, 256), (2048, 256), (768, 256), (448, 256), (256, 2),
    ]  # fmt: skip
    assert all(conv.bias is None for conv in convs)
    assert [m.num_groups for m in displacement.modules() if isinstance(m, nn.GroupNorm)] == [8] + [16] * 6
    assert [m.scale for m in [*displacement.coarse, displacement.fuse, displacement.last]] == [1, 2, 2, 2, 1]


def published_boundary(branch, features):
    """The published forward with this branch's tensors: crops to the size of the second part."""
    parts = []
    for i, (block, scale) in enumerate(zip(branch.blocks, (1, 1, 2, 4, 4), strict=True)):
        x = features[i + 1]
        x = functional.max_pool2d(x, 3, 2, 1) if i == 0 else x
        x = block.norm(functional.conv2d(x, block.conv.weight))
        x = nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=False)(x) if scale > 1 else x
        parts.append(functional.relu(x))
    size = parts[1].shape[2:]
    return branch.logit(torch.cat([part[..., : size[0], : size[1]] for part in parts], dim=1))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (61, 75), (33, 50), (1, 7)])
def test_boundary_is_the_published_forward_at_any_size(height, width):
    torch.manual_seed(0)
    branch = BoundaryBranch(choose_taps(*SMALL))
    features = resnet_features(height, width)
    logits = branch(features, (height, width))
    assert logits.shape == (2, 1, *grid_size(height, width))
    assert torch.equal(logits, published_boundary(branch, features))


def published_displacement(branch, features):
    """The published forward with this branch's tensors: deep parts cut to the third, then to the second."""

    def part(block, x, scale):
        x = block.norm(functional.conv2d(x, block.conv.weight))
        x = nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=False)(x) if scale > 1 else x
        return functional.relu(x)

    d1 = part(branch.fine[0], functional.max_pool2d(features[1], 3, 2, 1), 1)
    d2, d3 = part(branch.fine[1], features[2], 1), part(branch.coarse[0], features[3], 1)
    deep = [part(branch.coarse[i], features[i + 3], 2)[..., : d3.shape[2], : d3.shape[3]] for i in (1, 2)]
    up3 = part(branch.fuse, torch.cat([d3, *deep], dim=1), 2)[..., : d2.shape[2], : d2.shape[3]]
    return branch.field(part(branch.last, torch.cat([d1, d2, up3], dim=1), 1))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (61, 75), (33, 50)])
def test_displacement_is_the_published_forward_at_any_size(height, width):
    torch.manual_seed(0)
    branch = DisplacementBranch(choose_taps(*SMALL))
    features = resnet_features(height, width)
    field = branch(features, (height, width))
    assert field.shape == (2, 2, *grid_size(height, width))
    assert torch.equal(field, published_displacement(branch, features))


def test_the_boundary_learns_the_same_without_displacement():
    features = resnet_features(61, 75)
    labels = torch.randint(0, 3, (2, 16, 19), generator=torch.Generator().manual_seed(0))
    gradients = []
    for with_displacement in (True, False):
        torch.manual_seed(0)
        boundary = BoundaryBranch(choose_taps(*SMALL))
        displacement = DisplacementBranch(choose_taps(*SMALL)) if with_displacement else None
        field = displacement(features, (61, 75)) if displacement else None
        irnet_losses(boundary(features, (61, 75)), labels, field, radius=5)["loss"].backward()
        gradients.append([parameter.grad for parameter in boundary.parameters()])
        if displacement:
            assert all(parameter.grad.abs().sum() > 0 for parameter in displacement.parameters())
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0])


def test_features_are_constants():
    features = {stage: values.requires_grad_() for stage, values in resnet_features(40, 40).items()}
    taps = choose_taps(*SMALL)
    (BoundaryBranch(taps)(features, (40, 40)).sum() + DisplacementBranch(taps)(features, (40, 40)).sum()).backward()
    assert all(values.grad is None for values in features.values())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet10t", {"args": {"channels": [8, 16, 24, 32], "stem_width": 8}}),
        ("mobilenetv3_small_050", {"output_stride": 32, "final_conv": True}),
        ("convnext_atto", {"output_stride": 32, "args": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}}),
    ],
)
def test_any_backbone(name, options):
    backbone = build_backbone(name, **options).eval()
    images = torch.randn(1, 3, 67, 93)
    with torch.no_grad():
        strides = stage_strides(backbone(torch.zeros(1, 3, 128, 128)), 128)
        taps = choose_taps(backbone.channels, strides)
        features = backbone(images)
        assert BoundaryBranch(taps)(features, (67, 93)).shape == (1, 1, 17, 24)
        assert DisplacementBranch(taps)(features, (67, 93)).shape == (1, 2, 17, 24)


def test_a_transformer_has_one_stride():
    taps = choose_taps([8, 8], [16, 16])
    features = {1: torch.randn(1, 8, 3, 4), 2: torch.randn(1, 8, 3, 4)}
    assert BoundaryBranch(taps)(features, (50, 70)).shape == (1, 1, 13, 18)
    assert DisplacementBranch(taps)(features, (50, 70)).shape == (1, 2, 13, 18)


def test_taps_are_chosen_by_stride():
    assert choose_taps([4, 5, 6, 7], [1, 2, 2, 4]) == (Tap(3, 6, 4, pooled=True), Tap(4, 7, 4))
    assert DisplacementBranch(choose_taps([4, 5], [2, 4])).fuse is None
    with pytest.raises(ValueError, match="below 2"):
        choose_taps([4], [1])
    with pytest.raises(ValueError, match="2 numbers of channels and 1 strides"):
        choose_taps([4, 5], [1])


def test_mean_shift_works_in_eval_mode_only():
    shift = MeanShift()
    batches = [torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(3, 2, 4, 5), torch.full((1, 2, 2, 2), 5.0)]
    shift.measure(iter(batches))
    assert shift.running_mean.tolist() == [3, 3.5]
    field = torch.zeros(1, 2, 2, 2)
    assert torch.equal(shift(field), field)
    assert shift.eval()(field)[0, :, 0, 0].tolist() == [-3, -3.5]
    assert "running_mean" in shift.state_dict()
    with pytest.raises(ValueError, match="no displacement"):
        shift.measure([])
