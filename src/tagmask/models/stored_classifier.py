"""Classifiers that others have trained and published, read from their files into one form.

Known are the state dicts of AffinityNet (``fc8``), of SC-CAM (``fc8_20`` and ``fc8_200``), of IRNet and ReCAM, whose
files hold each tensor under up to three names, and full timm models. Which one a file is follows from its names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tagmask.errors import InputError
from tagmask.storage.state_dict import read_state_dict

REMEDY = "Set classify.classifier to the file of a trained classifier, or to null to train one."

_SUBCATEGORIES = re.compile(r"fc8_\d+\.weight")
#: Names of timm's classifiers, in the order in which they are looked for.
_TIMM_HEADS = ("fc", "classifier", "head.fc", "head", "last_linear")
#: IRNet's stages, which are Sequentials around parts of a ResNet, and torchvision's (and timm's) names of those parts.
_STAGES = {
    "stage1.0.": "conv1.",
    "stage1.1.": "bn1.",
    "stage1.4.": "layer1.",
    "stage2.0.": "layer2.",
    "stage3.0.": "layer3.",
    "stage4.0.": "layer4.",
}


@dataclass(frozen=True)
class ClassRows:
    """A linear classifier: its name in the file, ``weight`` [K, D], ``bias`` [K] or None."""

    name: str
    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class StoredClassifier:
    """What a file holds.

    Args:
        path: the file.
        origin: whose layout it has.
        backbone: all tensors but the classifiers', by torchvision's, timm's or AffinityNet's names.
        rows: the classifier of the classes.
        subcategories: SC-CAM's second one [k * K, D].
    """

    path: Path
    origin: str
    backbone: Mapping[str, Tensor]
    rows: ClassRows
    subcategories: ClassRows | None = None


def read_classifier(path: Path) -> StoredClassifier:
    """A published classifier; nothing in the file is run.

    Raises:
        InputError: it cannot be read, holds no classifier, the same tensor twice with different values, or values that
            are not finite.
    """
    tensors = _plain_names(read_state_dict(path, remedy=REMEDY), path)
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            msg = f"{path}: {name} is not finite. {REMEDY}"
            raise InputError(msg)
    fine = sorted((name for name in tensors if _SUBCATEGORIES.fullmatch(name)), key=lambda name: len(tensors[name]))
    if len(fine) > 2:
        msg = f"{path}: holds {len(fine)} classifiers ({', '.join(fine)}), SC-CAM's has two. {REMEDY}"
        raise InputError(msg)
    if fine:
        first, *second = (_take(tensors, name, path) for name in fine)
        return StoredClassifier(path, "SC-CAM", tensors, first, second[0] if second else None)
    if "fc8.weight" in tensors:
        return StoredClassifier(path, "AffinityNet", tensors, _take(tensors, "fc8.weight", path))
    staged = any(name.startswith(("stage1.", "resnet50.")) for name in tensors)
    for head in ("classifier",) if staged else _TIMM_HEADS:
        if f"{head}.weight" in tensors:
            rows = _take(tensors, f"{head}.weight", path)
            if staged:
                return StoredClassifier(path, "IRNet", _torchvision_names(tensors, path), rows)
            return StoredClassifier(path, "timm", tensors, rows)
    msg = f"{path}: holds no classifier: none of fc8, fc8_20, {', '.join(_TIMM_HEADS)} is among its tensors. {REMEDY}"
    raise InputError(msg)


def read_second_classifier(path: Path) -> ClassRows:
    """ReCAM's second file, which holds ``classifier.weight`` [C, D] alone.

    Raises:
        InputError: it cannot be read, or is another file.
    """
    remedy = "Set classify.second_classifier to ReCAM's recam_predictor.pth, or to null."
    tensors = _plain_names(read_state_dict(path, remedy=remedy), path)
    if set(tensors) != {"classifier.weight"}:
        name = next((name for name in tensors if name != "classifier.weight"), "nothing")
        msg = f"{path}: holds {name}, where classifier.weight alone is expected. {remedy}"
        raise InputError(msg)
    return _take(tensors, "classifier.weight", path)


def _plain_names(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Without the ``module.`` of a model that was saved in its wrapper, and with IRNet's lists under first names."""
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    if not any(name.startswith("newly_added.") for name in tensors):
        return dict(tensors)

    def first_name(name: str) -> str:
        name = re.sub(r"^backbone\.(\d)\.", lambda match: f"stage{int(match[1]) + 1}.", name)
        return name.replace("newly_added.0.", "classifier.", 1) if name.startswith("newly_added.0.") else name

    return _united(tensors, first_name, path)


def _torchvision_names(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """IRNet's and ReCAM's backbone by torchvision's names."""

    def torchvision_name(name: str) -> str:
        for start, own in _STAGES.items():
            if name.startswith(start):
                return own + name.removeprefix(start)
        return name.removeprefix("resnet50.")

    return _united(tensors, torchvision_name, path)


def _united(tensors: Mapping[str, Tensor], rename: Callable[[str], str], path: Path) -> dict[str, Tensor]:
    """Tensors under new names, one for all that get the same.

    Raises:
        InputError: two that get the same name differ.
    """
    result: dict[str, Tensor] = {}
    for name, value in tensors.items():
        other = result.setdefault(rename(name), value)
        if other.shape != value.shape or not torch.equal(other, value):
            msg = f"{path}: {name} and another name of the same tensor ({rename(name)}) differ. {REMEDY}"
            raise InputError(msg)
    return result


def _take(tensors: dict[str, Tensor], name: str, path: Path) -> ClassRows:
    """Remove a linear classifier from the tensors and return it.

    Raises:
        InputError: it is no 1x1 convolution or linear layer.
    """
    weight = tensors.pop(name)
    bias = tensors.pop(name.removesuffix("weight") + "bias", None)
    if weight.ndim not in (2, 4) or weight.numel() != weight.shape[0] * weight.shape[1]:
        shape = "x".join(map(str, weight.shape))
        msg = (
            f"{path}: {name} is {shape}, where rows of a linear classifier or a 1x1 convolution are expected. {REMEDY}"
        )
        raise InputError(msg)
    return ClassRows(name, weight.flatten(1), bias)
