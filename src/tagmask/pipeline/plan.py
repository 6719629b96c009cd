"""What a recipe's stages are, and the fingerprint of everything that each one's result depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from tagmask.contracts.planes import SOURCES
from tagmask.registry.method import Method
from tagmask.runs.stage_names import EVALUATE, LOCALIZE, REFINE, SALIENCY, SEGMENT, SEGMENT_FULL, family
from tagmask.settings.classify import FIRST_ALONE, UNTRAINED
from tagmask.settings.recipe import Recipe
from tagmask.settings.segment import SegmentSettings
from tagmask.stages.table import sees_truth
from tagmask.storage.arrays import SCHEMA
from tagmask.storage.pixel_values import pixels_entry
from tagmask.storage.weights import statistics_entry
from tagmask.types import DataSource


@dataclass(frozen=True)
class Step:
    """One stage as planned: everything its result depends on."""

    name: str
    settings: Mapping[str, Any]
    upstream: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a recipe, its settings as they go into the fingerprint, and the stages that it reads."""

    name: str
    settings: Any
    upstream: tuple[str, ...]


#: What lies in files that a recipe names, as a hash, by the last part of the setting: where they lie is not the point.
FileStates = Mapping[str, str]


def planned_stages(recipe: Recipe, files: FileStates = MappingProxyType({})) -> list[PlannedStage]:
    """The stages of a recipe in order; ``files``: states of what it reads beside the data.

    Which they are follows from what methods declare to need: a plane that a refiner or the loss asks for brings the
    stage that makes it, a network that starts from the classifier brings the trainings of the classifier.
    """
    return _Plan(recipe, files).stages


class _Plan:
    """Stages in the order in which they are added."""

    def __init__(self, recipe: Recipe, files: FileStates) -> None:
        self.recipe, self.values = recipe, recipe.fingerprint_values()
        self.files = {key: state for key, state in files.items() if state}
        self.stages: list[PlannedStage] = []
        segment = recipe.segment
        supervision = segment.supervision if segment else None
        from_classifier = bool(segment and segment.network.starts_from_classifier)
        weak = supervision != "full"
        trained = self._trainings() if weak or from_classifier else ()
        start = trained if from_classifier else ()
        if weak:
            self._masks(trained)
        if segment and supervision in ("weak", "both"):
            self._segment_weak(segment, start)
        if supervision in ("full", "both"):
            # Real masks are trained by plain cross entropy: they need no guard against wrong labels.
            real = self._segment_values("loss", "saliency", "confidence", "hand_made")
            self._add(SEGMENT_FULL, real, start)
        self._add(EVALUATE, self.values["evaluate"], tuple(stage.name for stage in self.stages))

    def _add(self, name: str, settings: Any, upstream: tuple[str, ...]) -> None:
        self.stages.append(PlannedStage(name, settings, upstream))

    def _trainings(self) -> tuple[str, ...]:
        """The trainings of the classifier, each on top of the one before; returns the last one's name."""
        before: tuple[str, ...] = ()
        settings = [self.values["classify"], *self.values["retrain"]]
        settings[0] = {**settings[0], **{key: self.files[key] for key in FIRST_ALONE if key in self.files}}
        if self.recipe.classify.classifier is not None:
            settings[0] = {key: settings[0][key] for key in UNTRAINED if key in settings[0]}
        for name, values in zip(self.recipe.trainings, settings, strict=True):
            self._add(name, values, before)
            before = (name,)
        return before

    def _masks(self, trained: tuple[str, ...]) -> None:
        self._add(LOCALIZE, self.values["localize"], trained)
        if self.recipe.refine.chain:
            planes = self._planes(self.recipe.refine.needs, all_splits=True)
            settings = self.values["refine"]
            if self.recipe.refine.labeller.background == "masks":
                settings = {"chain": settings, "real_masks": self.files.get("real_masks", "")}
            self._add(REFINE, settings, (LOCALIZE, *planes))

    def _segment_weak(self, segment: SegmentSettings, start: tuple[str, ...]) -> None:
        upstream = (*start, REFINE, *self._planes(segment.loss.needs))
        for name in segment.stages:
            again = name != segment.stages[0]
            settings = self._segment_values()
            settings |= {key: self.files[key] for key in ("corrections", "real_masks") if key in self.files}
            if again:
                settings["relabel"] = self.values["segment"]["relabel"]
            self._add(name, settings, (*upstream, self.stages[-1].name) if again else upstream)

    def _segment_values(self, *without: str) -> dict[str, Any]:
        """Settings of one training: not which trainings there are."""
        left_out = ("supervision", "rounds", "relabel", "corrections", *without)
        return {key: value for key, value in self.values["segment"].items() if key not in left_out}

    def _planes(self, needs: Iterable[str], *, all_splits: bool = False) -> tuple[str, ...]:
        """The stages that make the planes somebody needs, added if they are not there."""
        names = tuple(name for name in SOURCES if name in needs)
        there = {stage.name for stage in self.stages}
        for name in names:
            if name not in there:
                settings = self.values["segment"][name]
                self._add(name, {**settings, "splits": "all"} if all_splits else settings, ())
        return names


