"""Recipes in YAML: reading, ``extends``, ``key=value`` overrides.

Unknown keys, methods and values are errors of one line that offer the nearest right name. Where relative paths start
from: docs/recipes.md, "Paths".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tagmask import registry
from tagmask.errors import RecipeError, nearest
from tagmask.registry import Kind
from tagmask.registry.validation import absolute, build_method, renamed_keys, validate_settings
from tagmask.settings.base import Settings
from tagmask.settings.classify import FIRST_ALONE, ClassifySettings, RetrainSettings
from tagmask.settings.localize import LocalizeSettings
from tagmask.settings.presets import with_preset
from tagmask.settings.reading.merging import merge, split_method
from tagmask.settings.reading.overrides import apply_overrides, as_list
from tagmask.settings.reading.places import starting_folder
from tagmask.settings.reading.yaml_files import read_yaml
from tagmask.settings.recipe import Recipe
from tagmask.settings.segment import SegmentSettings

__all__ = ["Recipe", "load_recipe"]


def load_recipe(source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``key=value`` overrides.

    Args:
        source: path of a YAML file, a mapping, or a recipe.
        overrides: dotted keys, values in YAML ("classify.epochs=3", "refine.threshold.value=0.3").

    Raises:
        RecipeError: one line with the key and the nearest right name.
    """
    return _build(*_written(source, overrides))


def written_values(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe file as it is written, ``extends`` and overrides merged in: plain values, defaults left out.

    Raises:
        RecipeError: the file cannot be read, or an override is none.
    """
    values: dict[str, Any] = _plain(_written(path, overrides)[0])
    return values


def run_name(text: str) -> str:
    """A name that a run can have, of any text."""
    return re.sub(r"[^\w.-]+", "-", text).strip(".-")[:100] or "run"


def _written(
    source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str]
) -> tuple[dict[str, Any], Path, str]:
    """Values with overrides, the folder that relative paths start from, and where they stand."""
    if isinstance(source, Recipe):
        raw, base, where = source.dump(), Path.cwd(), source.name
    elif isinstance(source, Mapping):
        raw, base, where = _plain(source), Path.cwd(), "recipe"
    else:
        path = Path(source)
        raw, base, where = read_yaml(path), starting_folder(path), str(path)
        raw.setdefault("name", run_name(path.stem))
    apply_overrides(raw, overrides)
    return raw, base, where


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _build(raw: dict[str, Any], base: Path, where: str) -> Recipe:
    values = dict(raw)
    for key in values:
        if key not in Recipe.model_fields:
            msg = f"{where}: unknown key '{key}'. {nearest(key, Recipe.model_fields)}"
            raise RecipeError(msg)
    values["data"] = _build_data(values.get("data", "partsworld"), base, where)
    if "localize" in values:
        localize = _with_study_list(values["localize"], values["data"])
        values["localize"] = split_method(localize, LocalizeSettings, "method")
    if "refine" in values:
        values["refine"] = {"chain": as_list(values["refine"])}
    values |= _trainings(values, base, where)
    if isinstance(values.get("segment"), dict):
        values["segment"] = with_preset(values["segment"])
    kinds: tuple[tuple[str, str, Kind, type[Settings]], ...] = (
        ("localize", "method", "localizer", LocalizeSettings),
        ("segment", "network", "network", SegmentSettings),
        ("segment", "loss", "loss", SegmentSettings),
        ("segment", "saliency", "saliency", SegmentSettings),
    )
    for section, key, kind, settings in kinds:
        block = values.get(section)
        if isinstance(block, dict) and block.get(key) is not None:
            prefix = section if key == "method" else f"{section}.{key}"
            method = block[key]
            if isinstance(method, dict):
                method = {"name": settings.model_fields[key].default, **method}
            if section == "localize":
                method = _checked_localizer(method, where)
            values[section] = {**block, key: build_method(kind, method, where=f"{where}: {prefix}", base=base)}
    if "refine" in values:
        values["refine"] = {
            "chain": tuple(
                build_method("refiner", item, where=f"{where}: refine", base=base) for item in values["refine"]["chain"]
            )
        }
    recipe: Recipe = validate_settings(Recipe, values, base, where, "")
    return recipe


def _trainings(values: Mapping[str, Any], base: Path, where: str) -> dict[str, Any]:
    """``classify`` and ``retrain`` with their heads built; each retraining stands on top of ``classify``."""
    first = values.get("classify")
    if not isinstance(first, dict):
        return {}
    result: dict[str, Any] = {"classify": _with_head(first, base, f"{where}: classify")}
    later = values.get("retrain", [])
    if not isinstance(later, list | tuple) or not all(isinstance(item, dict) for item in later):
        msg = f"{where}: retrain: expected a list of mappings such as [{{head: recam, epochs: 4}}], got {later!r}"
        raise RecipeError(msg)
    first = {key: value for key, value in first.items() if key not in FIRST_ALONE}
    result["retrain"] = tuple(
        validate_settings(
            RetrainSettings,
            _with_head(merge(first, item), base, f"{where}: retrain.{number}"),
            base,
            where,
            f"retrain.{number}.",
        )
        for number, item in enumerate(later)
    )
    return result


def _with_head(block: dict[str, Any], base: Path, where: str) -> dict[str, Any]:
    if "head" not in block:
        return block
    head = block["head"]
    if isinstance(head, dict):
        head = {"name": ClassifySettings.model_fields["head"].default, **head}
    return {**block, "head": build_method("head", head, where=f"{where}.head", base=base)}


def _with_study_list(localize: Any, data: Any) -> Any:
    """The block with its list of images as a path: a list belongs to the data, and starts from its folder."""
    name = localize.get("study_list") if isinstance(localize, Mapping) else None
    path = data.list_path(str(name)) if isinstance(name, str | Path) else None
    return localize if path is None else {**localize, "study_list": str(path.absolute())}


def _checked_localizer(method: Any, where: str) -> Any:
    """The method under today's names; its keys and the stage's stand side by side, so a typo may be one of either."""
    if not isinstance(method, dict) or not isinstance(method["name"], str):
        return method
    own: type[BaseModel] = registry.get("localizer", method["name"], where=f"{where}: localize")
    method = renamed_keys(method, own, where, "localize.")
    valid_keys = {*own.model_fields} | {*LocalizeSettings.model_fields} - {"method"}
    for key in method:
        if key not in valid_keys and key != "name":
            msg = f"{where}: unknown key 'localize.{key}'. {nearest(str(key), valid_keys)}"
            raise RecipeError(msg)
    return method


def _build_data(value: Any, base: Path, where: str) -> Any:
    if isinstance(value, BaseModel):
        return value
    if not isinstance(value, str | Mapping):
        msg = f"{where}: data: expected the name of a format or a mapping with 'format', got {value!r}"
        raise RecipeError(msg)
    settings = {"format": value} if isinstance(value, str) else dict(value)
    format_name = settings.pop("format", settings.pop("name", "auto"))
    if format_name == "auto":
        from tagmask.data.detect import detect_format

        root = settings.get("root")
        if root is None:
            msg = f"{where}: data.root is missing; name the folder of your images, or data.format=partsworld"
            raise RecipeError(msg)
        format_name = detect_format(absolute(root, base), settings)
    return build_method("data", {"name": format_name, **settings}, where=f"{where}: data", base=base)
