"""The keys ``classify`` and ``retrain`` of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tagmask.backbones.build import BackboneSettings
from tagmask.backbones.neck import NeckSettings
from tagmask.contracts.head import HeadField
from tagmask.contracts.optimizer import Iterations, OptimizerSettings
from tagmask.contracts.preparation import Preparation
from tagmask.methods.class_conditional.preparation import SplitUnite
from tagmask.registry.field import by_name
from tagmask.registry.method import LATER
from tagmask.settings.augment import AugmentSettings
from tagmask.settings.base import Positive, Settings

#: Keys of the first training alone; a retraining has its own start.
FIRST_ALONE = ("warm_start", "classifier", "classifier_classes", "second_classifier")
#: Keys that a classifier which is not trained depends on.
UNTRAINED = ("backbone", "backbone_args", "output_stride", "dilate", "final_conv", "neck", "head", *FIRST_ALONE)


class ClassifySettings(Settings):
    """The tag classifier."""

    backbone: str = Field("resnet10t", description="a timm model with features_only, or one of ours")
    backbone_args: dict[str, Any] = Field(default_factory=dict, description="passed to timm.create_model")
    weights: Path | Literal["timm", "installed"] | None = Field(
        None, description="safetensors file, 'timm' (published ones), 'installed' (by pip), or none"
    )
    output_stride: Literal[8, 16, 32] = 16
    dilate: bool = Field(True, description="false: stride removed without dilation (IRNet's ResNet-50)")
    final_conv: bool = Field(False, description="features behind the model's final convolution, not its last stage")
    warm_start: Path | None = Field(
        None, json_schema_extra=LATER, description="a run, or a classifier's file: start from its weights"
    )
    classifier: Path | None = Field(
        None, json_schema_extra=LATER, description="file of a trained classifier (or a run): used as it is, not trained"
    )
    classifier_classes: Path | tuple[str, ...] | None = Field(
        None, json_schema_extra=LATER, description="classes of its rows in order: a list, or a file with one a line"
    )
    second_classifier: Path | None = Field(
        None, json_schema_extra=LATER, description="file of ReCAM's second classifier, for a head recam"
    )
    neck: NeckSettings | None = Field(
        None, json_schema_extra=LATER, description="new convolutions between backbone and head"
    )
    head: HeadField = by_name("gap")
    epochs: Positive = 5
    iterations: Iterations = Field(
        None, json_schema_extra=LATER, description="updates, instead of epochs; auto: by the size of the data"
    )
    schedule_epochs: Positive | None = Field(
        None,
        json_schema_extra=LATER,
        description="epochs over which the rates would reach their end; a training of fewer stops on the way",
    )
    batch_size: Positive = 16
    batch_norm: Literal["eval", "train"] = Field("eval", description="eval: running statistics, never updated")
    freeze: Annotated[int, Field(ge=0)] = Field(
        0, description="number of first backbone stages that get no gradient (1: stem, 3: up to layer2)"
    )
    validations: Positive = Field(5, description="how often to validate over the training")
    keep: Literal["last", "best"] = Field(
        "last",
        json_schema_extra=LATER,
        description="weights at the end, or of the validation with the best tags (early stopping)",
    )
    augment: AugmentSettings = AugmentSettings()
    optimizer: OptimizerSettings = OptimizerSettings()

    @model_validator(mode="after")
    def _schedule_is_no_shorter(self) -> ClassifySettings:
        if self.schedule_epochs is not None and (self.iterations is not None or self.schedule_epochs < self.epochs):
            msg = f"schedule_epochs: {self.schedule_epochs} goes with epochs of at most as many, not with iterations"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        """A classifier is given or trained, and what is said of a given one needs one."""
        if self.classifier is not None and self.warm_start is not None:
            msg = "classifier is used as it is, warm_start is trained on: set one of the two to null"
            raise ValueError(msg)
        for key in ("classifier_classes", "second_classifier"):
            if self.classifier is None and getattr(self, key) is not None:
                msg = f"{key} belongs to a given classifier; set classifier to its file"
                raise ValueError(msg)
        return self

    @property
    def backbone_settings(self) -> BackboneSettings:
        """The backbone alone, with the weights that it starts from."""
        return BackboneSettings(**self.model_dump(include=set(BackboneSettings.model_fields)))

    @property
    def preparations(self) -> tuple[Preparation, ...]:
        """What must be made with the classifier trained before, so that this training can start."""
        return tuple(preparation for part in self.head.parts() for preparation in part.preparations())


class RetrainSettings(ClassifySettings):
    """A further training of the classifier; in a recipe, whatever it does not set is as in ``classify``."""

    start: Literal["previous", "weights"] = Field(
        "previous", description="start from the classifier trained before, or from the backbone's weights again"
    )
    warm_start: None = Field(None, json_schema_extra=LATER, description="of the first training alone")
    classifier: None = Field(None, json_schema_extra=LATER, description="of the first training alone")
    classifier_classes: None = Field(None, json_schema_extra=LATER, description="of the first training alone")
    second_classifier: None = Field(None, json_schema_extra=LATER, description="of the first training alone")
    split_unite: bool = Field(
        False, description="in each epoch an image is whole or one of four cuts, where the classifier before sees it"
    )

    @property
    def preparations(self) -> tuple[Preparation, ...]:
        """See :meth:`ClassifySettings.preparations`."""
        return (*super().preparations, *((SplitUnite(),) if self.split_unite else ()))
