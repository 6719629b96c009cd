"""Which keys of a recipe hold a method, of which kind, and what stays when another takes its place."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tagmask import registry
from tagmask.data.source import SourceSettings
from tagmask.errors import InputError
from tagmask.registry import Kind
from tagmask.registry.field import MethodOf
from tagmask.registry.validation import build_method, settings_type
from tagmask.settings.localize import LocalizeSettings
from tagmask.settings.recipe import Recipe
from tagmask.settings.refine import RefineSettings

AUTO = "auto"  # a data format that is looked for


@dataclass(frozen=True)
class MethodPlace:
    """A key of a recipe that holds a method: of which kind, and which one where none is named."""

    kind: Kind
    default: str | None = None


def method_place(raw: Mapping[str, Any], keys: Sequence[str]) -> MethodPlace | None:
    """What kind of method a key holds; None: it holds something else.

    Args:
        raw: the values of a recipe.
        keys: parts of the key, items of lists by their number.
    """
    models: tuple[type[BaseModel], ...] = (Recipe,)
    place: MethodPlace | None = None
    node: Any = raw
    for key in keys:
        if isinstance(node, list):
            place = MethodPlace("refiner") if RefineSettings in models else None
            node = node[int(key)]
        else:
            field = next((model.model_fields[key] for model in models if key in model.model_fields), None)
            place, models = (None, ()) if field is None else (_place(field), _blocks(field))
            if LocalizeSettings in models:  # whose method stands in the block itself
                place = _place(LocalizeSettings.model_fields["method"])
            node = node.get(key) if isinstance(node, Mapping) else None
        if place is not None:
            stage = tuple(model for model in models if model is LocalizeSettings)
            models = (*stage, *_method_class(place.kind, name_of(node) or place.default))
    return place


def name_of(method: Any) -> str | None:
    """The name of a method in its recipe form, None where it has none: the default."""
    if isinstance(method, Mapping):
        method = method.get("format", method.get("name"))
    return str(method) if isinstance(method, str) else None


def stage_keys(place: MethodPlace, keys: Sequence[str], old: str | None, new: str) -> frozenset[str]:
    """Keys beside a method that are not its own, and stay when another takes its place."""
    if tuple(keys) == ("localize",):
        return frozenset(LocalizeSettings.model_fields)
    if place.kind != "data":
        return frozenset()
    common = frozenset(SourceSettings.model_fields)
    (before, *_), (after, *_) = (_method_class("data", name) or (SourceSettings,) for name in (old, new))
    if not issubclass(before, SourceSettings):
        return frozenset()
    # Keys beside 'auto' are of no other format.
    return frozenset(after.model_fields) if old == AUTO else common & frozenset(after.model_fields)


def changed_settings(kind: Kind, method: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Those of the keys whose value is not the method's default."""
    name = name_of(method)
    try:
        default = build_method(kind, str(name), where="", base=Path())
        own = {key: value for key, value in method.items() if key in type(default).model_fields or key == "name"}
        built = build_method(kind, own, where="", base=Path())
    except InputError:
        return list(keys)
    return [key for key in keys if not hasattr(built, key) or getattr(built, key) != getattr(default, key)]


def _place(field: FieldInfo) -> MethodPlace | None:
    marks = [option for option in (*field.metadata, *_options(field.annotation)) if isinstance(option, MethodOf)]
    default = field.default if isinstance(field.default, str) else None
    return MethodPlace(marks[0].kind, default) if marks else None


def _options(annotation: Any) -> Iterator[Any]:
    for option in typing.get_args(annotation):
        yield option
        yield from _options(option)


def _blocks(field: FieldInfo) -> tuple[type[BaseModel], ...]:
    block = settings_type(field.annotation)
    return () if block is None else (block,)


def _method_class(kind: Kind, name: str | None) -> tuple[type[BaseModel], ...]:
    try:
        return (registry.get(kind, name),) if name is not None else ()
    except InputError:
        return ()
