"""ReCAM: a second classifier on class-wise masked features.

Chen et al., "Class Re-Activation Maps for Weakly-Supervised Semantic Segmentation", CVPR 2022;
docs/methods/recam.md.

Binary cross entropy asks of each class alone whether it is there; a place that two classes share may answer yes to
both. ReCAM cuts one feature per positive class out with that class's own activation map, so that it has a single
label, and lets a second classifier tell the classes apart by softmax cross entropy, where they compete.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from tagmask.contracts.head import Head, HeadField, HeadModule
from tagmask.registry.field import by_name


def positive_channels(tags: Tensor) -> Tensor:
    """The positive classes of each image, filled up with others to the largest number in the batch.

    Args:
        tags: multi-hot [B, C].

    Returns:
        int64 [B, K], K >= 1; ``tags.gather(1, ...)`` is 1 at positive classes and 0 at fillers.
    """
    largest = max(1, int(tags.sum(1).max())) if len(tags) else 1
    return tags.argsort(dim=1, descending=True, stable=True)[:, :largest]


def class_features(
    features: Tensor, class_weights: Tensor, channels: Tensor, *, detach_masks: bool = False, eps: float = 1e-5
) -> Tensor:
    """One feature per chosen class: mean over all places of (its normalised activation map x the features).

    The mean is over all places, not over the map's mass: how much of the image the class covers stays
    visible (docs/methods/recam.md).

    Args:
        features: [B, D, h, w] float.
        class_weights: [C, D] float.
        channels: int64 [B, K] classes chosen for each image.
        detach_masks: keep gradients from running through the maps (an ablation, not the method).
        eps: added to each map's maximum.

    Returns:
        [B, K, D].
    """
    places = features.flatten(2)
    # Two products instead of the published [B, C, D, n] array of masked features, 2.7 GB for a batch of VOC.
    maps = torch.einsum("bkd,bdn->bkn", class_weights[channels], places).relu()
    masks = maps / (maps.amax(2, keepdim=True) + eps)
    if detach_masks:
        masks = masks.detach()
    return torch.einsum("bkn,bdn->bkd", masks, places) / places.shape[2]


def single_label_loss(second_logits: Tensor, channels: Tensor, tags: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax cross entropy of each positive class's feature against that class.

    Args:
        second_logits: [B, K, C], row k of an image from the feature of class ``channels[b, k]``.
        channels: int64 [B, K]; rows of classes that are not tagged do not count.
        tags: multi-hot [B, C].

    Returns:
        the loss: mean over an image's positives, then over all images, those without a tag included (they add 0);
        and the share of positives whose largest logit is their own (0 without positives).
    """
    present = tags.gather(1, channels).to(second_logits.dtype)
    own = second_logits.log_softmax(2).gather(2, channels[..., None])[..., 0]
    # The positives of an image first, then the images, as published: one with five tags counts once.
    per_image = -(own * present).sum(1) / present.sum(1).clamp(min=1)
    right = (second_logits.argmax(2) == channels) * present
    return per_image.mean(), (right.sum() / present.sum().clamp(min=1)).detach()


def reactivation_loss(
    features: Tensor,
    class_weights: Tensor,
    second_weights: Tensor,
    tags: Tensor,
    *,
    weight: float = 1.0,
    detach_masks: bool = False,
    eps: float = 1e-5,
) -> dict[str, Tensor]:
    """ReCAM's loss: multi-label soft margin of the pooled features, and softmax cross entropy of those cut out with
    each positive class's map. Gradients run through the maps, as published.

    Chen et al., CVPR 2022; docs/methods/recam.md.

    Args:
        features: [B, D, h, w] float; everything is computed in their dtype.
        class_weights: [C, D] of the first classifier, w.
        second_weights: [C, D] of the second classifier, w'.
        tags: multi-hot [B, C].
        weight: lambda, the factor of the second term.
        detach_masks: keep gradients from running through the masks.
        eps: added to each map's maximum.

    Returns:
        ``bce``, ``sce``, ``total`` = bce + weight * sce, ``accuracy`` of the second classifier on the positives;
        scalars, ``accuracy`` in [0, 1] and without gradient. Masks and second logits are computed for positive classes
        only; an image without a tag adds 0 to ``sce`` and counts in its mean.

    Raises:
        RuntimeError: features and weights have different numbers of channels.
        IndexError: there are more tags than classes.
    """
    tags = tags.to(features.dtype)
    logits = features.mean((2, 3)) @ class_weights.T
    channels = positive_channels(tags)
    second = class_features(features, class_weights, channels, detach_masks=detach_masks, eps=eps) @ second_weights.T
    bce = functional.multilabel_soft_margin_loss(logits, tags)
    sce, accuracy = single_label_loss(second, channels, tags)
    return {"bce": bce, "sce": sce, "total": bce + weight * sce, "accuracy": accuracy}


