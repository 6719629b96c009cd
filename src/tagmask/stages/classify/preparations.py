"""Preparations of a training: one pass over the training images on all ranks, and a file that a resumed one reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tagmask.contracts.localizer import Trained
from tagmask.contracts.preparation import Preparation
from tagmask.engine.image_loop import gather_images
from tagmask.runs.context import TRAIN, Context
from tagmask.runs.stage_names import CLASSIFY
from tagmask.storage.arrays import SCHEMA
from tagmask.storage.records import read_json, write_json
from tagmask.types import Problem, Sample, UInt8Array


@dataclass
class Prepared:
    """What a training was given: extras by key and image id, and the records that change what it sees."""

    extras: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    records: list[tuple[Preparation, Mapping[str, Any]]] = field(default_factory=list)

    def view(self, sample: Sample, image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        """The image as this epoch sees it, before it is augmented."""
        for preparation, record in self.records:
            image = preparation.view(record, sample, image, rng)
        return image


def prepare(context: Context, stage: str, preparations: Sequence[Preparation], previous: nn.Module) -> Prepared:
    """Make what is not there yet, and read it.

    Args:
        context: of the training.
        stage: its name.
        preparations: of its head, and of its settings.
        previous: the classifier trained before, in eval mode on the engine's device.

    Raises:
        RunError: features or maps are not finite, or a file cannot be read.
    """
    prepared = Prepared()
    samples, names = context.samples(TRAIN), context.source.classes.foreground
    for preparation in preparations:
        path = context.workspace.stage(stage) / preparation.file
        if not path.exists():
            observations = _observations(context, preparation, previous)
            if context.engine.is_main:
                observed_samples = [sample for sample in samples if sample.id in observations]
                record = preparation.conclude(observed_samples, observations, names, context.recipe.seed)
                write_json(path, {"schema": SCHEMA, **record})
            context.engine.barrier()
        record = read_json(path)
        supplement = preparation.supplement(record, samples, names, stage)
        prepared.extras |= supplement.extras
        prepared.problems += supplement.problems
        prepared.records.append((preparation, record))
    return prepared


def _observations(context: Context, preparation: Preparation, model: nn.Module) -> dict[str, Any]:
    """What the preparation sees in every training image that can be read, by id; on every rank."""
    engine, names = context.engine, context.source.classes.foreground
    loader = context.loader(CLASSIFY)
    trained = Trained(model.requires_grad_(False), {}, engine.device)

    def work(sample: Sample) -> tuple[str, Any] | None:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return None  # the training lists it
        with engine.autocast(), torch.inference_mode():
            return sample.id, preparation.observe(trained, sample, image, names)

    samples = [sample for sample in context.samples(TRAIN) if sample.tags or preparation.untagged]
    results = gather_images(engine, samples, work, progress=context.progress, description=preparation.title)
    return dict(result for result in results if result is not None)
