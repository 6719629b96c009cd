"""SPA's restricted activation: a loss that keeps class maps flat where they are sure, so that heads do not outshine
bodies.

Pan et al., "Unveiling the Potential of Structure Preserving for Weakly Supervised Object Localization" (SPA), CVPR
2021, section 3.2, as in its published code (docs/methods/scg.md): softmax cross entropy plus, from some epoch on,
``weight`` times the loss of :func:`restricted_activation_loss`.

Deviations: the loss begins after a number of training images instead of epochs, which is counted in the checkpoint; an
image with several tags counts the mean over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tagmask.methods.cam.head import GapClassifier, GapHead
from tagmask.methods.softmax_ce.head import softmax_tag_loss

CLASS_MAPS = "class_maps"


def restricted_activation_loss(class_maps: Tensor, tags: Tensor, *, delta: float = 0.1, gap: float = 0.2) -> Tensor:
    """Push the true class's map down on background and up on foreground.

    With v the variance over classes of softmax(class maps) at each place, min-max normalised per image, background
    is v < delta, foreground v > delta + gap; with a the sigmoid of the true class's map the loss is the mean of a on
    the background and 1 - a on the foreground.

    Args:
        class_maps: [B, C, h, w] float, the head's output before pooling.
        tags: multi-hot [B, C].
        delta: 0.1 for CUB, 0.4 for ILSVRC.
        gap: 0.2 for CUB, 0.1 for ILSVRC.

    Returns:
        Scalar >= 0; images without a tag add 0.
    """
    # Places are chosen by it, not trained through it: a comparison has no gradient anyway.
    spread = class_maps.detach().softmax(1).var(dim=1)
    low, high = spread.amin(dim=(1, 2), keepdim=True), spread.amax(dim=(1, 2), keepdim=True)
    spread = (spread - low) / (high - low + 1e-10)
    background, foreground = (spread < delta).float()[:, None], (spread > delta + gap).float()[:, None]
    active = class_maps.sigmoid()
    per_class = (active * background + (1 - active) * foreground).mean(dim=(2, 3))
    return ((per_class * tags).sum(1) / tags.sum(1).clamp(min=1)).mean()


class RestrictedHead(GapHead):
    """Settings of the head: those of ``gap``, and SPA's loss."""

    name: ClassVar[str] = "restricted"
    weight: Annotated[float, Field(ge=0)] = 0.5
    delta: Annotated[float, Field(ge=0, le=1)] = 0.1
    gap: Annotated[float, Field(ge=0, le=1)] = 0.2
    after: Annotated[int, Field(ge=0)] = Field(0, description="training images before the loss begins")

    def build(self, channels: int, n_classes: int) -> RestrictedClassifier:
        """The head's module for D = ``channels`` and C = ``n_classes``."""
        return RestrictedClassifier(channels, n_classes, self)


class RestrictedClassifier(GapClassifier):
    """The module of ``gap`` with another loss; in training its extras hold the class maps [B, C, h, w]."""

    seen: Tensor

    def __init__(self, channels: int, n_classes: int, settings: RestrictedHead) -> None:
        options: dict[str, Any] = {"dropout": settings.dropout, "init_std": settings.init_std, "bias": settings.bias}
        super().__init__(channels, n_classes, **options)
        self.settings = settings
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor, tags: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits [B, C], and in training the class maps."""
        if not self.training:
            return super().forward(features, tags)
        class_maps = self.weight(functional.dropout(features, self.dropout, training=True))
        return class_maps.mean(dim=(2, 3)), {CLASS_MAPS: class_maps}

    def losses(self, logits: Tensor, tags: Tensor, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Softmax cross entropy, and the restricted activation once it has begun; ``tags`` is multi-hot [B, C]."""
        classes = softmax_tag_loss(logits, tags)
        if self.training:
            self.seen += len(tags)
        if CLASS_MAPS not in extras or int(self.seen) <= self.settings.after:
            return {"loss": classes, "classes": classes}
        settings = self.settings
        restricted = restricted_activation_loss(
            extras[CLASS_MAPS].float(), tags, delta=settings.delta, gap=settings.gap
        )
        return {"loss": classes + settings.weight * restricted, "classes": classes, "restricted": restricted}
