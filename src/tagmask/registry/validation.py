"""Make a method or a settings model from plain recipe values; typos get the nearest right name."""

from __future__ import annotations

import typing
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tagmask import registry
from tagmask.errors import RecipeError, nearest
from tagmask.registry.declaration import Kind
from tagmask.registry.method import Method, former_name


class RenamedKey(UserWarning):
    """A recipe uses the old name of a setting."""


class AnchoredText(str):
    """Recipe text that remembers its folder: as a path it is relative to that, wherever the text is merged to."""

    base: Path


def anchor(value: Any, base: Path, beside: Path | None = None) -> Any:
    """Every text in a YAML value as :class:`AnchoredText`; keys stay as they are.

    Args:
        value: texts, numbers, lists, mappings.
        base: where paths start from.
        beside: where those start from that begin with './' or '../'; ``base`` by default.
    """
    if isinstance(value, str):
        text = AnchoredText(value)
        text.base = beside if beside is not None and value.startswith(("./", "../")) else base
        return text
    if isinstance(value, dict):
        return {key: anchor(item, base, beside) for key, item in value.items()}
    return [anchor(item, base, beside) for item in value] if isinstance(value, list) else value


def build_method(kind: Kind, value: Any, *, where: str, base: Path) -> Any:
    """Make a method from its recipe form: a name, or a mapping with ``name`` and its settings.

    Raises:
        UnknownNameError: no such method.
        RecipeError: a setting is unknown or wrong.
    """
    if isinstance(value, BaseModel):
        return value
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        msg = f"{where}: expected the name of a {kind} or a mapping with 'name', got {value!r}"
        raise RecipeError(msg)
    settings = {key: item for key, item in value.items() if key != "name"}
    return validate_settings(registry.get(kind, str(value["name"]), where=where), settings, base, where, "")


def renamed_keys(values: Mapping[str, Any], model: type[BaseModel], where: str, prefix: str = "") -> dict[str, Any]:
    """``values`` with old names of settings replaced by today's; each is told once, as a warning of one line."""
    names = {old: key for key in model.model_fields if (old := former_name(model, key))}
    current = {key: value for key, value in values.items() if key not in names}
    for old in values.keys() & names.keys():
        warnings.warn(f"{where}: '{prefix}{old}' is called '{prefix}{names[old]}' now", RenamedKey, stacklevel=2)
        current[names[old]] = values[old]
    return current


def validate_settings(model: Any, values: dict[str, Any], base: Path, where: str, prefix: str) -> Any:
    """Build ``model`` from recipe values; unknown keys and wrong values are RecipeErrors with the full key."""
    values = renamed_keys(values, model, where, prefix)
    # Before pydantic, whose message for an unknown key offers no other; and a typo often makes a required key missing,
    # which would be told first.
    check_keys(values, model, where, prefix)
    try:
        return model.model_validate(absolute_paths(model, values, base))
    except ValidationError as error:
        first = error.errors()[0]
        key = prefix + ".".join(str(part) for part in first["loc"] if str(part).isalnum() or str(part).isidentifier())
        value_text = f" (got {first['input']!r})" if first["type"] not in ("missing", "value_error") else ""
        msg = f"{where}: {key or 'recipe'}: {first['msg'].removeprefix('Value error, ')}{value_text}"
        raise RecipeError(msg) from error


def check_keys(values: Mapping[str, Any], model: type[BaseModel], where: str, prefix: str) -> None:
    """Unknown keys at any depth, before types are looked at: a typo should be called a typo."""
    for key, value in values.items():
        if key not in model.model_fields:
            msg = f"{where}: unknown key '{prefix}{key}'. {nearest(key, model.model_fields)}"
            raise RecipeError(msg)
        inner = settings_type(model.model_fields[key].annotation)
        if inner is not None and isinstance(value, Mapping):
            check_keys(value, inner, where, f"{prefix}{key}.")


def settings_type(annotation: Any) -> type[BaseModel] | None:
    """The block of settings behind an annotation; not a method, whose keys only its own class knows."""
    for option in (annotation, *typing.get_args(annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel) and not issubclass(option, Method):
            return option
    return None


def absolute(value: Any, base: Path) -> Path:
    """Resolve a recipe path against the folder that its text remembers, else against ``base``."""
    start = value.base if isinstance(value, AnchoredText) else base
    path = Path(value).expanduser()
    return path if path.is_absolute() else Path(start / path).resolve()


def absolute_paths(model: type[BaseModel], values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Join relative paths to their base wherever a field takes a Path (and the text is no other choice of it)."""
    result = dict(values)
    for key, value in values.items():
        annotation = model.model_fields[key].annotation if key in model.model_fields else None
        options = {annotation, *typing.get_args(annotation)}
        literals = {choice for option in options for choice in typing.get_args(option) if isinstance(choice, str)}
        if isinstance(value, str | Path) and Path in options and str(value) not in literals:
            result[key] = str(absolute(value, base))
        elif isinstance(value, Mapping) and (inner := settings_type(annotation)) is not None:
            result[key] = absolute_paths(inner, value, base)
    return result
