"""``key=value``: changes of a recipe on the command line.

Another method keeps what belongs to the stage; settings of the one whose place it takes are dropped with a warning.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tagmask.errors import RecipeError, nearest
from tagmask.registry.validation import anchor
from tagmask.settings.reading.merging import without_training
from tagmask.settings.reading.method_keys import AUTO, changed_settings, method_place, name_of, stage_keys
from tagmask.settings.refine import RefineSettings

Keys = tuple[str, ...]


class DroppedSettings(UserWarning):
    """An override put another method in the place of one whose settings had been changed."""


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> None:
    """Change the values of a recipe, in the order of the overrides.

    Args:
        raw: plain values, changed in place.
        overrides: such as 'classify.epochs=3', 'refine.threshold.value=0.3', 'retrain[0].freeze=6'.

    Raises:
        RecipeError: one is none, or steps into what has no keys.
    """
    typed: set[Keys] = set()
    # A preset starts its block afresh, so it comes before what is set beside it.
    for override in sorted(overrides, key=lambda text: not text.startswith("segment.preset=")):
        typed.add(_apply(raw, override, typed))


def key_parts(key: str) -> list[str]:
    """'retrain[0].freeze' and 'retrain.0.freeze' -> ['retrain', '0', 'freeze']; [] where it is no key."""
    parts: list[str] = []
    for part in key.strip().split("."):
        match = re.fullmatch(r"([^\[\]]+)((?:\[\d+\])*)", part)
        if match is None:
            return []
        parts += [match[1], *re.findall(r"\d+", match[2])]
    return parts


def _apply(raw: dict[str, Any], override: str, typed: set[Keys]) -> Keys:
    """Apply one override; returns its key, items of lists by their number."""
    key, equals, text = override.partition("=")
    keys = key_parts(key)
    if not equals or not keys:
        msg = f"'{override}' is not an override; write key=value, such as classify.epochs=3 or retrain[0].freeze=6"
        raise RecipeError(msg)
    value = anchor(_value(text), Path.cwd())
    if keys[0] == "retrain" and len(keys) > 1:
        raw.setdefault("retrain", [])
    # refine may be a name, a list or missing: only a list can be stepped into.
    if keys[0] == "refine" and len(keys) > 1:
        raw["refine"] = as_list(raw.get("refine") or list(RefineSettings.model_fields["chain"].default))
    # Settings written for another network's training would be mixed into the preset's.
    if keys == ["segment", "preset"]:
        raw["segment"] = without_training(raw.get("segment"))
    node: Any = raw
    path: Keys = ()
    for depth, part in enumerate(keys[:-1]):
        so_far = ".".join(keys[: depth + 1])
        path = (*path, str(_list_index(node, part, so_far)) if isinstance(node, list) else part)
        node = _step_into(node, path[-1], so_far)
    index: Any = _list_index(node, keys[-1], key.strip()) if isinstance(node, list) else keys[-1]
    path = (*path, str(index))
    if not _put_method(raw, path, value, override, typed):
        if keys[-1] == "epochs" and isinstance(node, dict):
            node.pop("iterations", None)  # as in merge
        node[index] = value
    return path


def _value(text: str) -> Any:
    try:
        # One sign alone is meant as it is (data.separator=' '); to YAML a blank is nothing and '|' an empty text.
        is_sign = len(text) == 1 and not text.isalnum() and text != "~"
        return text if is_sign else yaml.safe_load(text) if text.strip() else None
    except yaml.YAMLError:
        return text


def _put_method(raw: dict[str, Any], path: Keys, value: Any, override: str, typed: set[Keys]) -> bool:
    """Put a method, its name alone, or settings of it where a method stands.

    Returns:
        False, and nothing is done: none stands there, or the whole place is taken.
    """
    if path[-1] in ("name", "format") and isinstance(value, str) and len(path) > 1:
        path = path[:-1]
    place = method_place(raw, path)
    parent, index = _inside(raw, path)
    old = parent[index] if isinstance(parent, list) else parent.get(index)
    if place is None or not isinstance(old, dict) or not isinstance(value, str | dict):
        return False
    if place.kind == "data" and isinstance(value, dict):
        return False  # other data, not another format of the same
    before = name_of(old) or (AUTO if place.kind == "data" else place.default)
    after = name_of(value) or before
    if after == before and (isinstance(value, str) or name_of(value) is None):
        parent[index] = {**old, **(value if isinstance(value, dict) else {})}  # the same method keeps its settings
        return True
    new = {"format" if place.kind == "data" else "name": value} if isinstance(value, str) else value
    stays = stage_keys(place, path, before, str(after))
    own = [key for key in old if key not in ("name", "format", *stays) and (*path, key) not in _beginnings(typed)]
    parent[index] = {key: item for key, item in old.items() if key not in ("name", "format", *own)} | new
    changed = changed_settings(place.kind, {**old, "name": before}, [key for key in own if key not in new])
    if changed:
        text = f"{override}: settings of {before} are dropped: {', '.join(changed)}"
        warnings.warn(text, DroppedSettings, stacklevel=2)
    return True


def _inside(raw: dict[str, Any], path: Keys) -> tuple[Any, Any]:
    """The container of a key, and the key or number in it."""
    parent: Any = raw
    for part in path[:-1]:
        parent = parent[int(part)] if isinstance(parent, list) else parent[part]
    return parent, int(path[-1]) if isinstance(parent, list) else path[-1]


def _beginnings(typed: set[Keys]) -> set[Keys]:
    return {keys[:length] for keys in typed for length in range(1, len(keys) + 1)}


def _step_into(node: Any, part: str, so_far: str) -> Any:
    """The container behind one key; a method's short form ('cam') becomes {'name': 'cam'} on the way."""
    index: Any = int(part) if isinstance(node, list) else part
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
    names = [str(item.get("name", "")) if isinstance(item, dict) else str(item) for item in items]
    if part in names:
        return names.index(part)
    count = f"It has {len(items)} {'item' if len(items) == 1 else 'items'}, counted from 0."
    hint = count if part.isdecimal() or not all(names) else nearest(part, names)
    msg = f"{so_far}: no item '{part}' in the list. {hint}"
    raise RecipeError(msg)


def as_list(value: Any) -> list[Any]:
    """A list as it is, one value as a list of it, nothing as an empty one."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
