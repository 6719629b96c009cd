"""The refine stage: the recipe's chain of refiners, from activation maps to pseudo masks.

All but the last refiner turn maps into maps (kept in refine/maps), those that learn after their training
(:mod:`tagmask.stages.refine.fitting`); the last one makes labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tagmask.contracts.labeller import LabelRequest
from tagmask.contracts.planes import IMAGE
from tagmask.contracts.refiner import RefinesMaps
from tagmask.contracts.trainable import TrainableRefiner, TrainedRefiner
from tagmask.engine.image_loop import process_images
from tagmask.errors import DataError
from tagmask.models.enlarging import enlarged_labels
from tagmask.ops.map_grids import MapGrids
from tagmask.ops.transforms import working_size
from tagmask.runs.context import TRAIN, VAL, Context
from tagmask.runs.corrections import record_masks
from tagmask.runs.stage_names import LOCALIZE
from tagmask.stages.planes import planes_of
from tagmask.stages.refine.fitting import STAGE, fitted_chain, left_out, through_chain
from tagmask.stages.refine.instance_masks import write_instances
from tagmask.stages.refine.thresholds import choose_thresholds, own_thresholds
from tagmask.storage.pictures import save_mask
from tagmask.types import ActivationMaps, Problem, Sample


def located(context: Context, *splits: str) -> list[Sample]:
    """Samples that the localize stage could read."""
    return [s for s in context.samples(*splits) if context.workspace.map_path(s.id).exists()]


def map_stage(context: Context) -> str:
    """The stage whose maps become labels: the activation maps themselves when nothing refines maps."""
    return STAGE if context.recipe.refine.makes_maps else LOCALIZE


def refined_map_path(context: Context, sample_id: str) -> Path:
    """Where an image's maps that become labels are."""
    return context.workspace.map_path(sample_id, stage=map_stage(context))


def run(context: Context, stage: str = STAGE) -> list[Problem]:
    """Write refine/maps (if any refiner makes maps), the threshold, and refine/masks; returns what was left out."""
    del stage
    # A class that does not exist is better known before anything is refined.
    own_thresholds(context)
    for link in context.recipe.refine.refiners:
        for name in link.class_names:
            context.source.classes.label(name, where=f"refine.{link.name}.classes")
    samples = located(context, TRAIN, VAL)
    refiners = context.recipe.refine.refiners
    chain, problems = fitted_chain(context, refiners, samples)
    problems += _refine_maps(context, chain, samples) if chain else []
    # Instances are those of the last refiner that makes them; what refines behind it works on maps of classes.
    with_instances = [i for i, r in enumerate(refiners) if isinstance(r, TrainableRefiner) and r.makes_instances]
    if with_instances:
        *before, refiner = chain[: with_instances[-1] + 1]
        assert isinstance(refiner, TrainedRefiner)
        problems += write_instances(context, refiner, before, samples)

    def refined(samples: list[Sample]) -> list[Sample]:
        return [sample for sample in samples if refined_map_path(context, sample.id).exists()]

    thresholds = choose_thresholds(context, refined(located(context, TRAIN)), lambda sample: _load(context, sample))
    labeller, workspace = context.recipe.refine.labeller, context.workspace
    loader = context.loader(STAGE)

    def work(sample: Sample) -> Problem | None:
        stored = _load(context, sample)
        image = loader.load(sample) if IMAGE in labeller.needs else None
        if isinstance(image, Problem):
            return image
        request = LabelRequest(
            maps=torch.from_numpy(stored.maps),
            grids=MapGrids.of(stored),
            classes=torch.from_numpy(stored.classes),
            size=working_size(stored.image_size, context.recipe.working_size),
            threshold=thresholds.of(stored.classes.tolist()),
            id=sample.id,
            image=image,
            planes=planes_of(workspace, labeller.needs, sample),
        )
        try:
            mask = labeller.labels(request)
        except (DataError, ValueError) as error:
            return left_out(sample, error)
        save_mask(workspace.mask_path(sample.id), enlarged_labels(mask, stored.image_size))
        return None

    problems += process_images(
        context.engine,
        refined(samples),
        work,
        done=lambda sample: workspace.mask_path(sample.id).exists(),
        progress=context.progress,
        description="pseudo masks",
    )
    if context.engine.is_main:
        record_masks(workspace)
    return problems


def _load(context: Context, sample: Sample) -> ActivationMaps:
    return context.workspace.load_maps(sample.id, stage=map_stage(context))


def _refine_maps(context: Context, chain: Sequence[RefinesMaps], samples: list[Sample]) -> list[Problem]:
    workspace = context.workspace
    loader = context.loader(STAGE)

    def work(sample: Sample) -> Problem | None:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return image
        try:
            stored, request = through_chain(context, chain, sample, image)
        except (DataError, ValueError) as error:
            return left_out(sample, error)
        refined = stored.with_maps(request.maps.float().cpu().numpy())
        if not np.isfinite(refined.maps).all():
            return left_out(sample, DataError(f"{sample.image_path}: its refined maps are not finite; image left out"))
        if request.grids is not None and len(refined.maps):
            refined = replace(refined, frame=request.grids.frame, seen=request.grids.size)
        workspace.save_maps(sample.id, refined, stage=STAGE)
        return None

    return process_images(
        context.engine,
        samples,
        work,
        done=lambda sample: workspace.map_path(sample.id, stage=STAGE).exists(),
        progress=context.progress,
        description="refine maps",
    )
