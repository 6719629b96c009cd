"""Softmax cross entropy on the tag classifier: two rows of ReCAM's ablation (Chen et al., CVPR 2022, Table 1).

The published text does not say how images with several tags enter a softmax; here the tags' uniform distribution is the
target (docs/methods/recam.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional

from tagmask.methods.cam.head import GapClassifier, GapHead


def softmax_tag_loss(logits: Tensor, tags: Tensor, *, only_single: bool = False) -> Tensor:
    """Cross entropy between softmax(logits) and tags / (number of tags).

    Args:
        logits: [B, C] float.
        tags: multi-hot [B, C].
        only_single: images with another number of tags than one have the multi-label soft margin instead.

    Returns:
        Scalar: mean over all images; one without a tag adds 0 (or its soft margin).
    """
    count = tags.sum(1)
    # Divided by the image's own tags and meaned over images, so that both losses have one scale in a mixed batch.
    per_image = -(logits.log_softmax(1) * tags).sum(1) / count.clamp(min=1)
    if only_single:
        margin = functional.multilabel_soft_margin_loss(logits, tags, reduction="none")
        per_image = per_image.where(count == 1, margin)
    return per_image.mean()


class SoftmaxCeHead(GapHead):
    """Settings of the head: those of ``gap``, and which images the softmax is for."""

    name: ClassVar[str] = "softmax_ce"
    only_single: bool = False

    def build(self, channels: int, n_classes: int) -> SoftmaxCeClassifier:
        """The head's module for D = ``channels`` and C = ``n_classes``."""
        options: dict[str, Any] = {"dropout": self.dropout, "init_std": self.init_std, "bias": self.bias}
        module = SoftmaxCeClassifier(channels, n_classes, **options)
        module.only_single = self.only_single
        return module


class SoftmaxCeClassifier(GapClassifier):
    """The module of ``gap`` with another loss."""

    only_single = False

    def losses(self, logits: Tensor, tags: Tensor, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :func:`softmax_tag_loss`; ``tags`` is multi-hot [B, C]."""
        del extras
        return {"loss": softmax_tag_loss(logits, tags, only_single=self.only_single)}
