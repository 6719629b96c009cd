"""SC-CAM: a second classifier that tells sub-categories apart, found by clustering the images of each class.

Chang, Wang, Hung, Piramuthu, Tsai, Yang, "Weakly-Supervised Semantic Segmentation via Sub-category Exploration",
CVPR 2020; docs/methods/sc-cam.md. What tells dogs from cats is a muzzle; what tells one kind of dogs from another is
the rest of the dog. The sub-labels come with the images, see ``preparation``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from tagmask.backbones.neck import xavier
from tagmask.contracts.head import Head, HeadField, HeadModule
from tagmask.contracts.preparation import Preparation
from tagmask.errors import RecipeError
from tagmask.methods.sc_cam.preparation import SUBCATEGORIES, Subcategories
from tagmask.registry.field import by_name


class SubcategoryHead(Head):
    """Settings of the head; it goes around another one, ``inner``, whose class maps are used."""

    name: ClassVar[str] = "subcategory"
    provides: ClassVar[frozenset[str]] = frozenset({"subcategory_weights"})
    inner: HeadField = by_name("gap")
    clusters: Annotated[int, Field(ge=1)] = 10
    weight: Annotated[float, Field(ge=0)] = 5.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    init_std: Annotated[float, Field(gt=0)] | Literal["xavier"] | None = 0.01

    @field_validator("inner")
    @classmethod
    def _is_a_head(cls, value: Head) -> Head:
        if any(part.name == cls.name for part in value.parts()):
            msg = "subcategory cannot go around another subcategory"
            raise ValueError(msg)
        return value

    def preparations(self) -> tuple[Preparation, ...]:
        """Clusters of the features of the classifier trained before."""
        return (Subcategories(self.clusters),)

    def build(self, channels: int, n_classes: int) -> SubcategoryClassifier:
        """The head's module for D = ``channels`` and C = ``n_classes``."""
        return SubcategoryClassifier(channels, n_classes, self)


class SubcategoryClassifier(HeadModule):
    """features [B, D, h, w] -> logits [B, C] of the inner head; in training also those of C * k sub-categories."""

    provides: ClassVar[frozenset[str]] = SubcategoryHead.provides

    def __init__(self, channels: int, n_classes: int, settings: SubcategoryHead) -> None:
        super().__init__()
        self.settings = settings
        self.inner = settings.inner.build(channels, n_classes)
        self.subcategory = nn.Conv2d(channels, n_classes * settings.clusters, kernel_size=1, bias=False)
        if settings.init_std == "xavier":
            xavier(self.subcategory)
        elif settings.init_std is not None:
            nn.init.normal_(self.subcategory.weight, std=settings.init_std)

    @property
    def class_weights(self) -> Tensor:
        """Classifier weights [C, D] of the inner head."""
        weights: Tensor = self.inner.class_weights
        return weights

    @property
    def subcategory_weights(self) -> Tensor:
        """Weights [C * k, D]; rows k * c to k * c + k - 1 are those of class c."""
        return self.subcategory.weight.flatten(1)

    def wrapped(self) -> HeadModule:
        """The inner head."""
        return self.inner

    def forward(self, features: Tensor, tags: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits [B, C]; in training also ``subcategory_logits`` [B, C * k]."""
        logits, extras = self.inner(features, tags)
        if not self.training:
            return logits, extras
        # A second dropout: the inner head draws its own mask, and may pool otherwise.
        dropped = functional.dropout(features, self.settings.dropout)
        subcategory_logits = self.subcategory(dropped.mean(dim=(2, 3), keepdim=True)).flatten(1)
        return logits, {**extras, "subcategory_logits": subcategory_logits}

    def losses(self, logits: Tensor, tags: Tensor, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inner head's loss (``parent``) + weight * multi-label soft margin of the sub-categories.

        ``extras['subcategories']`` is multi-hot [B, C * k].

        Raises:
            RecipeError: no sub-labels came with the images.
        """
        if SUBCATEGORIES not in extras:
            msg = (
                "head subcategory: the images came without sub-categories; only an earlier training's features can "
                "give them, so name this head in 'retrain', not in 'classify'"
            )
            raise RecipeError(msg)
        terms = dict(self.inner.losses(logits, tags, extras))
        parent = terms.pop("loss")
        fine = functional.multilabel_soft_margin_loss(extras["subcategory_logits"].float(), extras[SUBCATEGORIES])
        return {"loss": parent + self.settings.weight * fine, **terms, "parent": parent, "subcategory": fine}
