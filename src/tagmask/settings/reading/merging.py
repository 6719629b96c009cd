"""A recipe's blocks over those of the recipe that it extends: another method leaves the old one's settings behind."""

from __future__ import annotations

from typing import Any

from tagmask.settings.base import Settings
from tagmask.settings.localize import LocalizeSettings


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings, ``above`` wins."""
    merged = dict(below)
    if "epochs" in above and "iterations" not in above:
        merged.pop("iterations", None)  # which would go before the epochs that are asked for here
    for key, value in above.items():
        old = merged.get(key)
        if key == "localize" and isinstance(old, dict) and isinstance(value, str):
            value = {"name": value}
        if not (isinstance(old, dict) and isinstance(value, dict)):
            merged[key] = value
        elif key == "localize" and "name" in value:
            # Another method takes over the scales, but not the settings of the one it replaces.
            section = old if old.get("name") == value["name"] else split_method(old, LocalizeSettings, "method")
            merged[key] = merge({name: item for name, item in section.items() if name != "method"}, value)
        elif "name" in value and value["name"] != old.get("name", value["name"]):
            merged[key] = value
        elif key == "segment" and value.get("preset", old.get("preset")) != old.get("preset"):
            merged[key] = {**without_training(old), **value}
        else:
            merged[key] = merge(old, value)
    return merged


def without_training(segment: Any) -> dict[str, Any]:
    """What stays of a segment block when a preset takes its place: what is no setting of the training."""
    keys = ("supervision", "loss", "saliency", "confidence", "rounds", "relabel", "hand_made", "corrections")
    return {key: segment[key] for key in keys if key in segment} if isinstance(segment, dict) else {}


def split_method(value: Any, settings: type[Settings], key: str) -> dict[str, Any]:
    """{'name': 'cam', 'scales': ..., own settings} -> {'method': {'name': 'cam', own}, 'scales': ...}."""
    if not isinstance(value, dict):
        return {key: value}
    stage = {name: item for name, item in value.items() if name in settings.model_fields and name != key}
    return {key: {name: item for name, item in value.items() if name not in stage}, **stage}
