"""Trainings that fit into a time: what an update costs on this machine is measured, the lengths follow.

The networks are built with random weights and fed noise of the size that the recipe trains on, which costs as much as
images do; nothing is trained, nothing written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tagmask.data.source import TRAIN
from tagmask.data.working_size import working_size_for
from tagmask.engine.engine import Engine
from tagmask.models.classifier import build_classifier
from tagmask.settings.classify import ClassifySettings
from tagmask.settings.recipe import Recipe
from tagmask.settings.segment import SegmentSettings
from tagmask.settings.training_length import TrainingLength, settle
from tagmask.types import ClassifierOutput, DataSource

TRIALS = 2  # of each step, behind one that warms up; the quickest counts
DEFAULT_SIDE = 320  # where no image could be measured
PASSES = 3  # of an image over all views: studied for its maps, its maps, predicted; estimates are rough
OVERHEAD = 1.2  # reading, augmenting, refining and writing, beside the networks; ours, from runs of the recipe own


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds on this machine: of an update of each training, and of all that is done once for each image (maps, masks,
    predictions), of all images.
    """

    updates: Mapping[str, float]
    images: float

    def seconds(self, updates: Mapping[str, int]) -> float:
        """Of a run with so many updates of each training."""
        return OVERHEAD * (sum(number * self.updates[name] for name, number in updates.items()) + self.images)


@dataclass(frozen=True, slots=True)
class Budget:
    """Updates of each training, and the seconds that a run with them takes, about."""

    updates: Mapping[str, int]
    seconds: float


def lengths(recipe: Recipe, source: DataSource) -> dict[str, TrainingLength]:
    """The trainings of classifier and segmentation network (where there is one) as the recipe has them."""
    samples = source.split(TRAIN)
    tagged = sum(bool(sample.tags) for sample in samples)
    return {
        name: settle(
            f"{name}.iterations",
            iterations=settings.iterations,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            tagged=tagged,
            untagged=len(samples) - tagged,
            n_classes=len(source.classes.foreground),
        )
        for name, settings in (("classify", recipe.classify), ("segment", recipe.segment))
        if settings is not None and not (isinstance(settings, ClassifySettings) and settings.classifier is not None)
    }


def fit(seconds: float, costs: Costs, trainings: Mapping[str, TrainingLength]) -> Budget:
    """The lengths as they are where they fit into the time; else all shortened alike, never below what is advised.

    Args:
        seconds: the time there is.
        costs: of this machine.
        trainings: as they would be.
    """
    updates = {name: length.updates for name, length in trainings.items()}
    whole, fixed = costs.seconds(updates), costs.seconds({})
    if whole > seconds:
        share = max(0.0, seconds - fixed) / (whole - fixed)
        updates = {
            name: max(min(length.least, length.updates), int(share * length.updates))
            for name, length in trainings.items()
        }
    return Budget(updates, costs.seconds(updates))


def measure_costs(recipe: Recipe, source: DataSource, long_side: int) -> Costs:
    """Build both networks and time them at the sizes of the recipe.

    Args:
        recipe: checked; its weights are not read.
        source: the data, of which only numbers are asked.
        long_side: of its images, in pixels; ``max_side`` limits it.
    """
    engine, n_classes = Engine(recipe.engine, seed=recipe.seed), len(source.classes.foreground)
    classifier = build_classifier(recipe.classify, n_classes, pretrained=False)
    given = recipe.classify.classifier is not None
    updates = {} if given else {"classify": _update_seconds(engine, classifier, recipe.classify)}
    classifier.to(engine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = long_side or DEFAULT_SIDE
    limit = working_size_for([side]).max_side if recipe.max_side == "auto" else recipe.max_side
    side = min(side, limit or side)
    image = _forward_seconds(engine, classifier, side) * sum(scale**2 for scale in recipe.localize.scales)
    if recipe.segment is not None:
        network = recipe.segment.network.build(n_classes + 1, pretrained=False)
        updates["segment"] = _update_seconds(engine, network, recipe.segment)
    n_images = sum(len(samples) for samples in source.splits.values())
    return Costs(updates, PASSES * (1 + recipe.localize.flip) * image * n_images)


def _update_seconds(engine: Engine, model: nn.Module, settings: ClassifySettings | SegmentSettings) -> float:
    images = _noise(engine, settings.batch_size, settings.augment.crop)
    model.to(engine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()

    def update() -> None:
        with engine.autocast():
            results = model(images)
        tensors = [results.logits] if isinstance(results, ClassifierOutput) else _tensors(results)
        torch.stack([tensor.float().sum() for tensor in tensors]).sum().backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)

    return _quickest(engine, update)


def _tensors(results: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [results] if isinstance(results, Tensor) else results


def _forward_seconds(engine: Engine, model: nn.Module, side: int) -> float:
    images = _noise(engine, 1, side)
    model.eval()

    def look() -> None:
        with torch.no_grad(), engine.autocast():
            model(images)

    return _quickest(engine, look)


def _noise(engine: Engine, batch_size: int, side: int) -> Tensor:
    images = torch.randn(batch_size, 3, side, side, generator=torch.Generator().manual_seed(0))
    return images.to(engine.device, memory_format=torch.channels_last)


def _quickest(engine: Engine, work: Callable[[], None]) -> float:
    work()
    seconds = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        work()
        if engine.device.type == "cuda":
            torch.cuda.synchronize(engine.device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
