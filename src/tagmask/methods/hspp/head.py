"""Hybrid spatial pyramid pooling. Ru, Du, Wu, "Learning Visual Words for Weakly-Supervised Semantic Segmentation",
IJCAI 2021, section 3.3; docs/methods/hspp.md.

Average pooling spreads the evidence over the whole image, maximum pooling rests on one place. HSPP averages the maxima
of the bins of several grids, and the plain mean: each part of the image has to show something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tagmask.contracts.head import Head, HeadModule


def hspp(
    features: Tensor, *, gamma: float = 2.0, splits: Sequence[int] = (1, 2, 4), reference_bins: bool = False
) -> Tensor:
    """Hybrid spatial pyramid pooling: features pooled by the maxima of several grids and the mean.

    Ru, Du, Wu, IJCAI 2021, section 3.3:

    (sum over r in splits of the mean of the maxima of r x r bins + gamma * mean over all positions)
    / (number of splits + gamma).

    Args:
        features: [B, D, h, w] float, any size from 1 x 1 on.
        gamma: weight of the plain mean, >= 0.
        splits: bins per axis of each grid, each >= 1.
        reference_bins: where r does not divide h and w, do as the published code: bins of (h // r, w // r) from the
            top left, so that there are more than r of them and an incomplete last one is dropped. By default the bins
            are then those of adaptive pooling: r per axis, none dropped. Where r divides both, the two agree.

    Returns:
        [B, D] of the dtype of ``features``.

    Raises:
        ValueError: nothing to pool with (no splits and gamma 0), a split below 1, or a negative gamma.
    """
    if gamma < 0 or any(split < 1 for split in splits) or gamma + len(splits) <= 0:
        msg = f"hspp needs gamma >= 0, splits >= 1 and a weight on something, not gamma {gamma}, splits {list(splits)}"
        raise ValueError(msg)
    # The hybrid: maxima alone let a place have nothing as long as its bin has something, and the mean alone asks every
    # place for a little, the background included.
    pooled = gamma * features.mean(dim=(2, 3))
    for split in splits:
        pooled = pooled + _maxima(features, split, reference_bins).mean(dim=(2, 3))
    return pooled / (gamma + len(splits))


def _maxima(features: Tensor, split: int, reference_bins: bool) -> Tensor:
    """Maxima [B, D, rows, columns] of the bins of one grid."""
    if torch.compiler.is_exporting() and not reference_bins:
        return maxima_of_bins(features, split)  # ONNX has no adaptive pooling
    height, width = features.shape[2:]
    if reference_bins or (height % split == 0 and width % split == 0):
        # Not adaptive pooling here, though equal: its gradient on a GPU has no reproducible order.
        kernel = max(1, height // split), max(1, width // split)
        return functional.max_pool2d(features, kernel, stride=kernel)
    return functional.adaptive_max_pool2d(features, split)


def maxima_of_bins(features: Tensor, split: int) -> Tensor:
    """Adaptive maximum pooling [B, D, h, w] -> [B, D, split, split], by steps that any size can be traced with."""
    pooled = features
    for _ in "hw":
        # One axis at a time: a bin's maximum is the maximum over rows of the maxima over columns. Which places are in a
        # bin is a comparison, for sizes are not numbers while a graph is traced.
        length = pooled.shape[-2]
        place = torch.arange(length, device=features.device)
        number = torch.arange(split, device=features.device)[:, None]
        inside = (place >= number * length // split) & (place * split < (number + 1) * length)
        bins = pooled[:, :, None].masked_fill(~inside[:, :, None], -torch.inf)  # [B, D, split, length, other side]
        pooled = bins.amax(3).transpose(2, 3)
    return pooled


class HsppHead(Head):
    """Settings of the head; ``init_std: null`` is torch's convolution default (the published code's)."""

    name: ClassVar[str] = "hspp"
    gamma: Annotated[float, Field(ge=0)] = 2.0
    splits: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2, 4)
    reference_bins: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    init_std: Annotated[float, Field(gt=0)] | None = 0.01

    def build(self, channels: int, n_classes: int) -> HsppClassifier:
        """The head's module for D = ``channels`` and C = ``n_classes``."""
        return HsppClassifier(channels, n_classes, self)


class HsppClassifier(HeadModule):
    """features [B, D, h, w] -> logits [B, C]; ``class_weights`` is [C, D].

    HSPP only trains: maps are the class responses as everywhere, though their mean is no longer the logit.
    """

    def __init__(self, channels: int, n_classes: int, settings: HsppHead) -> None:
        super().__init__()
        self.settings = settings
        self.weight = nn.Conv2d(channels, n_classes, kernel_size=1, bias=False)
        if settings.init_std is not None:
            nn.init.normal_(self.weight.weight, std=settings.init_std)

    @property
    def class_weights(self) -> Tensor:
        """Classifier weights [C, D]."""
        return self.weight.weight.flatten(1)

    def forward(self, features: Tensor, tags: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits [B, C] and no extras."""
        del tags
        settings = self.settings
        pooled = hspp(features, gamma=settings.gamma, splits=settings.splits, reference_bins=settings.reference_bins)
        # Dropped after pooling: among dropped features the maxima would be larger in training than afterwards.
        dropped = functional.dropout(pooled, settings.dropout, training=self.training)
        return self.weight(dropped[:, :, None, None]).flatten(1), {}

    def losses(self, logits: Tensor, tags: Tensor, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Multi-label soft margin: mean over classes, then over the batch. ``tags`` is multi-hot [B, C]."""
        del extras
        return {"loss": functional.multilabel_soft_margin_loss(logits, tags)}
