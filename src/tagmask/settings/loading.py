"""Recipes in YAML: reading, ``extends``, ``key=value`` overrides.

Unknown keys, methods and values are errors of one line that offer the nearest right name. Where relative paths start
from: docs/recipes.md, "Paths".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from tagmask import registry
from tagmask.errors import RecipeError, nearest
from tagmask.registry import Kind
from tagmask.registry.validation import absolute, anchor, build_method, renamed_keys, validate_settings
from tagmask.settings.base import Settings
from tagmask.settings.classify import FIRST_ALONE, ClassifySettings, RetrainSettings
from tagmask.settings.localize import LocalizeSettings
from tagmask.settings.places import starting_folder
from tagmask.settings.presets import with_preset
from tagmask.settings.recipe import Recipe
from tagmask.settings.refine import RefineSettings
from tagmask.settings.segment import SegmentSettings

__all__ = ["Recipe", "load_recipe"]


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Safe YAML in which no key may stand twice: the second would replace the first without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping, with each key once."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


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
        raw, base, where = _read_yaml(path), starting_folder(path), str(path)
        raw.setdefault("name", run_name(path.stem))
    # A preset starts its block afresh, so it comes before what is set beside it.
    for override in sorted(overrides, key=lambda text: not text.startswith("segment.preset=")):
        _apply_override(raw, override)
    return raw, base, where


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _read_yaml(path: Path, depth: int = 0) -> dict[str, Any]:
    """A YAML file as a mapping; ``extends: other.yaml`` is merged below it."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)  # a safe loader
    except OSError as error:
        msg = f"{path}: cannot read the recipe ({error.strerror}). Check the path, or see 'tagmask recipe list'."
        raise RecipeError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        msg = f"{path}: not valid YAML: {text}"
        raise RecipeError(msg) from error
    if not isinstance(raw, dict):
        msg = f"{path}: a recipe is a mapping of keys, this is {type(raw).__name__}"
        raise RecipeError(msg)
    values: dict[str, Any] = anchor(raw, starting_folder(path), path.resolve().parent)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if depth > 8:
        msg = f"{path}: 'extends' goes round in circles"
        raise RecipeError(msg)
    return _merge(_read_yaml(path.resolve().parent / str(parent), depth + 1), values)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    if "epochs" in above and "iterations" not in above:
        merged.pop("iterations", None)  # which would go before the epochs that are asked for here
    for key, value in above.items():
        old = merged.get(key)
        if not (isinstance(old, dict) and isinstance(value, dict)):
            merged[key] = value
        elif key == "localize" and "name" in value:
            # Another method takes over the scales, but not the settings of the one it replaces.
            section = old if old.get("name") == value["name"] else _split_method(old, LocalizeSettings, "method")
            merged[key] = _merge({name: item for name, item in section.items() if name != "method"}, value)
        elif "name" in value and value["name"] != old.get("name", value["name"]):
            merged[key] = value
        elif key == "segment" and value.get("preset", old.get("preset")) != old.get("preset"):
            merged[key] = {**_afresh(old), **value}
        else:
            merged[key] = _merge(old, value)
    return merged


def _afresh(segment: Any) -> dict[str, Any]:
    """What stays of a segment block when a preset takes its place: what is no setting of the training."""
    keys = ("supervision", "loss", "saliency", "confidence", "rounds", "relabel", "hand_made", "corrections")
    return {key: segment[key] for key in keys if key in segment} if isinstance(segment, dict) else {}


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        msg = f"'{override}' is not an override; write key=value, such as classify.epochs=3"
        raise RecipeError(msg)
    try:
        # One sign alone is meant as it is (data.separator=' '); to YAML a blank is nothing and '|' an empty text.
        is_sign = len(text) == 1 and not text.isalnum() and text != "~"
        value = text if is_sign else yaml.safe_load(text) if text.strip() else None
    except yaml.YAMLError:
        value = text
    value = anchor(value, Path.cwd())
    if keys[0] == "retrain" and len(keys) > 1:
        raw.setdefault("retrain", [])
    # refine may be a name, a list or missing: only a list can be stepped into.
    if keys[0] == "refine" and len(keys) > 1:
        raw["refine"] = _as_list(raw.get("refine") or list(RefineSettings.model_fields["chain"].default))
    # Settings written for another network's training would be mixed into the preset's.
    if keys == ["segment", "preset"]:
        raw["segment"] = _afresh(raw.get("segment"))
    node: Any = raw
    for depth, part in enumerate(keys[:-1]):
        node = _step_into(node, part, ".".join(keys[: depth + 1]))
    if isinstance(node, list):
        node[_list_index(node, keys[-1], key)] = value
    else:
        if keys[-1] == "epochs":
            node.pop("iterations", None)  # as in _merge
        node[keys[-1]] = value


def _step_into(node: Any, part: str, so_far: str) -> Any:
    """The container behind one key; a method's short form ('cam') becomes {'name': 'cam'} on the way."""
    index: Any = _list_index(node, part, so_far) if isinstance(node, list) else part
    child = node[index] if isinstance(node, list) else node.get(index)
    if child is None:
        child = {}
    elif isinstance(child, str):
        child = {"name": child}
    elif not isinstance(child, dict | list):
        msg = f"{so_far} holds the value {child!r} and has no keys below it"
        raise RecipeError(msg)
    node[index] = child
    return child


def _list_index(items: list[Any], part: str, so_far: str) -> int:
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    names = [str(item.get("name")) if isinstance(item, dict) else str(item) for item in items]
    if part in names:
        return names.index(part)
    msg = f"{so_far}: no item '{part}' in the list. {nearest(part, names)}"
    raise RecipeError(msg)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _build(raw: dict[str, Any], base: Path, where: str) -> Recipe:
    values = dict(raw)
    for key in values:
        if key not in Recipe.model_fields:
            msg = f"{where}: unknown key '{key}'. {nearest(key, Recipe.model_fields)}"
            raise RecipeError(msg)
    values["data"] = _build_data(values.get("data", "partsworld"), base, where)
    if "localize" in values:
        localize = _with_study_list(values["localize"], values["data"])
        values["localize"] = _split_method(localize, LocalizeSettings, "method")
    if "refine" in values:
        values["refine"] = {"chain": _as_list(values["refine"])}
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
            _with_head(_merge(first, item), base, f"{where}: retrain.{number}"),
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


def _split_method(value: Any, settings: type[Settings], key: str) -> dict[str, Any]:
    """{'name': 'cam', 'scales': ..., own settings} -> {'method': {'name': 'cam', own}, 'scales': ...}."""
    if not isinstance(value, dict):
        return {key: value}
    stage = {name: item for name, item in value.items() if name in settings.model_fields and name != key}
    return {key: {name: item for name, item in value.items() if name not in stage}, **stage}


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
