"""The key ``segment`` of a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tagmask import registry
from tagmask.contracts.loss import Loss, LossField
from tagmask.contracts.network import NetworkField
from tagmask.contracts.optimizer import Iterations, OptimizerSettings
from tagmask.contracts.planes import SALIENCY, SOURCES
from tagmask.contracts.saliency import SaliencyField
from tagmask.registry.field import by_name
from tagmask.registry.method import LATER
from tagmask.settings.augment import AugmentSettings
from tagmask.settings.base import Fraction, Positive, Settings
from tagmask.settings.presets import with_preset

SMALLEST_TILE = 64


class ConfidenceSettings(Settings):
    """Weights of the cross entropy: from ``floor`` where two labels tie to 1 where one leads by ``width``.

    The margin is 1 - second / highest, of the refined maps and the threshold's plane, or of the network's
    probabilities for the labels of a round of self-training.
    """

    width: Annotated[float, Field(gt=0, le=1)] = 0.2
    floor: Fraction = 0.0


class RelabelSettings(Settings):
    """How a round of self-training labels the training images: predicted, kept to the tags, then a dense CRF."""

    crf: Literal["psa", "irn_labels", "deeplab"] | None = Field("deeplab", description="kernels; null: no CRF")
    ignore: Fraction = Field(0.0, description="pixels whose margin (1 - second / highest) is smaller are ignored")


class SegmentSettings(Settings):
    """The segmentation network, trained on pseudo masks (weak), real masks (full), or one of each (both)."""

    preset: str | None = Field(
        None, json_schema_extra=LATER, description="published settings, for all that is not written"
    )
    network: NetworkField = by_name("deeplabv3plus")
    supervision: Literal["weak", "full", "both"] = "weak"
    epochs: Positive = 10
    iterations: Iterations = Field(
        None, json_schema_extra=LATER, description="updates, instead of epochs; auto: by the size of the data"
    )
    per_images: Positive | None = Field(
        None, json_schema_extra=LATER, description="iterations are for so many images, and scaled to the data"
    )
    batch_size: Positive = 8
    accumulate: Positive = Field(1, json_schema_extra=LATER, description="batches that one update is made of")
    ema: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, json_schema_extra=LATER, description="decay of the weights' moving average"
    )
    class_balanced: Literal["tags", "pixels"] | None = Field(
        None, json_schema_extra=LATER, description="draw images with rare classes more"
    )
    foreground_crops: Fraction = Field(
        0.0, json_schema_extra=LATER, description="share of the crops that are placed over an object of their image"
    )
    batch_norm: Literal["eval", "train"] = "train"
    augment: AugmentSettings = AugmentSettings(kind="scale_crop", crop=224, scale=(0.75, 1.5))
    optimizer: OptimizerSettings = OptimizerSettings(lr=2e-4, head_lr=1e-3)
    hold: Positive = Field(1, json_schema_extra=LATER, description="steps for which a learning rate is held")
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field((1.0,), min_length=1)
    flip: bool = True
    short_side: Positive | None = Field(
        None, json_schema_extra=LATER, description="images are predicted with this short side"
    )
    tile: Annotated[int, Field(ge=SMALLEST_TILE)] | None = Field(
        None, json_schema_extra=LATER, description="larger images in parts"
    )
    crf: Literal["psa", "irn_labels", "deeplab"] | None = Field(
        None, json_schema_extra=LATER, description="kernels of a CRF on predictions"
    )
    tag_gate: Fraction | None = Field(
        None,
        json_schema_extra=LATER,
        description="classes that the tag classifier gives less than this probability are not predicted",
    )
    clean_gate: Fraction | None = Field(
        None,
        json_schema_extra=LATER,
        description="images whose most probable class has less than this probability are background all over",
    )
    gate_heir: Literal["classes", "background"] = Field(
        "classes",
        json_schema_extra=LATER,
        description="what the probability of classes behind the tag gate goes to: the other classes, or the background",
    )
    loss: LossField = by_name("cross_entropy")
    saliency: SaliencyField | None = Field(
        None, description="where saliency maps come from, for a loss that needs them"
    )
    confidence: ConfidenceSettings | None = Field(None, description="weights by how sure each pseudo label is")
    rounds: Positive = Field(1, description="trainings; each but the first on labels of the network before")
    relabel: RelabelSettings = RelabelSettings()
    hand_made: Fraction = Field(
        0.0,
        json_schema_extra=LATER,
        description="images with a real or a corrected mask make up at least this share of what is drawn",
    )
    corrections: Path | None = Field(
        None, json_schema_extra=LATER, description="folder of masks that take the place of pseudo masks"
    )

    @property
    def stages(self) -> tuple[str, ...]:
        """The trainings on pseudo masks by their stages' names: 'segment', 'segment/2', ..."""
        return tuple(f"segment/{number}" if number > 1 else "segment" for number in range(1, self.rounds + 1))

    @property
    def plain_loss(self) -> Loss:
        """The loss of a training on real masks: the recipe's, or the default one where that needs more than masks."""
        return type(self)().loss if self.loss.needs else self.loss

    @model_validator(mode="after")
    def _has_planes(self) -> SegmentSettings:
        self.check_planes(self.loss.needs, f"the loss {self.loss.name}")
        return self

    def check_planes(self, needs: Iterable[str], who: str) -> None:
        """Make sure that somebody makes the planes that a method needs.

        Raises:
            ValueError: nobody does.
        """
        settings = dict(self)
        for name in sorted(needs):
            if name not in SOURCES:
                msg = f"{who} needs '{name}', which no stage makes (only {', '.join(SOURCES)})"
                raise ValueError(msg)
            if settings[name] is None:
                choices = ", ".join(registry.entries("saliency"))
                hint = f" ({choices})" if name == SALIENCY else ""
                msg = f"{who} needs {name} maps; set {SOURCES[name]}{hint}"
                raise ValueError(msg)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, values: Any) -> Any:
        return with_preset(values) if isinstance(values, Mapping) else values

    @field_validator("augment", "optimizer", mode="before")
    @classmethod
    def _complete(cls, value: Any, info: ValidationInfo) -> Any:
        """Changing one key of a block leaves its others at this stage's defaults, not at those of the block's class."""
        default = cls.model_fields[str(info.field_name)].default
        return {**default.model_dump(), **value} if isinstance(value, Mapping) else value

    @field_validator("augment")
    @classmethod
    def _for_pairs(cls, value: AugmentSettings) -> AugmentSettings:
        if value.kind != "scale_crop":
            msg = f"images with masks are augmented by kind scale_crop only, not {value.kind}"
            raise ValueError(msg)
        return value
