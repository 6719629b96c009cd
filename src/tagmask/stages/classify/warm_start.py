"""A warm start: the weights of an earlier classifier by name, and the rows of its classes by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tagmask.backbones.channels import set_input
from tagmask.errors import InputError
from tagmask.models.classifier import Classifier
from tagmask.runs.earlier_classifier import classifier_file
from tagmask.storage.weights import load_tensors, read_description, stored_statistics

SETTING = "classify.warm_start"


@dataclass(frozen=True)
class TakenOver:
    """What came from an earlier classifier: whole ``tensors`` by name; ``classes`` with rows of their own."""

    tensors: frozenset[str]
    classes: tuple[str, ...]


def take_over(
    state: Mapping[str, Tensor], stored: Mapping[str, Tensor], old: Sequence[str], new: Sequence[str]
) -> tuple[dict[str, Tensor], TakenOver]:
    """A state dict with what fits of an earlier one.

    A tensor of the head with a row for each class takes the rows of the classes that both know, by name; its other rows
    stay as they are. Every other tensor is taken whole where name and shape fit.

    Args:
        state: of the new classifier.
        stored: of the earlier one.
        old: names of its classes, without the background.
        new: names of the new one's.
    """
    both = [name for name in new if name in old]
    targets = torch.tensor([new.index(name) for name in both], dtype=torch.long)
    origins = torch.tensor([old.index(name) for name in both], dtype=torch.long)
    result, whole, rows = dict(state), set(), False
    for name, value in state.items():
        other = stored.get(name)
        if other is None or other.shape[1:] != value.shape[1:]:
            continue
        per_class = name.startswith("head.") and value.ndim > 0 and (len(other), len(value)) == (len(old), len(new))
        if per_class and list(old) != list(new):
            result[name] = value.clone()
            result[name][targets] = other[origins].to(value.dtype)
            rows = True
            if len(both) == len(new):
                whole.add(name)
        elif other.shape == value.shape:
            result[name] = other.to(value.dtype)
            rows = rows or per_class
            whole.add(name)
    return result, TakenOver(frozenset(whole), tuple(both) if rows else ())


def start_from(path: Path, model: Classifier, classes: Sequence[str]) -> tuple[TakenOver, Path]:
    """Put an earlier classifier's weights into a new one; returns what came over, and the file.

    Args:
        path: a run, or the file of a classifier.
        model: the new classifier, whose backbone must be the earlier one's; its input statistics become those, too.
        classes: names of its classes, without the background.

    Raises:
        InputError: no classifier, or of another backbone.
    """
    file = classifier_file(path, "warm_start")
    description = read_description(file)
    if description.get("kind") != "classifier":
        msg = (
            f"{SETTING}: {file} is a {description.get('kind', 'network')}, no classifier. Name a run, or its classify/"
        )
        raise InputError(msg)
    set_input(model.backbone, stored_statistics(description, file))
    stored, state = load_tensors(file), model.state_dict()
    values, taken = take_over(state, stored, description["classes"][1:], classes)
    missing = [name for name in state if name.startswith("backbone.") and name not in taken.tensors]
    if missing:
        backbone = description.get("settings", {}).get("backbone", "another")
        msg = (
            f"{SETTING}: {file}: its backbone is {backbone}, which is not this recipe's ({missing[0]} does not fit). "
            f"Set classify.backbone={backbone} and the other keys of its backbone"
        )
        raise InputError(msg)
    model.load_state_dict(values)
    return taken, file
