"""The typed recipe: one settings model per stage; methods are resolved through the registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from tagmask import registry
from tagmask.building import AS_METHOD, method_of
from tagmask.classify.head import Head
from tagmask.classify.neck import NeckSettings
from tagmask.localize.localizer import Localizer
from tagmask.method import LATER, stated
from tagmask.optim import OptimizerSettings
from tagmask.segment.inference import SMALLEST_TILE, Inference
from tagmask.segment.presets import filled

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Base of all stage settings: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


HeadField = Annotated[Any, method_of("head"), AS_METHOD]
LocalizerField = Annotated[Any, method_of("localizer"), AS_METHOD]
RefinerField = Annotated[Any, method_of("refiner"), AS_METHOD]
NetworkField = Annotated[Any, method_of("network"), AS_METHOD]
LossField = Annotated[Any, method_of("loss"), AS_METHOD]
SaliencyField = Annotated[Any, method_of("saliency"), AS_METHOD]
DataField = Annotated[Any, method_of("data"), AS_METHOD]


class EngineSettings(Settings):
    """Where and how to compute. Results do not depend on ``devices`` in image-wise stages."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Positive = 1
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    threads: Positive | None = Field(None, description="CPU threads per process; null: torch's default")
    workers: Annotated[int, Field(ge=0)] = Field(0, description="loader processes per rank")
    checkpoint_overhead: Fraction = Field(
        0.05, description="share of training time spent on checkpoints; small models save at every step"
    )


class AugmentSettings(Settings):
    """Training augmentation.

    ``resized_crop``: a random part of the image (area share ``scale``, aspect ``ratio``) resized to ``crop``.
    ``long_side``: the long side resized to a random length in ``long_side``, then a random ``crop`` with the
    missing area filled with the mean colour (IRNet and all that build on it).
    ``scale_crop``: the image scaled by a random factor of ``scale``, then a random ``crop`` (segmentation).
    ``square``: both sides resized to one random length in ``long_side``, whatever the image's aspect, then a random
    ``crop`` (object localisation).
    """

    kind: Literal["resized_crop", "long_side", "scale_crop", "square"] = "resized_crop"
    crop: Positive = 224
    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (0.8, 1.25)
    long_side: tuple[int, int] = (320, 640)
    flip: bool = True
    colour_jitter: Annotated[float, Field(ge=0, le=0.9)] = 0.2

    @field_validator("scale", "ratio", "long_side")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            msg = f"expected two numbers 0 < smallest <= largest, not {list(value)}"
            raise ValueError(msg)
        return value


class ClassifySettings(Settings):
    """The tag classifier."""

    backbone: str = Field("resnet10t", description="a timm model with features_only, or one of ours")
    backbone_args: dict[str, Any] = Field(default_factory=dict, description="passed to timm.create_model")
    weights: Path | Literal["timm"] | None = Field(None, description="safetensors file, 'timm', or none")
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


class LocalizeSettings(Settings):
    """Activation maps; scales and flip serve every localizer."""

    method: LocalizerField = Field(default="cam", validate_default=True)
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field((1.0, 0.5, 1.5, 2.0), min_length=1)
    flip: bool = True
    study_list: Path | None = Field(
        None,
        json_schema_extra=LATER,
        description="file of image ids, the training images that localizers learn from; null: all of them",
    )
    size: Positive | None = Field(
        None, json_schema_extra=LATER, description="resize images to this square first, whatever their aspect"
    )
    max_side: Positive | None = Field(
        None, json_schema_extra=LATER, description="make larger images smaller first, so that their long side is this"
    )
    ranking: Literal["none", "whole", "ten_crops"] = Field(
        "none", json_schema_extra=LATER, description="order of the classes by score, for Top-1 and Top-5 localisation"
    )


