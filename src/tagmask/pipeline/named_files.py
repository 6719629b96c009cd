"""Every file and folder that a recipe names, and which of them are not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from tagmask.contracts.trainable import TrainableRefiner
from tagmask.settings.recipe import Recipe

_REMEDIES = {
    "weights": "Put the weights there, or name others: {key}=FILE ('timm': published ones, null: none).",
    "warm_start": "Name a run, or the model.safetensors of a classifier, or leave it out: {key}=null.",
    "classifier": "Name the file of a trained classifier, or a run; {key}=null trains one.",
    "classifier_classes": "Name a file with one class name per line, or list them.",
    "second_classifier": "Name ReCAM's second file, or leave it out: {key}=null.",
    "study_list": "Names start from data.root, unless they are absolute; {key}=null studies all training images.",
    "real_masks": "Name a file with one image id per line, a number of images, or all.",
    "full_run": "Name a run with full supervision, or leave it out: {key}=null.",
    "corrections": "Name the folder of the corrected masks, or leave it out: {key}=null.",
}
_DATA_REMEDY = "Names start from data.root, unless they are absolute; correct it, or leave it out: {key}=null."
_ROOT_REMEDY = "Name the folder of the data set: {key}=DIR."


@dataclass(frozen=True)
class NamedFile:
    """A file or folder that a recipe names.

    Args:
        key: dotted key of the recipe.
        path: where it should lie.
        remedy: what to do where it does not.
    """

    key: str
    path: Path
    remedy: str

    def __str__(self) -> str:
        """One line: key, path, remedy."""
        return f"{self.key}: {self.path} does not exist. {self.remedy}"


def missing_files(recipe: Recipe) -> list[NamedFile]:
    """Those that are not there: first those of the data, then the others in the order of the recipe, each path once."""
    missing = [
        NamedFile(f"data.{key}", path, (_ROOT_REMEDY if key == "root" else _DATA_REMEDY).format(key=f"data.{key}"))
        for key, path in recipe.data.missing_files().items()
    ]
    without_root = any(file.key == "data.root" for file in missing)
    paths: set[Path] = set()
    for key, path in _paths(recipe):
        name = key.rpartition(".")[2]
        if path in paths or path.expanduser().exists() or (name == "study_list" and without_root):
            continue
        if name == "weights" and not _are_read(recipe, key):
            continue
        paths.add(path)
        remedy = _REMEDIES.get(name, "Correct the path: {key}=PATH.").format(key=key)
        missing.append(NamedFile(key, path, remedy))
    return missing


def _are_read(recipe: Recipe, key: str) -> bool:
    """Whether weights that a training of the classifier names are read: not where it starts from a whole classifier."""
    first = recipe.classify
    if key == "classify.weights" and (first.classifier is not None or first.warm_start is not None):
        # A refiner without a backbone of its own has that of the classifier, and its weights.
        return any(
            isinstance(refiner, TrainableRefiner) and refiner.init == "weights" and refiner.backbone is None
            for refiner in recipe.refine.chain
        )
    again = {f"retrain[{number}].weights": settings for number, settings in enumerate(recipe.retrain)}
    return key not in again or again[key].start == "weights"


def _paths(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Dotted keys and paths of all settings that are paths, but those of the data."""
    for key in type(settings).model_fields:
        value = getattr(settings, key)
        # In a recipe, method and stage stand side by side, and a chain is the list itself.
        here = prefix.rstrip(".") if key in ("method", "chain") else f"{prefix}{key}"
        if isinstance(value, Path):
            yield here, value
        elif isinstance(value, BaseModel) and here != "data":
            yield from _paths(value, f"{here}.")
        elif isinstance(value, tuple):
            for number, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _paths(item, f"{here}[{number}].")
