"""AMN's network on any backbone: features conditioned on the tags, and a pyramid of dilated convolutions.

Source: Lee et al., CVPR 2022, section 3.2; ``net/resnet50_amn.py`` of gaviotas/AMN; docs/methods/amn.md. With ResNet-50
at output stride 16 without dilation this is the published network, tensor by tensor.

Deviation: dropout is off at test time. In the published code ``eval()`` does not reach it, and maps are random.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tagmask.backbones.build import Backbone, keep_statistics

DILATIONS = (6, 12, 18, 24)


class ConditionedPyramid(nn.Module):
    """Features times a vector made of the tags, dropout, and the sum of four 3x3 convolutions of growing dilation.

    Args:
        channels: D of the features.
        n_classes: C.
        dilations: one for each convolution.
        dropout: share of the values that are dropped in training.
    """

    def __init__(
        self, channels: int, n_classes: int, *, dilations: Sequence[int] = DILATIONS, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.label_enc = nn.Linear(n_classes, channels)
        self.dropout = nn.Dropout(dropout)
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, n_classes + 1, 3, padding=dilation, dilation=dilation) for dilation in dilations
        )
        for convolution in self.convs:
            nn.init.normal_(convolution.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, tags: Tensor) -> Tensor:
        """Features [B, D, h, w] and multi-hot tags float [B, C] -> logits [B, C + 1, h, w], background first."""
        conditioned = self.dropout(features * self.label_enc(tags)[..., None, None])
        logits: Tensor = sum(convolution(conditioned) for convolution in self.convs)
        return logits


class AMNetwork(nn.Module):
    """A backbone whose first ``freeze`` stages do not learn, and the pyramid. Batch norms keep their statistics."""

    def __init__(self, backbone: Backbone, n_classes: int, *, freeze: int = 0, dropout: float = 0.1) -> None:
        super().__init__()
        self.backbone = backbone
        for parameter in backbone.parameters_up_to(freeze):
            parameter.requires_grad_(False)
        self.pyramid = ConditionedPyramid(backbone.channels[-1], n_classes, dropout=dropout)

    @property
    def n_classes(self) -> int:
        """C, the number of classes that it is conditioned on."""
        return self.pyramid.label_enc.in_features

    def train(self, mode: bool = True) -> AMNetwork:
        """Training mode, but batch norms keep their statistics."""
        super().train(mode)
        keep_statistics(self.backbone)
        return self

    def forward(self, images: Tensor, tags: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] and multi-hot tags float [B, C] -> logits [B, C + 1, h, w]."""
        features = self.backbone(images)[self.backbone.n_stages]
        logits: Tensor = self.pyramid(features, tags)
        return logits
