"""The typed recipe: one settings model per stage; methods are resolved through the registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from tagmask import registry
from tagmask.contracts.planes import IMAGE
from tagmask.contracts.source import SourceField
from tagmask.registry.field import by_name
from tagmask.registry.method import fingerprint_values
from tagmask.settings.base import Positive, Settings
from tagmask.settings.classify import ClassifySettings, RetrainSettings
from tagmask.settings.engine import EngineSettings
from tagmask.settings.evaluate import EvaluateSettings
from tagmask.settings.localize import LocalizeSettings
from tagmask.settings.refine import RefineSettings
from tagmask.settings.segment import SegmentSettings

SMALLEST_SIDE = 32


class Recipe(Settings):
    """Everything that determines a run."""

    name: Annotated[str, Field(max_length=100, pattern=r"^\w[\w.-]*$")] = "run"
    seed: Annotated[int, Field(ge=0)] = 0
    data: SourceField = by_name("partsworld")
    max_side: Annotated[int, Field(ge=SMALLEST_SIDE)] | Literal["auto"] | None = Field(
        None,
        description="working size: all stages see larger images reduced to this side; masks have the full size; auto: "
        "from the sizes of the training images",
    )
    real_masks: Literal["all"] | Positive | Path | None = Field(
        None,
        description="training images whose real masks are learnt from: a number, drawn by the seed, a list of ids, or "
        "all that have one",
    )
    engine: EngineSettings = Field(default_factory=EngineSettings)
    classify: ClassifySettings = Field(default_factory=ClassifySettings)
    retrain: tuple[RetrainSettings, ...] = Field((), description="further trainings of the classifier, in order")
    localize: LocalizeSettings = Field(default_factory=LocalizeSettings)
    refine: RefineSettings = Field(default_factory=RefineSettings)
    segment: SegmentSettings | None = Field(default_factory=SegmentSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)

    @property
    def working_size(self) -> int | None:
        """``max_side`` as a number, in a stage: the pipeline has settled 'auto' before."""
        assert self.max_side != "auto"
        return self.max_side

    @property
    def last_training(self) -> str:
        """Stage of the training whose classifier the run goes on with."""
        return list(self.trainings)[-1]

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
        if self.real_masks is None and self.refine.chain and self.refine.labeller.background == "masks":
            msg = (
                f"refine: {self.refine.labeller.name}.value: masks needs real masks; set real_masks, such as 20 or all"
            )
            raise ValueError(msg)
        for refiner in self.refine.chain:
            (self.segment or SegmentSettings()).check_planes(refiner.needs - {IMAGE}, f"the refiner {refiner.name}")
        for part in self.classify.head.parts() if self.classify.classifier is None else ():
            for preparation in part.preparations():
                msg = (
                    f"classify: the head {part.name} learns from {preparation.makes}, which come from a classifier "
                    "trained before; name it in an item of 'retrain'"
                )
                raise ValueError(msg)
        *_, last = self.trainings.values()
        head, method = last.head, self.localize.method
        for component in method.parts():
            for need in sorted(component.requires - head.offers()):
                heads = [name for name in registry.entries("head") if need in registry.get("head", name).provides]
                msg = (
                    f"localize: {component.name} needs a classifier whose head has {need} "
                    f"({' or '.join(heads) or 'no head has it'}), not {head.name}"
                )
                raise ValueError(msg)
        return self

    def dump(self) -> dict[str, Any]:
        """The recipe as plain YAML/JSON values with every default written out, in the form it is read."""
        values = self.model_dump(mode="json")
        localize = values["localize"]
        # Method and stage stand side by side in a recipe, though they are two models.
        values["localize"] = {**localize.pop("method"), **localize}
        values["refine"] = values["refine"]["chain"]
        if values["segment"]:
            segment = values["segment"]
            network = segment.pop("network")
            values["segment"] = {"network": network, **segment}
        values["data"] = {"format": _format_name(self.data), **values["data"]}
        return values

    def fingerprint_values(self) -> dict[str, Any]:
        """As :meth:`dump`, without the settings that are no part of a fingerprint (see ``method.LATER``)."""
        values = self.dump()
        values["classify"] = fingerprint_values(self.classify, values["classify"])
        values["retrain"] = [
            fingerprint_values(own, value) for own, value in zip(self.retrain, values["retrain"], strict=True)
        ]
        values["localize"] = fingerprint_values(
            self.localize.method, fingerprint_values(self.localize, values["localize"])
        )
        refiners = zip(self.refine.chain, values["refine"], strict=True)
        values["refine"] = [fingerprint_values(own, value) for own, value in refiners]
        if self.segment:
            values["segment"] = fingerprint_values(self.segment, values["segment"])
        return values

    def to_yaml(self) -> str:
        """The recipe as YAML."""
        text: str = yaml.safe_dump(self.dump(), sort_keys=False, allow_unicode=True)
        return text


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """'key old -> new' for every value in which two nested mappings differ, keys dotted."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*new, *(key for key in old if key not in new)]
        parts = [differences(old.get(key), new.get(key), f"{prefix}{key}.") for key in keys]
        return [change for part in parts for change in part]
    return [] if old == new else [f"{prefix.rstrip('.')} {old} -> {new}"]


def _format_name(data: Any) -> str:
    where = f"{type(data).__module__}:{type(data).__name__}"
    return next((name for name, entry in registry.entries("data").items() if entry.where == where), where)