def plan(recipe: Recipe, source: DataSource, precision: str, files: FileStates = MappingProxyType({})) -> list[Step]:
    """The stages of a recipe in order, each with the hash of its settings, its upstream and the data.

    ``files``: states of what the recipe reads beside the data, '' where there is nothing.
    """
    common: dict[str, Any] = {"seed": recipe.seed, "precision": precision}
    if recipe.working_size is not None:  # runs made before there was a working size stay up to date
        common["max_side"] = recipe.working_size
    common |= pixels_entry(source.pixels)
    if source.input_statistics is not None:
        common |= statistics_entry(source.input_statistics)
    masks = _mask_fingerprint(source)
    steps: list[Step] = []
    prints: dict[str, str] = {}
    for stage in planned_stages(recipe, files):
        name, upstream = stage.name, stage.upstream
        # What is measured is the same whatever the seed and the precision of what made it.
        own = {"settings": stage.settings, **({} if name == EVALUATE else common)}
        # Masks are part of it only for stages that may open them: an edited mask does not retrain what never saw it.
        data = [source.fingerprint, masks if sees_truth(name) else None]
        if name == SALIENCY and recipe.segment and recipe.segment.saliency:
            data.append(recipe.segment.saliency.state())
        states = _states(_settings_of(recipe, name))
        if states:
            own["states"] = states
        # Fingerprints form a chain: each holds those of its upstream, so whatever changes, everything behind it is
        # redone and nothing before it.
        text = json.dumps([SCHEMA, name, own, [prints[u] for u in upstream], data], sort_keys=True)
        prints[name] = hashlib.sha256(text.encode()).hexdigest()[:24]
        steps.append(Step(name, own, upstream, prints[name]))
    return steps


def _settings_of(recipe: Recipe, stage: str) -> tuple[BaseModel, ...]:
    """The settings whose methods do the work of a stage, but for saliency, whose state always counted."""
    if stage in recipe.trainings:
        return (recipe.trainings[stage],)
    if stage == SEGMENT_FULL and recipe.segment:
        return (recipe.segment.network,)
    if family(stage) == SEGMENT and recipe.segment:
        return (recipe.segment.network, recipe.segment.loss)
    return {LOCALIZE: (recipe.localize,), REFINE: (recipe.refine,)}.get(stage, ())


def _states(settings: Iterable[BaseModel]) -> list[list[str]]:
    """Name and state of every method in some settings that has one, in their order."""
    states = []
    for model in settings:
        if isinstance(model, Method) and (state := model.state()):
            states.append([model.name, state])
        values = (getattr(model, key) for key in type(model).model_fields)
        items = (item for value in values for item in (value if isinstance(value, tuple) else (value,)))
        states += _states(item for item in items if isinstance(item, BaseModel))
    return states


def _mask_fingerprint(source: DataSource) -> str:
    """Hash of all boxes and of the mask files' sizes and times: an edit redoes what looks at them, and nothing else."""
    digest = hashlib.sha256(source.mask_key.encode())
    for samples in source.splits.values():
        for sample in samples:
            if sample.boxes:
                digest.update(f"{sample.id} {sample.boxes}\n".encode("utf-8", "backslashreplace"))
        for path in (sample.mask_path for sample in samples if sample.mask_path is not None):
            try:
                stat = path.stat()
            except OSError:
                continue  # evaluate lists a mask that is gone
            digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
