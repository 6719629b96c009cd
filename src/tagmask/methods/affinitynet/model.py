"""AffinityNet's network on any backbone: features in which like pixels lie close.

Source: Ahn and Kwak, CVPR 2018 (AffinityNet); ``network/resnet38_aff.Net`` of jiwoon-ahn/psa;
docs/methods/affinitynet.md.

The published layout reads WideResNet-38 at conv4, conv5 and conv6, all of stride 8. Generalised: every stage of
stride 8 and more, coarser ones stretched to stride 8. With WideResNet-38 this is the published network, tensor by
tensor; on ResNet-50 it reads layers 2 to 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagmask.backbones.build import Backbone, keep_statistics
from tagmask.methods.irnet.model import Tap, fit_to_grid, stage_strides

STRIDE = 8
_WIDTHS = (256, 128, 64)  # of the last tap, the one before, and all others


def affinity_taps(channels: Sequence[int], strides: Sequence[int]) -> tuple[Tap, ...]:
    """The stages that are read, in order: those of stride 8 and more.

    Args:
        channels: of each stage.
        strides: of each stage, see :func:`tagmask.methods.irnet.model.stage_strides`.

    Raises:
        ValueError: lengths differ, or no stage has a stride of 8 or more.
    """
    stages = zip(channels, strides, strict=True)
    taps = tuple(Tap(number, width, stride) for number, (width, stride) in enumerate(stages, 1) if stride >= STRIDE)
    if not taps:
        msg = f"the backbone's strides {list(strides)} are below {STRIDE}: there is nothing to read"
        raise ValueError(msg)
    return taps


class AffinityNetwork(nn.Module):
    """Backbone, a 1x1 convolution and ELU on each tap, and one on all of them together; no biases.

    Batch norms keep their statistics. ``freeze`` first stages of the backbone get no gradient.
    """

    def __init__(self, backbone: Backbone, *, freeze: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        for parameter in backbone.parameters_up_to(freeze):
            parameter.requires_grad_(False)
        was_training = backbone.training
        backbone.eval()
        with torch.no_grad():
            # Measured, because timm's own account does not cover the backbones of this package and removed strides.
            strides = stage_strides(backbone(torch.zeros(1, backbone.n_channels, 128, 128)), 128)
        backbone.train(was_training)
        self.taps = affinity_taps(backbone.channels, strides)
        widths = [_WIDTHS[min(place, len(_WIDTHS) - 1)] for place in reversed(range(len(self.taps)))]
        self.reduce = nn.ModuleList(
            [nn.Conv2d(tap.channels, width, 1, bias=False) for tap, width in zip(self.taps, widths, strict=True)]
        )
        self.join = nn.Conv2d(sum(widths), sum(widths), 1, bias=False)
        for convolution in self.reduce:
            nn.init.kaiming_normal_(convolution.weight)  # type: ignore[arg-type]
        nn.init.xavier_uniform_(self.join.weight, gain=4)

    def train(self, mode: bool = True) -> AffinityNetwork:
        """Training mode, but batch norms keep their statistics."""
        super().train(mode)
        keep_statistics(self.backbone)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> features [B, D, ceil(H / 8), ceil(W / 8)]; D = 448 with three taps."""
        features = self.backbone(images)
        size = -(-images.shape[2] // STRIDE), -(-images.shape[3] // STRIDE)
        parts = []
        for tap, convolution in zip(self.taps, self.reduce, strict=True):
            values = functional.elu(convolution(features[tap.stage]))
            if tap.stride != STRIDE:
                scale = tap.stride / STRIDE
                values = functional.interpolate(values, scale_factor=scale, mode="bilinear", align_corners=False)
            parts.append(fit_to_grid(values, size))
        joined: Tensor = functional.elu(self.join(torch.cat(parts, dim=1)))
        return joined
