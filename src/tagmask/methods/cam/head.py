"""Global average pooling head. Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.

logits z_c = w_c . mean_p F_p with a bias-free 1x1 convolution, so that mean_p (w_c . F_p) = z_c exactly: the
property class activation maps rely on (docs/methods/cam.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tagmask.backbones.neck import xavier
from tagmask.contracts.head import Head, HeadModule
from tagmask.registry.method import LATER


class GapHead(Head):
    """Settings of the head.

    ``init_std: null`` is torch's convolution default (the published code's), ``xavier`` that of SPA. With ``bias`` the
    responses plus the bias are the *class map* of object localisation, whose mean is the logit; without, maps and
    logits are the same but for the mean.
    """

    name: ClassVar[str] = "gap"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    init_std: Annotated[float, Field(gt=0)] | Literal["xavier"] | None = 0.01
    bias: bool = Field(False, json_schema_extra=LATER)

    def build(self, channels: int, n_classes: int) -> GapClassifier:
        """The head's module for D = ``channels`` and C = ``n_classes``."""
        return GapClassifier(channels, n_classes, dropout=self.dropout, init_std=self.init_std, bias=self.bias)


class GapClassifier(HeadModule):
    """features [B, D, h, w] -> logits [B, C]; ``class_weights`` is [C, D]."""

    def __init__(
        self,
        channels: int,
        n_classes: int,
        *,
        dropout: float = 0.0,
        init_std: float | Literal["xavier"] | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.weight = nn.Conv2d(channels, n_classes, kernel_size=1, bias=bias)
        if init_std == "xavier":
            xavier(self.weight)
        elif init_std is not None:
            nn.init.normal_(self.weight.weight, std=init_std)
            if self.weight.bias is not None:
                nn.init.zeros_(self.weight.bias)

    @property
    def class_weights(self) -> Tensor:
        """Classifier weights [C, D]."""
        return self.weight.weight.flatten(1)

    @property
    def class_bias(self) -> Tensor | None:
        """Biases [C], None without."""
        return self.weight.bias

    def forward(self, features: Tensor, tags: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits [B, C] and no extras."""
        del tags
        dropped = functional.dropout(features, self.dropout, training=self.training)
        return self.weight(dropped.mean(dim=(2, 3), keepdim=True)).flatten(1), {}

    def losses(self, logits: Tensor, tags: Tensor, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Multi-label soft margin: mean over classes, then over the batch. ``tags`` is multi-hot [B, C]."""
        del extras
        return {"loss": functional.multilabel_soft_margin_loss(logits, tags)}
