"""Global average pooling head. Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.

logits z_c = w_c . mean_p F_p with a bias-free 1x1 convolution, so that mean_p (w_c . F_p) = z_c exactly: the
property class activation maps rely on (methods.md 1.1, 2).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tagmask.classify.head import Head


class GapHead(Head):
    """Settings of the head; ``init_std: null`` is torch's convolution default (the published code's)."""

    name: ClassVar[str] = "gap"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    init_std: Annotated[float, Field(gt=0)] | None = 0.01

    def build(self, channels: int, n_classes: int) -> GapClassifier:
        """The head's module for D = ``channels`` and C = ``n_classes``."""
        return GapClassifier(channels, n_classes, dropout=self.dropout, init_std=self.init_std)


class GapClassifier(nn.Module):
    """features [B, D, h, w] -> logits [B, C]; ``class_weights`` is [C, D]."""

    def __init__(self, channels: int, n_classes: int, *, dropout: float = 0.0, init_std: float | None = None) -> None:
        super().__init__()
        self.dropout = dropout
        self.weight = nn.Conv2d(channels, n_classes, kernel_size=1, bias=False)
        if init_std is not None:
            nn.init.normal_(self.weight.weight, std=init_std)

    @property
    def class_weights(self) -> Tensor:
        """Classifier weights [C, D]."""
        return self.weight.weight.flatten(1)

    def forward(self, features: Tensor, tags: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits [B, C] and no extras."""
        del tags
        dropped = functional.dropout(features, self.dropout, training=self.training)
        return self.weight(dropped.mean(dim=(2, 3), keepdim=True)).flatten(1), {}

    def losses(self, logits: Tensor, tags: Tensor, extras: dict[str, Tensor]) -> dict[str, Tensor]:
        """Multi-label soft margin: mean over classes, then over the batch. ``tags`` is multi-hot [B, C]."""
        del extras
        return {"loss": functional.multilabel_soft_margin_loss(logits, tags)}
