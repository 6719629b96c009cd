"""Instance masks inside the refine stage: refine/instances/ID.png and ID.json of every image with maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from tagmask.contracts.refiner import Instances, RefinesMaps
from tagmask.contracts.trainable import TrainedRefiner
from tagmask.engine.image_loop import process_images
from tagmask.errors import DataError
from tagmask.models.enlarging import enlarged_labels
from tagmask.runs.context import Context
from tagmask.stages.refine.fitting import STAGE, left_out, through_chain
from tagmask.storage.arrays import SCHEMA
from tagmask.storage.files import artifact_name
from tagmask.storage.pictures import save_mask
from tagmask.storage.records import write_json
from tagmask.types import Problem, Sample


def instance_paths(context: Context, sample_id: str) -> tuple[Path, Path]:
    """Mask of instance numbers, and the list of instances."""
    base = context.workspace.stage(STAGE) / "instances" / artifact_name(sample_id)
    return base.with_name(f"{base.name}.png"), base.with_name(f"{base.name}.json")


def at_size(instances: Instances, size: tuple[int, int]) -> Instances:
    """The same objects in a larger mask; areas and boxes are those of its pixels. One that has none there goes."""
    if instances.ids.shape == size:
        return instances
    ids = enlarged_labels(instances.ids, size)
    measured = []
    for instance in instances.instances:
        own = ids == instance.id
        if not own.any():
            continue
        rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
        box = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
        measured.append(replace(instance, area=int(own.sum()), box=box))
    return Instances(ids, tuple(measured))


def write_instances(
    context: Context, refiner: TrainedRefiner, before: Sequence[RefinesMaps], samples: list[Sample]
) -> list[Problem]:
    """Instances of a refiner, from the maps that the ones before it make; returns what failed.

    Args:
        context: of the refine stage.
        refiner: with its network.
        before: the links of the chain before it, ready for use.
        samples: images with activation maps.
    """
    loader = context.loader(STAGE)
    names = context.source.classes.names

    def work(sample: Sample) -> Problem | None:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return image
        try:
            stored, request = through_chain(context, before, sample, image)
            result = at_size(refiner.instances(request), stored.image_size)
        except (DataError, ValueError) as error:
            return left_out(sample, error)
        mask, listing = instance_paths(context, sample.id)
        save_mask(mask, result.ids)
        entries = [{**asdict(instance), "class": names[instance.label]} for instance in result.instances]
        write_json(listing, {"schema": SCHEMA, "instances": entries})
        return None

    return process_images(
        context.engine,
        samples,
        work,
        # Both files: the mask alone may be all that a killed process had written.
        done=lambda sample: all(path.exists() for path in instance_paths(context, sample.id)),
        progress=context.progress,
        description="instance masks",
    )
