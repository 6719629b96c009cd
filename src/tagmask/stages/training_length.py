"""How long a training of this run is: settled when it begins, told, and written into the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from tagmask.contracts.optimizer import Iterations
from tagmask.engine.training import Options
from tagmask.runs.context import Context
from tagmask.runs.stage_names import CLASSIFY
from tagmask.settings.training_length import TRAINING_LENGTH
from tagmask.types import Sample


@dataclass(frozen=True, slots=True)
class TrainingLength:
    """``iterations``: updates, None where ``epochs`` say how many; ``epochs``: how many are begun, in any case."""

    iterations: int | None
    epochs: int


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
        iterations: the setting; 'auto' asks the table (:data:`TRAINING_LENGTH`).
        epochs: the setting, which counts where ``iterations`` is None.
        batch_size: images an update.
        training: its folder in the stage's, where the stage has several.
    """
    rule = TRAINING_LENGTH[stage.partition("/")[0]]
    tagged = sum(bool(sample.tags) for sample in samples)
    untagged, n_classes = len(samples) - tagged, len(context.source.classes.foreground)
    advised = rule.updates(tagged=tagged, untagged=untagged, n_classes=n_classes, batch_size=batch_size)
    settled = advised if iterations == "auto" else iterations
    per_epoch, updates = Options(iterations=settled).steps(len(samples), batch_size, epochs)
    record = {
        "updates": updates,
        "from": "auto" if iterations == "auto" else "epochs" if iterations is None else "iterations",
        "batch_size": batch_size,
        "images": len(samples),
        "untagged": untagged,
        "classes": n_classes,
        "least": rule.least(n_classes),
    }
    if context.engine.is_main:
        _note(context, stage, training, record)
        _tell(context, stage, training, record)
    return TrainingLength(settled, epochs if settled is None else ceil(updates / per_epoch))


def _note(context: Context, stage: str, training: str | None, record: dict[str, Any]) -> None:
    """Into the manifest, so that the report and whoever compares runs need not work it out again."""

    def change(manifest: dict[str, Any]) -> None:
        entry = manifest["stages"].setdefault(stage, {})
        entry.setdefault("trainings", {})[training or stage] = record

    context.workspace.update_manifest(change)


def _tell(context: Context, stage: str, training: str | None, record: dict[str, Any]) -> None:
    updates, least = record["updates"], record["least"]
    if record["from"] == "auto":
        images = f"{record['images']} training images, {record['untagged']} without a tag"
        context.progress.message(
            f"{training or stage}: {updates} updates of {record['batch_size']} images (auto: {images}, "
            f"{record['classes']} classes)"
        )
    elif updates < least:
        context.progress.warning(f"{too_short(training or stage, record)}; set {setting(stage, training)}=auto")


def too_short(name: str, record: Mapping[str, Any]) -> str:
    """That a training had too few updates, in words, from its entry in the manifest."""
    return (
        f"{name}: {record['updates']} updates are few for {record['classes']} classes, {record['least']} or more are "
        "advised"
    )


def setting(stage: str, training: str | None = None) -> str:
    """The recipe's key of a training's number of updates."""
    first, _, number = stage.partition("/")
    if training is not None:
        return f"refine.{training.partition('-')[2]}.iterations"
    return f"retrain.{int(number) - 2}.iterations" if first == CLASSIFY and number else f"{first}.iterations"