class RefineSettings(Settings):
    """A chain of refiners; the last one makes labels. An empty chain: the recipe ends at its maps."""

    chain: tuple[RefinerField, ...] = Field(default=("threshold",), validate_default=True)

    @field_validator("chain")
    @classmethod
    def _ends_in_labels(cls, chain: tuple[Any, ...]) -> tuple[Any, ...]:
        if not chain:
            return chain
        *before, last = chain
        wrong = [refiner.name for refiner in before if refiner.makes != "maps"]
        if wrong:
            msg = f"'{wrong[0]}' makes labels, so it must be the last of the chain"
            raise ValueError(msg)
        if last.makes != "labels":
            msg = f"the chain must end in a refiner that makes labels, such as threshold; '{last.name}' makes maps"
            raise ValueError(msg)
        return chain

    @property
    def makes_maps(self) -> bool:
        """Whether refiners of maps stand before the one that makes labels."""
        return len(self.chain) > 1


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
    network: NetworkField = Field(default="deeplabv3plus", validate_default=True)
    supervision: Literal["weak", "full", "both"] = "weak"
    epochs: Positive = 10
    iterations: Positive | None = Field(None, json_schema_extra=LATER, description="updates, instead of epochs")
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
    batch_norm: Literal["eval", "train"] = "train"
    augment: AugmentSettings = AugmentSettings(kind="scale_crop", crop=224, scale=(0.75, 1.5))
    optimizer: OptimizerSettings = OptimizerSettings(lr=2e-4, head_lr=1e-3)
    hold: Positive = Field(1, json_schema_extra=LATER, description="steps for which a learning rate is held")
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field((1.0,), min_length=1)
    flip: bool = True
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
    loss: LossField = Field(default="cross_entropy", validate_default=True)
    saliency: SaliencyField | None = Field(
        None, description="where saliency maps come from, for a loss that needs them"
    )
    confidence: ConfidenceSettings | None = Field(None, description="weights by how sure each pseudo label is")
    rounds: Positive = Field(1, description="trainings; each but the first on labels of the network before")
    relabel: RelabelSettings = RelabelSettings()

    @property
    def stages(self) -> tuple[str, ...]:
        """The trainings on pseudo masks by their stages' names: 'segment', 'segment/2', ..."""
        return ("segment", *(f"segment/{number}" for number in range(2, self.rounds + 1)))

    @property
    def inference(self) -> Inference:
        """How the trained network predicts."""
        return Inference(scales=self.scales, flip=self.flip, tile=self.tile, crf=self.crf)

    @property
    def needs_saliency(self) -> bool:
        """Whether the loss learns from saliency maps."""
        return "saliency" in self.loss.needs

    @model_validator(mode="after")
    def _has_saliency(self) -> SegmentSettings:
        if self.needs_saliency and self.saliency is None:
            sources = ", ".join(registry.entries("saliency"))
            msg = f"the loss {self.loss.name} needs saliency maps; set segment.saliency ({sources})"
            raise ValueError(msg)
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, given: Any) -> Any:
        return filled(given) if isinstance(given, Mapping) else given

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


class BoxSettings(Settings):
    """How boxes are made of maps and counted (object localisation)."""

    component: Literal["union", "largest", "contour"] = Field(
        "largest", description="a map's box: around all above the threshold, or around its largest component"
    )
    threshold: Literal["best"] | Fraction = Field("best", description="where errors are read; best on the split")
    thresholds: Annotated[int, Field(ge=2, le=4096)] = 100
    iou: Fraction = Field(0.5, description="a box is right where its IoU exceeds this")
    inclusive: bool = Field(False, description="the end of a true box belongs to it, as published codes count")
    from_masks: bool = Field(False, description="images without boxes get one around the mask's largest piece")


class EvaluateSettings(Settings):
    """What is measured where; ground truth is opened here only."""

    thresholds: Annotated[int, Field(ge=2, le=4096)] = 100
    average: Literal["occurring", "union"] = Field(
        "occurring", description="mean over classes in the split's ground truth, or in truth or prediction"
    )
    full_run: Path | None = Field(None, description="a run with full supervision, for the ratio")
    boxes: BoxSettings = BoxSettings()


