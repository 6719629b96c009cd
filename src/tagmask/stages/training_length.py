"""How long a training of this run is: settled when it begins, told, and written into the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tagmask.contracts.optimizer import Iterations
from tagmask.runs.context import Context
from tagmask.runs.stage_names import CLASSIFY
from tagmask.settings.training_length import TrainingLength, settle, too_short
from tagmask.types import Sample


def training_length(
    context: Context,
    stage: str,
    samples: Sequence[Sample],
    *,
    iterations: Iterations,
    epochs: int,
    batch_size: int,
    training: str | None = None,
) -> TrainingLength:
    """Settle the length of a training, say it where the table was asked, and warn where it is short.

    Args:
        context: of the stage.
        stage: whose training it is.
        samples: the training images.
        iterations: the setting; 'auto' asks the table (``tagmask.settings.training_length``).
        epochs: the setting, which counts where ``iterations`` is None.
        batch_size: images an update.
        training: its folder in the stage's, where the stage has several (N-NAME, of a refiner).
    """
    tagged = sum(bool(sample.tags) for sample in samples)
    length = settle(
        _key(stage, training),
        iterations=iterations,
        epochs=epochs,
        batch_size=batch_size,
        tagged=tagged,
        untagged=len(samples) - tagged,
        n_classes=len(context.source.classes.foreground),
    )
    if context.engine.is_main:
        name = training or stage
        _note(context, stage, name, length)
        if length.origin == "auto":
            images = f"{length.images} training images, {length.untagged} without a tag"
            context.progress.message(
                f"{name}: {length.updates} updates of {batch_size} images (auto: {images}, {length.classes} classes)"
            )
        elif shortage := too_short(length.record()):
            context.progress.warning(f"{name}: {shortage}")
    return length


def _note(context: Context, stage: str, name: str, length: TrainingLength) -> None:
    """Into the manifest, so that the report and whoever compares runs need not work it out again."""

    def change(manifest: dict[str, Any]) -> None:
        entry = manifest["stages"].setdefault(stage, {})
        entry.setdefault("trainings", {})[name] = length.record()

    context.workspace.update_manifest(change)


def _key(stage: str, training: str | None) -> str:
    """The recipe's key of a training's number of updates."""
    first, _, number = stage.partition("/")
    if training is not None:
        return f"{first}.{training.partition('-')[2]}.iterations"
    return f"retrain.{int(number) - 2}.iterations" if first == CLASSIFY and number else f"{first}.iterations"
