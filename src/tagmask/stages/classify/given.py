"""A classifier that is given: its file is loaded whole, told, and nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tagmask.data.lists import read_lines
from tagmask.errors import InputError
from tagmask.models.classifier import Classifier, build_classifier
from tagmask.models.given_classifier import put_classifier
from tagmask.runs.context import TRAIN, Context
from tagmask.runs.earlier_classifier import classifier_file
from tagmask.runs.stage_names import CLASSIFY


def given_classifier(context: Context) -> Classifier:
    """The classifier of ``classify.classifier`` with all of its weights, on the CPU.

    Raises:
        InputError: the file does not fit the recipe or the data; one line with file, key and remedy.
    """
    settings, classes = context.recipe.classify, context.source.classes.foreground
    assert settings.classifier is not None
    file = classifier_file(settings.classifier, "classifier")
    model = build_classifier(settings, len(classes), pretrained=False)
    names = row_names(settings.classifier_classes)
    provenance = put_classifier(model, file, settings, classes, names)
    check_channels(context, model, f"classify.classifier: {file}")
    if context.engine.is_main:
        aside = f"; left aside: {', '.join(provenance.left_aside)}" if provenance.left_aside else ""
        # A published file names no classes: what its rows are taken for is said, and cannot be checked.
        known = "" if names is not None or provenance.origin == "tagmask" else ", in the data's order"
        context.progress.message(
            f"{CLASSIFY}: {file} ({provenance.origin}): {provenance.tensors} tensors, {provenance.rows} rows are "
            f"{', '.join(classes)}{known}{aside}; nothing is trained"
        )
    return model


def row_names(value: Path | Sequence[str] | None) -> tuple[str, ...] | None:
    """Names of a classifier's rows: as they stand, or of a file with one a line, without a first 'background'.

    Raises:
        DataError: the file cannot be read.
    """
    if value is None or not isinstance(value, Path):
        return None if value is None else tuple(value)
    lines = read_lines(value, remedy="Correct classify.classifier_classes, or write one class name per line there.")
    names = [line for _, line in lines]
    return tuple(names[1:] if names[:1] == ["background"] else names)


def check_channels(context: Context, model: Classifier, where: str) -> None:
    """Whether a classifier takes images of as many channels as the data has.

    Raises:
        InputError: it does not; the message begins with ``where``.
    """
    bands = context.source.input_statistics
    n_channels, n_bands = len(model.input_statistics.mean), len(bands.mean) if bands is not None else 3
    if n_channels != n_bands:
        msg = f"{where} takes {n_channels} channels, and these images have {n_bands}"
        raise InputError(msg)


def warn_of_unknown_tags(context: Context, figures: Mapping[str, Any]) -> None:
    """Say that a given classifier ranks the tags hardly better than chance: its rows may be in another order."""
    samples, n_classes = context.samples(TRAIN), len(context.source.classes.foreground)
    shares = [sum(label in sample.tags for sample in samples) / len(samples) for label in range(1, n_classes + 1)]
    present = [share for share in shares if share]
    precision = figures.get("train_map")
    if precision is None or not present:
        return
    chance = sum(present) / len(present)
    if precision < min(0.9, 1.5 * chance + 0.05):
        context.progress.warning(
            f"{CLASSIFY}: the given classifier ranks the tags of these images with an average precision of "
            f"{precision:.2f} (chance {chance:.2f}): are its classes in this order? classify.classifier_classes names "
            "them in its own"
        )
