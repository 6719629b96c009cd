"""InceptionV3 as object localisation uses it: larger maps, cut behind its seventeen-by-seventeen blocks.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016; the cut is that of SPG (Zhang
et al., "Self-produced Guidance for Weakly-supervised Object Localization", ECCV 2018; docs/localisation.md): the first
convolution is padded, the two pools of the stem are 3x3 with padding 1 and round up, Mixed_6a has stride 1 and padding
1, its pool too, and a pool before it makes 14x14 maps of 224 pixels (stride 16; left out: 28x28, stride 8). Parameter
names are torchvision's and timm's, so that their weights fit.

Those weights expect pixels in [-1, 1]; this network takes images normalised with ImageNet's mean and standard
deviation, as torchvision's does, and brings them into that range first (``transform_input``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.inception import BasicConv2d, InceptionA, InceptionB, InceptionC

from tagmask.backbones.stages import Stages
from tagmask.types import IMAGENET

NAME = "inception_v3_wsol"
_DOUBLED = (128, 160, 160, 192)  # channels of the 7x7 branches of Mixed_6b to Mixed_6e


class InceptionV3(nn.Module):
    """Images [B, 3, H, W] -> features of the five stages: stem, stem, Mixed_5d, Mixed_6c, Mixed_6e.

    Channels 64, 192, 288, 768, 768; strides 4, 8, 8, 16, 16 (the last two 8 at output stride 8).
    """

    colours_only = True  # forward brings ImageNet's statistics to those of its weights

    def __init__(self, output_stride: int = 16) -> None:
        super().__init__()
        self.pool_before_6 = output_stride == 16
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, kernel_size=3, stride=2, padding=1)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, kernel_size=3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, kernel_size=3)
        self.Mixed_5b = InceptionA(192, pool_features=32)
        self.Mixed_5c = InceptionA(256, pool_features=64)
        self.Mixed_5d = InceptionA(288, pool_features=64)
        self.Mixed_6a = InceptionB(288)
        # Only its 3x3 convolutions with stride; that of the pool is taken in ``_mixed_6a``, which torchvision writes
        # into its forward.
        for block in (self.Mixed_6a.branch3x3, self.Mixed_6a.branch3x3dbl_3):
            block.conv.stride, block.conv.padding = (1, 1), (1, 1)
        for letter, channels in zip("bcde", _DOUBLED, strict=True):
            self.add_module(f"Mixed_6{letter}", InceptionC(768, channels_7x7=channels))
        self.feature_info = Stages([64, 192, 288, 768, 768])

    def forward(self, images: Tensor) -> list[Tensor]:
        """The five stages' features."""
        # From ImageNet's normalisation to [-1, 1], for which these weights were trained.
        mean, std = (images.new_tensor(values)[:, None, None] for values in (IMAGENET.mean, IMAGENET.std))
        x = _padded((images * std + mean - 0.5) / 0.5, 12)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        taps = [_pool(x)]
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(taps[0]))
        taps.append(_pool(x))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(taps[1])))
        taps.append(x)
        if self.pool_before_6:
            x = functional.max_pool2d(_padded(x, 3), 3, stride=2, ceil_mode=True)
        x = self.get_submodule("Mixed_6c")(self.get_submodule("Mixed_6b")(_mixed_6a(self.Mixed_6a, x)))
        taps.append(x)
        return [*taps, self.get_submodule("Mixed_6e")(self.get_submodule("Mixed_6d")(x))]


def _pool(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)


def _padded(x: Tensor, least: int) -> Tensor:
    """What is not padded by its layer needs some pixels; smaller images are continued by their border."""
    missing = [max(0, least - size) for size in (x.shape[-1], x.shape[-2])]
    return functional.pad(x, (0, missing[0], 0, missing[1]), mode="replicate") if any(missing) else x


def _mixed_6a(block: Any, x: Tensor) -> Tensor:
    """Torchvision's block with the stride taken from its pool as well."""
    pool = functional.max_pool2d(x, 3, stride=1, padding=1)
    doubled = block.branch3x3dbl_3(block.branch3x3dbl_2(block.branch3x3dbl_1(x)))
    return torch.cat([block.branch3x3(x), doubled, pool], 1)
