"""The two branches of IRNet on any backbone.

Source: Ahn, Cho, Kwak, CVPR 2019 (IRNet), section 4; ``net/resnet50_irn.py`` of jiwoon-ahn/irn; docs/methods/irnet.md.

The published layout reads ResNet-50's stem after its max-pooling (stride 4), and layers 1 to 4 (strides 4, 8, 16,
16). Generalised: the last stage of stride 2 after the same max-pooling, and every stage of stride 4 and more.
With ResNet-50 at output stride 16 this is the published network, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagmask.backbones.build import Backbone

FINE, COARSE = 4, 8


class Tap(NamedTuple):
    """A stage (counted from 1) that the branches read; ``stride`` is after the pooling, if it is ``pooled``."""

    stage: int
    channels: int
    stride: int
    pooled: bool = False

    def read(self, features: Mapping[int, Tensor]) -> Tensor:
        """Its features as constants: the backbone does not learn here."""
        values = features[self.stage].detach()
        return functional.max_pool2d(values, 3, stride=2, padding=1) if self.pooled else values


def choose_taps(channels: Sequence[int], strides: Sequence[int]) -> tuple[Tap, ...]:
    """The stages that the branches read, in order.

    Args:
        channels: of each stage.
        strides: of each stage, not falling; see :func:`stage_strides`.

    Raises:
        ValueError: lengths differ, or no stage has a stride of 2 or more.
    """
    if len(channels) != len(strides):
        msg = f"{len(channels)} numbers of channels and {len(strides)} strides"
        raise ValueError(msg)
    stages = [Tap(i, c, s) for i, (c, s) in enumerate(zip(channels, strides, strict=True), 1)]
    # timm hands the stem out before ResNet's max-pooling, the published network reads it behind; so it is pooled here.
    half = [Tap(tap.stage, tap.channels, FINE, pooled=True) for tap in stages if 2 <= tap.stride < FINE][-1:]
    taps = tuple(half + [tap for tap in stages if tap.stride >= FINE])
    if not taps:
        msg = f"the backbone's strides {list(strides)} are below 2: there is nothing to read"
        raise ValueError(msg)
    return taps


def stage_strides(features: Mapping[int, Tensor], width: int) -> list[int]:
    """Strides of the stages 1, 2, ... from their features of an image ``width`` pixels wide."""
    return [max(round(width / features[stage].shape[-1]), 1) for stage in sorted(features)]


def grid_size(height: int, width: int) -> tuple[int, int]:
    """The branches' grid of an image: (ceil(H / 4), ceil(W / 4))."""
    return -(-height // FINE), -(-width // FINE)


def fit_to_grid(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut at the bottom and right to ``size``; a backbone that rounds down is continued by its last pixels."""
    values = values[..., : size[0], : size[1]]
    # Rounding differs: strided convolutions round up, timm's patch embeddings and VALID padding down.
    padding = size[1] - values.shape[-1], size[0] - values.shape[-2]
    return functional.pad(values, (0, padding[0], 0, padding[1]), mode="replicate") if any(padding) else values


class Block(nn.Module):
    """1x1 convolution without bias, GroupNorm, bilinear up-sampling by ``scale``, ReLU, cut to the grid."""

    def __init__(self, channels: int, width: int, groups: int, scale: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 1, bias=False)
        self.norm = nn.GroupNorm(groups, width)
        self.scale = scale

    def forward(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, D, h, w] -> [B, width, *size], >= 0."""
        values = self.norm(self.conv(values))
        if self.scale != 1:
            values = functional.interpolate(values, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return fit_to_grid(functional.relu(values), size)


class BoundaryBranch(nn.Module):
    """Class boundaries: each tap to 32 channels (4 groups) at stride 4, all together to one logit."""

    def __init__(self, taps: Sequence[Tap]) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.blocks = nn.ModuleList([Block(tap.channels, 32, 4, tap.stride / FINE) for tap in self.taps])
        self.logit = nn.Conv2d(32 * len(self.taps), 1, 1)

    def forward(self, features: Mapping[int, Tensor], image_size: tuple[int, int]) -> Tensor:
        """Features {stage: [B, D, h, w]} of images of ``image_size`` -> logits [B, 1, ceil(H/4), ceil(W/4)]."""
        size = grid_size(*image_size)
        parts = [block(tap.read(features), size) for tap, block in zip(self.taps, self.blocks, strict=True)]
        logits: Tensor = self.logit(torch.cat(parts, dim=1))
        return logits


class MeanShift(nn.Module):
    """Subtracts the mean displacement of the data, which the losses leave free; in eval mode only."""

    running_mean: Tensor

    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, displacement: Tensor) -> Tensor:
        """[B, 2, h, w] -> the same shape."""
        return displacement if self.training else displacement - self.running_mean.view(1, -1, 1, 1)

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Set the mean to the average of the batches' means; batches [B, 2, h, w] come from train mode.

        Raises:
            ValueError: there is no batch.
        """
        means = [batch.float().mean(dim=(0, 2, 3)) for batch in batches]
        if not means:
            msg = "no displacement to take the mean of"
            raise ValueError(msg)
        self.running_mean.copy_(torch.stack(means).mean(0))


class DisplacementBranch(nn.Module):
    """Displacement of each pixel to its object's centre, (dy, dx) in grid pixels.

    Taps of stride 8 and more get 256 channels (16 groups) at stride 8 and are fused to 256 at stride 4; finer
    ones get 128 (16), the pooled one 64 (8); all of stride 4 together 256 (16), then two.
    """

    def __init__(self, taps: Sequence[Tap]) -> None:
        super().__init__()
        self.fine_taps = tuple(tap for tap in taps if tap.stride < COARSE)
        self.coarse_taps = tuple(tap for tap in taps if tap.stride >= COARSE)
        widths = [(64, 8) if tap.pooled else (128, 16) for tap in self.fine_taps]
        self.fine = nn.ModuleList(
            [
                Block(tap.channels, *width, scale=tap.stride / FINE)
                for tap, width in zip(self.fine_taps, widths, strict=True)
            ]
        )
        self.coarse = nn.ModuleList([Block(tap.channels, 256, 16, tap.stride / COARSE) for tap in self.coarse_taps])
        coarse = 256 * len(self.coarse_taps)
        self.fuse = Block(coarse, 256, 16, COARSE / FINE) if coarse else None
        self.last = Block(sum(width for width, _ in widths) + (256 if coarse else 0), 256, 16)
        self.field = nn.Conv2d(256, 2, 1, bias=False)
        self.shift = MeanShift()

    def forward(self, features: Mapping[int, Tensor], image_size: tuple[int, int]) -> Tensor:
        """Features {stage: [B, D, h, w]} of images of ``image_size`` -> [B, 2, ceil(H/4), ceil(W/4)]."""
        size = grid_size(*image_size)
        parts = [block(tap.read(features), size) for tap, block in zip(self.fine_taps, self.fine, strict=True)]
        if self.fuse is not None:
            half = -(-size[0] // 2), -(-size[1] // 2)
            deep = [block(tap.read(features), half) for tap, block in zip(self.coarse_taps, self.coarse, strict=True)]
            parts.append(self.fuse(torch.cat(deep, dim=1), size))
        shifted: Tensor = self.shift(self.field(self.last(torch.cat(parts, dim=1), size)))
        return shifted


class IRNetwork(nn.Module):
    """Backbone and branches. The backbone is constant: no gradient, and in eval mode always."""

    def __init__(self, backbone: Backbone, *, displacement: bool) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False).eval()
        with torch.no_grad():
            strides = stage_strides(backbone(torch.zeros(1, backbone.n_channels, 128, 128)), 128)
        taps = choose_taps(backbone.channels, strides)
        self.boundary = BoundaryBranch(taps)
        self.displacement = DisplacementBranch(taps) if displacement else None

    def train(self, mode: bool = True) -> IRNetwork:
        """Training mode of the branches."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised images [B, 3, H, W] -> boundary logits [B, 1, ceil(H/4), ceil(W/4)], displacement [B, 2, same]."""
        with torch.no_grad():
            features = self.backbone(images)
        size = images.shape[2], images.shape[3]
        return self.boundary(features, size), self.displacement(features, size) if self.displacement else None
