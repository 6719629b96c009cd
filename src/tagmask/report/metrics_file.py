"""Reading metrics.json (docs/artifacts.md) without trusting it: a part that is missing or odd is None."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

ABSENT = "n/a"

#: Key in metrics.json -> what people call it, in the order of the pipeline.
MEASURES: Mapping[str, str] = {
    "maps": "Activation maps",
    "refined_maps": "Refined maps",
    "pseudo_masks": "Pseudo masks",
    "segmentation": "Segmentation",
    "segmentation_full": "Full supervision",
}

#: Key in metrics.json -> what happens to void (255) pixels of the ground truth.
RULES: Mapping[str, str] = {"void_ignored": "void ignored", "void_background": "void as background"}

#: Errors of object localisation, key in metrics.json -> name.
ERRORS: Mapping[str, str] = {"gt_known": "GT-known", "top1": "Top-1", "top5": "Top-5"}


def number(value: Any) -> float | None:
    """A finite number as float; everything else (None, NaN, text, bool) as None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def dig(tree: Any, *keys: str) -> Any:
    """``tree[k0][k1]...`` or None as soon as one step is not a mapping or lacks the key."""
    for key in keys:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(key)
    return tree


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def scores(metrics: Any, split: str, measure: str, rule: str) -> Mapping[str, Any]:
    """One scores object, empty when it is not there."""
    return mapping(dig(metrics, "splits", split, measure, rule))


def miou(metrics: Any, split: str, measure: str, rule: str) -> float | None:
    """Mean IoU in [0, 1] of one measure on one split, or None."""
    return number(scores(metrics, split, measure, rule).get("miou"))


def localization_of(metrics: Any) -> tuple[str, Mapping[str, Any]]:
    """The split whose objects were localised and its ``localization`` object; ('', {}) without."""
    for split, entry in mapping(dig(metrics, "localization")).items():
        if number(dig(entry, "gt_known")) is not None:
            return str(split), mapping(entry)
    return "", {}


def splits(metrics: Any) -> tuple[str, ...]:
    """Splits that were scored: train and val first, then any other in the file's order."""
    present = mapping(dig(metrics, "splits"))
    usual = [split for split in ("train", "val") if split in present]
    return (*usual, *(split for split in present if split not in usual))


def rules(metrics: Any) -> tuple[str, ...]:
    """The void rules for which at least one mean IoU exists."""
    return tuple(
        rule
        for rule in RULES
        if any(miou(metrics, split, measure, rule) is not None for split in splits(metrics) for measure in MEASURES)
    )


def percent(value: float | None) -> str:
    """A fraction as percent with one decimal, 'n/a' for None."""
    return ABSENT if value is None else f"{100 * value:.1f}"
