"""The thresholds of a run: fixed, or chosen on the training images and their maps alone, and written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tagmask.contracts.labeller import ThresholdStatistic
from tagmask.engine.image_loop import process_images
from tagmask.errors import DataError, RunError
from tagmask.ops.area_threshold import AreaThreshold
from tagmask.ops.transforms import colour_view, resize_image
from tagmask.runs.context import Context
from tagmask.runs.stage_names import REFINE
from tagmask.stages.refine.calibration import calibrated
from tagmask.stages.refine.constant_maps import why_constant
from tagmask.storage.records import write_json
from tagmask.types import ActivationMaps, Problem, Sample

AUTO_IMAGES = 1000  # images the threshold is chosen on; the statistic is a mean, more change it by nothing


@dataclass(frozen=True)
class Thresholds:
    """One value for all classes, but for those (mask label -> value) that have their own."""

    value: float
    of_class: dict[int, float] = field(default_factory=dict)

    def of(self, classes: Sequence[int]) -> float | list[float]:
        """What a labeller is handed for the maps of an image: the value, or one for each of ``classes``."""
        return [self.of_class.get(label, self.value) for label in classes] if self.of_class else self.value


def own_thresholds(context: Context) -> dict[int, float]:
    """Mask label -> threshold of the classes that the labeller names.

    Raises:
        UnknownNameError: a class that the data does not have, with the nearest name.
    """
    labeller = context.recipe.refine.labeller
    _by_label(context, labeller.class_areas, "areas")
    return _by_label(context, labeller.class_values, "per_class")


def _by_label(context: Context, values: Mapping[str, float], key: str) -> dict[int, float]:
    names, labeller = context.source.classes, context.recipe.refine.labeller
    where = f"refine.{labeller.name}.{key}"
    return {names.label(name, where=where): value for name, value in values.items()}


def choose_thresholds(context: Context, samples: list[Sample], load: Callable[[Sample], ActivationMaps]) -> Thresholds:
    """The labeller's thresholds, written to refine/thresholds.json; 'auto' is chosen on train images without masks.

    Args:
        context: of the refine stage.
        samples: training images that have the maps to be thresholded.
        load: gives those maps.

    Raises:
        UnknownNameError: a class with a threshold of its own that the data does not have.
        RunError: a threshold is to be chosen, and no sample has tags.
        DataError: no image tells anything about the threshold.
    """
    labeller, of_class = context.recipe.refine.labeller, own_thresholds(context)
    of_class |= _by_areas(context, samples, load)
    background = labeller.background
    if background == "masks":
        value, calibration = calibrated(context, [s for s in samples if context.source.has_mask(s)], load)
        record: dict[str, Any] = {"value": value, "rule": "masks", **calibration}
    elif background != "auto":
        value = background
        record = {"value": value, "rule": "fixed"}
    else:
        statistic = _automatic(context, [sample for sample in samples if sample.tags], load)
        try:
            value = statistic.choose()
        except DataError as error:
            msg = f"refine: {error} {why_constant(context)}"
            raise DataError(msg) from error
        record = {"value": value, "rule": "auto", **statistic.record()}
    if of_class:
        names = context.source.classes.names
        record["per_class"] = {names[label]: own for label, own in sorted(of_class.items())}
    if any(labeller.margins):
        record["band"] = list(labeller.margins)
    if context.engine.is_main:
        write_json(context.workspace.stage(REFINE) / "thresholds.json", record)
        own = f", {len(of_class)} classes with their own" if of_class else ""
        context.progress.message(f"background threshold {value:.2f} ({record['rule']}{own})")
    return Thresholds(float(value), of_class)


def _by_areas(context: Context, samples: list[Sample], load: Callable[[Sample], ActivationMaps]) -> dict[int, float]:
    """Mask label -> threshold of the classes that the labeller states an area of.

    Raises:
        RunError: no training image has such a class.
    """
    areas = _by_label(context, context.recipe.refine.labeller.class_areas, "areas")
    if not areas:
        return {}
    statistics = {label: AreaThreshold() for label in areas}
    # Maps alone are read, no image; each process counts its share.
    for sample in context.engine.share(samples):
        stored = load(sample)
        for label, values in zip(stored.classes.tolist(), stored.maps, strict=True):
            if label in statistics and np.isfinite(values).all():
                statistics[label].update(torch.from_numpy(values))
    whole, *others = context.engine.gather(statistics)
    names = context.source.classes.names
    for label in areas:
        for other in others:
            whole[label].merge(other[label])
        if not whole[label].n_images:
            msg = f"refine: no training image of '{names[label]}' has maps; leave it out of refine.threshold.areas"
            raise RunError(msg)
    return {label: whole[label].choose(area) for label, area in areas.items()}


def _automatic(context: Context, samples: list[Sample], load: Callable[[Sample], ActivationMaps]) -> ThresholdStatistic:
    if not samples:
        msg = "refine: no train image with tags has maps, so no threshold can be chosen; set refine.threshold.value"
        raise RunError(msg)
    # Drawn, not the first ones: ids are often sorted by class.
    indices = np.random.default_rng(context.recipe.seed).permutation(len(samples))[:AUTO_IMAGES]
    loader = context.loader(REFINE)
    refine = context.recipe.refine
    statistic = refine.labeller.statistic(outlined=refine.makes_maps)

    def work(sample: Sample) -> Problem | None:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return image
        maps = torch.from_numpy(load(sample).maps)
        # On the maps' grid: outlines are no finer than the maps, and a sixteenth of the pixels is counted.
        small = resize_image(colour_view(image), (maps.shape[1], maps.shape[2]))
        try:
            statistic.update(small, maps)
        except (DataError, ValueError) as error:  # maps that are not finite; the labeller lists them
            return Problem(REFINE, sample.id, str(sample.image_path), str(error))
        return None

    process_images(
        context.engine,
        [samples[index] for index in sorted(indices)],
        work,
        done=lambda sample: False,
        progress=context.progress,
        description="choose the threshold",
        at_once=1,  # the statistic is one object, and its sums have one order
    )
    merged: ThresholdStatistic
    merged, *others = context.engine.gather(statistic)
    for other in others:
        merged.merge(other)
    return merged