class RecamHead(Head):
    """Settings of the head; it goes around another one, ``inner``, whose own losses stay as they are."""

    name: ClassVar[str] = "recam"
    provides: ClassVar[frozenset[str]] = frozenset({"second_weights"})
    inner: HeadField = by_name("gap")
    weight: Annotated[float, Field(ge=0)] = 1.0
    detach_masks: bool = False
    init_std: Annotated[float, Field(gt=0)] | None = None

    @field_validator("inner")
    @classmethod
    def _is_a_head(cls, value: Head) -> Head:
        if any(part.name == cls.name for part in value.parts()):
            msg = "recam cannot go around another recam"
            raise ValueError(msg)
        return value

    def build(self, channels: int, n_classes: int) -> RecamClassifier:
        """The head's module for D = ``channels`` and C = ``n_classes``."""
        inner = self.inner.build(channels, n_classes)
        return RecamClassifier(
            inner, channels, n_classes, weight=self.weight, detach_masks=self.detach_masks, init_std=self.init_std
        )


class RecamClassifier(HeadModule):
    """The inner head and a second 1x1 convolution, which is in use while training only."""

    provides: ClassVar[frozenset[str]] = RecamHead.provides

    def __init__(
        self,
        inner: HeadModule,
        channels: int,
        n_classes: int,
        *,
        weight: float = 1.0,
        detach_masks: bool = False,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        self.inner, self.n_classes = inner, n_classes
        self.weight, self.detach_masks = weight, detach_masks
        self.second = nn.Conv2d(channels, n_classes, kernel_size=1, bias=False)
        if init_std is not None:
            nn.init.normal_(self.second.weight, std=init_std)

    @property
    def class_weights(self) -> Tensor:
        """The inner head's weights w [C, D]."""
        weights: Tensor = self.inner.class_weights
        return weights

    @property
    def second_weights(self) -> Tensor:
        """Weights w' [C, D] of the second classifier."""
        return self.second.weight.flatten(1)

    def wrapped(self) -> HeadModule:
        """The inner head."""
        return self.inner

    def forward(self, features: Tensor, tags: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The inner head's logits; in training, extras with the second logits of the positive classes.

        Without tags, every class takes the place of a positive one.
        """
        logits, extras = self.inner(features, tags)
        if not self.training:
            return logits, extras
        if tags is None:
            channels = torch.arange(self.n_classes, device=features.device).expand(len(features), -1)
        else:
            channels = positive_channels(tags)
        with torch.autocast(features.device.type, enabled=False):  # maxima and quotients deserve float32; it is little
            # The inner head's own parameter, not a copy: the second loss trains w through the masks, and is meant to.
            weights = self.class_weights.float()
            cut = class_features(features.float(), weights, channels, detach_masks=self.detach_masks)
            second = cut @ self.second_weights.float().T
        return logits, {**extras, "second_logits": second, "second_channels": channels}

    def losses(self, logits: Tensor, tags: Tensor, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inner head's terms, its 'loss' raised by ``weight`` x sce."""
        own = ("second_logits", "second_channels")
        rest = {key: value for key, value in extras.items() if key not in own}
        terms: dict[str, Tensor] = dict(self.inner.losses(logits, tags, rest))
        sce, accuracy = single_label_loss(extras["second_logits"], extras["second_channels"], tags)
        return {**terms, "sce": sce, "second_accuracy": accuracy, "loss": terms["loss"] + self.weight * sce}
