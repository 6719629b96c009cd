"""The keys ``classify`` and ``retrain`` of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

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
    split_unite: bool = Field(
        False, description="in each epoch an image is whole or one of four cuts, where the classifier before sees it"
    )

    @property
    def preparations(self) -> tuple[Preparation, ...]:
        """See :meth:`ClassifySettings.preparations`."""
        return (*super().preparations, *((SplitUnite(),) if self.split_unite else ()))
