"""The keys ``classify`` and ``retrain`` of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tagmask.backbones.neck import NeckSettings
from tagmask.contracts.method import LATER
from tagmask.contracts.optimizer import OptimizerSettings
from tagmask.settings.augment import AugmentSettings
from tagmask.settings.base import HeadField, Positive, Settings


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
    neck: NeckSettings | None = Field(
        None, json_schema_extra=LATER, description="new convolutions between backbone and head"
    )
    head: HeadField = Field(default="gap", validate_default=True)
    epochs: Positive = 5
    batch_size: Positive = 16
    batch_norm: Literal["eval", "train"] = Field("eval", description="eval: running statistics, never updated")
    freeze: Annotated[int, Field(ge=0)] = Field(
        0, description="number of first backbone stages that get no gradient (1: stem, 3: up to layer2)"
    )
    validations: Positive = Field(5, description="how often to validate over the training")
    augment: AugmentSettings = AugmentSettings()
    optimizer: OptimizerSettings = OptimizerSettings()


class RetrainSettings(ClassifySettings):
    """A further training of the classifier; in a recipe, whatever it does not set is as in ``classify``."""

    start: Literal["previous", "weights"] = Field(
        "previous", description="start from the classifier trained before, or from the backbone's weights again"
    )
    split_unite: bool = Field(
        False, description="in each epoch an image is whole or one of four cuts, where the classifier before sees it"
    )