class Recipe(Settings):
    """Everything that determines a run."""

    name: Annotated[str, Field(max_length=100, pattern=r"^\w[\w.-]*$")] = "run"
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataField = Field(default="partsworld", validate_default=True)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    classify: ClassifySettings = Field(default_factory=ClassifySettings)
    retrain: tuple[RetrainSettings, ...] = Field((), description="further trainings of the classifier, in order")
    localize: LocalizeSettings = Field(default_factory=LocalizeSettings)
    refine: RefineSettings = Field(default_factory=RefineSettings)
    segment: SegmentSettings | None = Field(default_factory=SegmentSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)

    @property
    def trainings(self) -> dict[str, ClassifySettings]:
        """Every training of the classifier by its stage's name, in order: 'classify', 'classify/2', ..."""
        later = {f"classify/{number}": settings for number, settings in enumerate(self.retrain, start=2)}
        return {"classify": self.classify, **later}

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        """A localizer may need what only some heads have; masks are made by refiners."""
        if not self.refine.chain and self.segment is not None and self.segment.supervision != "full":
            msg = "refine: [] makes no masks for the segmentation network to learn from; set segment: null too"
            raise ValueError(msg)
        first, *_ = self.trainings.values()
        if isinstance(first.head, Head):
            for component in first.head.parts():
                for need in sorted(component.needs):
                    msg = (
                        f"classify: the head {component.name} learns from {need}, which come from a classifier trained "
                        "before; name it in an item of 'retrain'"
                    )
                    raise ValueError(msg)
        *_, last = self.trainings.values()
        head, method = last.head, self.localize.method
        if isinstance(head, Head) and isinstance(method, Localizer):
            for part in method.parts():
                for need in sorted(part.requires - head.offers()):
                    heads = [name for name in registry.entries("head") if need in registry.get("head", name).provides]
                    msg = (
                        f"localize: {part.name} needs a classifier whose head has {need} "
                        f"({' or '.join(heads) or 'no head has it'}), not {head.name}"
                    )
                    raise ValueError(msg)
        return self

    def dump(self) -> dict[str, Any]:
        """The recipe as plain YAML/JSON values with every default written out, in the form it is read."""
        values = self.model_dump(mode="json")
        localize = values["localize"]
        values["localize"] = {**localize.pop("method"), **localize}
        values["refine"] = values["refine"]["chain"]
        if values["segment"]:
            segment = values["segment"]
            network = segment.pop("network")
            values["segment"] = {"network": network, **segment}
        values["data"] = {"format": _format_name(self.data), **values["data"]}
        return values

    def stated(self) -> dict[str, Any]:
        """As :meth:`dump`, without the settings that are no part of a fingerprint (see ``method.LATER``)."""
        values = self.dump()
        values["classify"] = stated(self.classify, values["classify"])
        values["retrain"] = [stated(own, value) for own, value in zip(self.retrain, values["retrain"], strict=True)]
        values["localize"] = stated(self.localize.method, stated(self.localize, values["localize"]))
        refiners = zip(self.refine.chain, values["refine"], strict=True)
        values["refine"] = [stated(own, value) for own, value in refiners]
        if self.segment:
            values["segment"] = stated(self.segment, values["segment"])
        return values

    def to_yaml(self) -> str:
        """The recipe as YAML."""
        text: str = yaml.safe_dump(self.dump(), sort_keys=False, allow_unicode=True)
        return text


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """'key old -> new' for every value in which two nested mappings differ, keys dotted."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*new, *(key for key in old if key not in new)]
        found = [differences(old.get(key), new.get(key), f"{prefix}{key}.") for key in keys]
        return [change for part in found for change in part]
    return [] if old == new else [f"{prefix.rstrip('.')} {old} -> {new}"]


def _format_name(data: Any) -> str:
    where = f"{type(data).__module__}:{type(data).__name__}"
    return next((name for name, entry in registry.entries("data").items() if entry.where == where), where)
