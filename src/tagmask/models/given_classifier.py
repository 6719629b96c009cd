"""Put a classifier that was trained elsewhere into the one of a recipe: all of it, or an error of one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tagmask.backbones.build import Backbone
from tagmask.backbones.channels import set_input
from tagmask.backbones.statistics import statistics_of
from tagmask.errors import InputError
from tagmask.models.classifier import Classifier
from tagmask.models.stored_classifier import ClassRows, StoredClassifier, read_classifier, read_second_classifier
from tagmask.settings.classify import ClassifySettings
from tagmask.storage.weights import is_described, load_tensors, read_description, stored_statistics


@dataclass(frozen=True)
class Provenance:
    """Where a classifier came from: whose layout, how many tensors, what its rows are called, what was left aside."""

    origin: str
    tensors: int
    rows: str
    left_aside: tuple[str, ...] = ()


def put_classifier(
    model: Classifier,
    path: Path,
    settings: ClassifySettings,
    classes: Sequence[str],
    row_names: Sequence[str] | None,
) -> Provenance:
    """Load the classifier of a file into ``model``, its input statistics too.

    Args:
        model: the recipe's classifier, at any weights.
        path: one of tagmask's, or a published one (:mod:`tagmask.models.stored_classifier`).
        settings: the recipe's, named in messages.
        classes: C names, without the background.
        row_names: names of the file's rows in order, where it does not tell itself; None: those of ``classes``.

    Raises:
        InputError: it does not fit; names the file, the tensor and the remedy.
    """
    if is_described(path):
        return _put_own(model, path, settings, classes, row_names)
    stored = read_classifier(path)
    _put_backbone(model.backbone, stored, settings)
    set_input(model.backbone, statistics_of(settings.backbone, path, setting="classify.classifier"))
    new = [model.head] if model.neck is None else [model.neck, model.head]
    with torch.no_grad():
        for part in new:
            for parameter in part.parameters():
                parameter.fill_(torch.nan)  # whatever the file does not fill shows
    order = _order(stored.rows, classes, row_names, path)
    _put_rows(model.head, "class_weights", stored.rows, order, path)
    _put_bias(model, stored.rows, order, settings, path)
    left_aside = _put_subcategories(model, stored, order, path)
    if settings.second_classifier is not None:
        second = read_second_classifier(settings.second_classifier)
        again = _order(second, classes, row_names, settings.second_classifier)
        _put_rows(_part(model, "second_weights", settings), "second_weights", second, again, settings.second_classifier)
    _check_filled(model, settings, path)
    return Provenance(stored.origin, len(stored.backbone) + 1, stored.rows.name, left_aside)


def _put_own(
    model: Classifier, path: Path, settings: ClassifySettings, classes: Sequence[str], row_names: Sequence[str] | None
) -> Provenance:
    """A classifier that tagmask trained; it names its classes itself."""
    description = read_description(path)
    if description.get("kind") != "classifier":
        msg = f"{path}: is a {description.get('kind', 'network')}, no classifier. Name the file below a run's classify/"
        raise InputError(msg)
    for value, key in ((row_names, "classifier_classes"), (settings.second_classifier, "second_classifier")):
        if value is not None:
            msg = f"{path}: says all itself, as a classifier of tagmask's. Leave classify.{key} out"
            raise InputError(msg)
    set_input(model.backbone, stored_statistics(description, path))
    tensors, state, names = load_tensors(path), model.state_dict(), tuple(description["classes"][1:])
    if names != tuple(classes):
        tensors = _by_name(tensors, names, classes, path)
    made_with = description.get("settings", {})
    _check_names(tensors, state, path, lambda name: _own_remedy(name, made_with))
    model.load_state_dict(tensors)
    return Provenance("tagmask", len(tensors), "the classifier's")


def _own_remedy(name: str, made_with: Mapping[str, Any]) -> str:
    """Which key of the recipe to set, to what the file was made with."""
    part = name.partition(".")[0]
    head = made_with.get("head") or {}
    value = {"head": head.get("name") if isinstance(head, Mapping) else head, "neck": made_with.get("neck")}
    said = value.get(part, made_with.get("backbone"))
    return f"Set classify.{part}={said or 'null'} and its keys, as it was trained"


def _by_name(
    tensors: Mapping[str, Tensor], names: Sequence[str], classes: Sequence[str], path: Path
) -> dict[str, Tensor]:
    """Tensors of the head with their rows in another order, or fewer of them."""
    missing = [name for name in classes if name not in names]
    if missing:
        msg = (
            f"{path}: has no class '{missing[0]}', only {_listed(names)}. Give it data of its classes, or "
            "start from it and train: classify.warm_start"
        )
        raise InputError(msg)
    order = torch.tensor([list(names).index(name) for name in classes])
    result = dict(tensors)
    for name, value in tensors.items():
        if not name.startswith("head.") or value.ndim == 0:
            continue
        if len(value) != len(names):
            msg = (
                f"{path}: {name} has no row for each class, so its classes cannot change. List them as {_listed(names)}"
            )
            raise InputError(msg)
        result[name] = value[order]
    return result


def _put_backbone(backbone: Backbone, stored: StoredClassifier, settings: ClassifySettings) -> None:
    own = backbone.model.state_dict()
    # timm writes blocks.0 of a full model as blocks_0 where only its features are asked for.
    alike = {name.replace(".", "_"): name for name in stored.backbone}
    names = {name: name if name in stored.backbone else alike.get(name.replace(".", "_"), name) for name in own}
    tensors = {name: stored.backbone[other] for name, other in names.items() if other in stored.backbone}
    for name in own:
        if name.endswith("num_batches_tracked"):  # older files have none, and nothing reads it
            tensors.setdefault(name, torch.tensor(0))
    tensors |= {name: value for name, value in stored.backbone.items() if name not in names.values()}

    def remedy(name: str) -> str:
        text = f"Set classify.backbone (now {settings.backbone}) and its keys to the network of this classifier"
        return f"{text}, perhaps classify.final_conv=true" if name not in own and not settings.final_conv else text

    _check_names(tensors, own, stored.path, remedy)
    backbone.model.load_state_dict({name: tensors[name].to(value.dtype) for name, value in own.items()})


def _check_names(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path, remedy: Callable[[str], str]
) -> None:
    """The same names on both sides, and the same shapes.

    Raises:
        InputError: with the first that differs.
    """
    unknown = [name for name in tensors if name not in own]
    missing = [name for name in own if name not in tensors]
    for names, what in ((missing, "has no"), (unknown, "this recipe's classifier has no")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            msg = f"{path}: {what} {names[0]}{more}. {remedy(names[0])}"
            raise InputError(msg)
    for name, value in own.items():
        if tensors[name].shape != value.shape:
            shapes = tuple(tensors[name].shape), tuple(value.shape)
            msg = f"{path}: {name} is {shapes[0]}, in this recipe's classifier {shapes[1]}. {remedy(name)}"
            raise InputError(msg)


def _order(rows: ClassRows, classes: Sequence[str], row_names: Sequence[str] | None, path: Path) -> list[int]:
    """Which row each class has."""
    names, n_rows = list(classes if row_names is None else row_names), len(rows.weight)
    if len(names) != n_rows:
        whose = "the data has" if row_names is None else "classify.classifier_classes names"
        msg = (
            f"{path}: {rows.name} has rows for {n_rows} classes, {whose} {len(names)}. Name the {n_rows} in "
            "their order in classify.classifier_classes"
        )
        raise InputError(msg)
    twice = next((name for name in names if names.count(name) > 1), None)
    missing = next((name for name in classes if name not in names), None)
    if twice is not None or missing is not None:
        what = f"names '{twice}' twice" if twice is not None else f"has no row for the class '{missing}'"
        msg = f"{path}: classify.classifier_classes {what}. It is {_listed(names)}; the data has {_listed(classes)}"
        raise InputError(msg)
    return [names.index(name) for name in classes]


def _put_rows(head: Any, name: str, rows: ClassRows, order: Sequence[int], path: Path) -> None:
    target: Tensor = getattr(head, name)
    values = rows.weight[torch.tensor(order)].to(target.dtype)
    if values.shape[1] != target.shape[1]:
        msg = (
            f"{path}: {rows.name} is for {values.shape[1]} features, the recipe's head gets {target.shape[1]}. Set "
            "classify.backbone, final_conv and neck as the classifier has them"
        )
        raise InputError(msg)
    with torch.no_grad():
        target.copy_(values)  # a view of the parameter
    if not torch.equal(getattr(head, name), values):
        msg = f"{path}: the head {type(head).__name__} does not hold its {name} as one parameter. Set classify.head=gap"
        raise InputError(msg)


def _put_bias(model: Classifier, rows: ClassRows, order: Sequence[int], settings: ClassifySettings, path: Path) -> None:
    target, name = model.class_bias, rows.name.removesuffix("weight") + "bias"
    if rows.bias is not None and target is None:
        msg = f"{path}: this recipe's head {settings.head.name} has no place for {name}. Set classify.head.bias=true"
        raise InputError(msg)
    if rows.bias is None and target is not None:
        msg = f"{path}: has no {name}, which the head {settings.head.name} asks for. Set classify.head.bias=false"
        raise InputError(msg)
    if rows.bias is not None and target is not None:
        with torch.no_grad():
            target.copy_(rows.bias[torch.tensor(order)])


def _put_subcategories(
    model: Classifier, stored: StoredClassifier, order: Sequence[int], path: Path
) -> tuple[str, ...]:
    """SC-CAM's second classifier, where the head has one; else its name, as left aside: it makes no maps."""
    rows = stored.subcategories
    if rows is None:
        return ()
    try:
        head: Any = model.head.part_with("subcategory_weights")
    except AttributeError:
        return (rows.name,)
    clusters, rest = divmod(len(rows.weight), len(stored.rows.weight))
    if rest or len(head.subcategory_weights) != clusters * len(order):
        number = f"{len(rows.weight)} rows, {clusters} a class"
        msg = f"{path}: {rows.name} has {number}. Set classify.head.clusters={clusters}"
        raise InputError(msg)
    fine = [row * clusters + cluster for row in order for cluster in range(clusters)]
    _put_rows(head, "subcategory_weights", rows, fine, path)
    return ()


def _part(model: Classifier, name: str, settings: ClassifySettings) -> Any:
    try:
        return model.head.part_with(name)
    except AttributeError as error:
        msg = (
            f"{settings.second_classifier}: the head {settings.head.name} has no second classifier. Set "
            "classify.head=recam, or classify.second_classifier=null"
        )
        raise InputError(msg) from error


def _check_filled(model: Classifier, settings: ClassifySettings, path: Path) -> None:
    for name, parameter in model.named_parameters():
        if torch.isnan(parameter).any():
            what = "classify.neck" if name.startswith("neck.") else f"the head {settings.head.name}"
            second = name.endswith("second.weight")
            remedy = "classify.second_classifier to ReCAM's second file, or " if second else ""
            plain = "classify.neck=null" if name.startswith("neck.") else "classify.head=gap"
            msg = f"{path}: has nothing for {name}, which {what} asks for. Set {remedy}{plain}"
            raise InputError(msg)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:3])}, ..., {names[-1]} ({len(names)})"
