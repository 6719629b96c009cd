"""The refine stage: the recipe's chain of refiners, from activation maps to pseudo masks.

All but the last refiner turn maps into maps (kept in refine/maps); the last one makes labels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tagmask.context import TRAIN, VAL, Context
from tagmask.data.loading import ImageLoader
from tagmask.data.transforms import resize_image
from tagmask.engine import each_image
from tagmask.errors import RunError
from tagmask.interfaces import ActivationMaps, Problem, Sample
from tagmask.refine.auto_threshold import AutoThreshold, outline_guide
from tagmask.workspace import write_json

STAGE = "refine"
AUTO_IMAGES = 1000  # images the threshold is chosen on; the statistic is a mean, more change it by nothing


def located(context: Context, *splits: str) -> list[Sample]:
    """Samples that the localize stage could read."""
    return [s for s in context.samples(*splits) if context.workspace.map_path(s.id).exists()]


def map_stage(context: Context) -> str:
    """The stage whose maps become labels: the activation maps themselves when nothing refines maps."""
    return STAGE if context.recipe.refine.makes_maps else "localize"


def refined_map_path(context: Context, sample_id: str) -> Path:
    """Where an image's maps that become labels are."""
    return context.workspace.map_path(sample_id, stage=map_stage(context))


def run(context: Context) -> list[Problem]:
    """Write refine/maps (if any refiner makes maps), the threshold, and refine/masks; returns what was left out."""
    samples = located(context, TRAIN, VAL)
    problems = _refine_maps(context, samples) if context.recipe.refine.makes_maps else []
    samples = [sample for sample in samples if refined_map_path(context, sample.id).exists()]
    threshold = _threshold(context)
    labeller, workspace = context.recipe.refine.chain[-1], context.workspace

    def work(sample: Sample) -> Problem | None:
        maps = _load(context, sample)
        mask = labeller.labels(torch.from_numpy(maps.maps), torch.from_numpy(maps.classes), maps.image_size, threshold)
        workspace.save_mask(workspace.mask_path(sample.id), mask)
        return None

    return problems + each_image(
        context.engine,
        samples,
        work,
        done=lambda sample: workspace.mask_path(sample.id).exists(),
        progress=context.progress,
        description="pseudo masks",
    )


def _load(context: Context, sample: Sample) -> ActivationMaps:
    return context.workspace.load_maps(sample.id, stage=map_stage(context))


def _refine_maps(context: Context, samples: list[Sample]) -> list[Problem]:
    workspace, chain = context.workspace, context.recipe.refine.chain[:-1]
    loader = ImageLoader(STAGE, max_pixels=context.source.max_pixels, cache_bytes=0)

    def work(sample: Sample) -> Problem | None:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return image
        stored = workspace.load_maps(sample.id)
        maps = torch.from_numpy(stored.maps).to(context.engine.device)
        if len(maps):
            for refiner in chain:
                maps = refiner.refine(image, maps)
        workspace.save_maps(sample.id, replace(stored, maps=maps.float().cpu().numpy()), stage=STAGE)
        return None

    return each_image(
        context.engine,
        samples,
        work,
        done=lambda sample: workspace.map_path(sample.id, stage=STAGE).exists(),
        progress=context.progress,
        description="refine maps",
    )


def _threshold(context: Context) -> float:
    """The labeller's threshold; 'auto' is chosen on train images and their maps alone, and written down."""
    value = context.recipe.refine.chain[-1].value
    if value != "auto":
        record: dict[str, object] = {"value": value, "rule": "fixed"}
    else:
        statistic = _automatic(context)
        value = statistic.choose()
        record = {
            "value": value,
            "rule": "auto",
            "statistic": {"variance": "variance explained by colour", "information": "colour mutual information"}[
                statistic.statistic
            ],
            "curve": {
                "thresholds": [float(t) for t in statistic.thresholds],
                "statistic": [round(float(v), 6) for v in statistic.curve()],
            },
        }
    if context.engine.is_main:
        write_json(context.workspace.stage(STAGE) / "thresholds.json", record)
        context.progress.message(f"background threshold {value:.2f} ({record['rule']})")
    return float(value)


def _automatic(context: Context) -> AutoThreshold:
    samples = [s for s in located(context, TRAIN) if s.tags and refined_map_path(context, s.id).exists()]
    if not samples:
        msg = "refine: no train image with tags has maps, so no threshold can be chosen; set refine.threshold.value"
        raise RunError(msg)
    chosen = np.random.default_rng(context.recipe.seed).permutation(len(samples))[:AUTO_IMAGES]
    loader = ImageLoader(STAGE, max_pixels=context.source.max_pixels, cache_bytes=0)
    statistic, refined = AutoThreshold(), context.recipe.refine.makes_maps

    def work(sample: Sample) -> Problem | None:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return image
        maps = torch.from_numpy(_load(context, sample).maps)
        small = resize_image(image, (maps.shape[1], maps.shape[2]))
        # Maps that no refiner has drawn to the outlines need a guide that is.
        statistic.update(small, maps, guide=None if refined else outline_guide(maps, small))
        return None

    each_image(
        context.engine,
        [samples[index] for index in sorted(chosen)],
        work,
        done=lambda sample: False,
        progress=context.progress,
        description="choose the threshold",
        at_once=1,  # the statistic is one object, and its sums have one order
    )
    merged, *others = context.engine.gather(statistic)
    for other in others:
        merged.merge(other)
    return merged
