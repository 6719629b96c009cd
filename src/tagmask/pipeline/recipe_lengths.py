"""How long each training of a recipe will be on some data, known before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator

from tagmask.contracts.optimizer import Iterations
from tagmask.contracts.trainable import TrainableRefiner
from tagmask.settings.recipe import Recipe
from tagmask.settings.segment import SegmentSettings
from tagmask.settings.training_length import TrainingLength, settle, share_of_published
from tagmask.types import DataSource


def recipe_lengths(recipe: Recipe, source: DataSource) -> list[TrainingLength]:
    """The length of every training in the order of a run, as if no image were left out on the way."""
    samples = source.split("train")
    tagged, n_classes = sum(bool(sample.tags) for sample in samples), len(source.classes.foreground)
    return [
        settle(
            f"{key}.iterations",
            iterations=iterations,
            epochs=epochs,
            batch_size=batch_size,
            tagged=tagged,
            untagged=len(samples) - tagged,
            n_classes=n_classes,
        )
        for key, iterations, epochs, batch_size in _trainings(recipe, len(samples))
    ]


def _trainings(recipe: Recipe, n_images: int) -> Iterator[tuple[str, Iterations, int, int]]:
    """Key, iterations, epochs and images an update of each."""
    keys = ["classify", *(f"retrain.{number}" for number in range(len(recipe.retrain)))]
    for key, tags in zip(keys, recipe.trainings.values(), strict=True):
        if tags.classifier is not None:
            continue  # it is given
        yield key, tags.iterations, tags.epochs, tags.batch_size
    for refiner in recipe.refine.chain:
        if isinstance(refiner, TrainableRefiner):
            yield f"refine.{refiner.name}", refiner.iterations, refiner.epochs, refiner.batch_size
    if recipe.segment is not None:
        yield "segment", *_segmentation(recipe.segment, n_images)


def _segmentation(settings: SegmentSettings, n_images: int) -> tuple[Iterations, int, int]:
    iterations = settings.iterations
    if isinstance(iterations, int) and settings.per_images is not None:
        iterations = share_of_published(iterations, n_images, settings.per_images)
    return iterations, settings.epochs, settings.batch_size * settings.accumulate
