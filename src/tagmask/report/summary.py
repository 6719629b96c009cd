"""The table at the end of a run: what was scored, on which split, in percent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tagmask.report.metrics_file import ABSENT, ERRORS, MEASURES, RULES, dig, mapping, miou, number, percent, scores

SUMMARY_HEADER = ("what", "void pixels", "train", "val")

_ROW_NAMES = {
    "maps": "activation maps, mIoU at best threshold",
    "refined_maps": "refined maps, mIoU at best threshold",
    "pseudo_masks": "pseudo masks, mIoU",
    "segmentation": "segmentation, mIoU",
    "segmentation_full": "full supervision, mIoU",
}
_SPLITS = ("train", "val")
_RULE_NAMES = {"void_ignored": "ignored", "void_background": "background"}


def summary_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows (what, void rule, train, val) of the closing table, see ``SUMMARY_HEADER``.

    Args:
        metrics: content of metrics.json; any part may be missing.

    Returns:
        Percent with one decimal, 'n/a' for what was not scored. The tags' row always; each measure under
        both void rules if it was scored anywhere; the ratio to full supervision in the val column.
    """
    rows = [("tags, mAP", "", ABSENT, percent(number(dig(metrics, "tags", "map"))))]
    tagged = number(dig(metrics, "tags", "auc_any"))
    if tagged is not None:
        rows.append(("tags, ROC AUC of images with any", "", ABSENT, percent(tagged)))
    for rule in RULES:
        for measure in MEASURES:
            train, val = (miou(metrics, split, measure, rule) for split in ("train", "val"))
            other_rules = (miou(metrics, split, measure, r) for split in ("train", "val") for r in RULES)
            if any(value is not None for value in other_rules):
                rows.append((_ROW_NAMES[measure], _RULE_NAMES[rule], percent(train), percent(val)))
            rows += _clean_rows(metrics, measure, rule)
        ratio = number(dig(metrics, "ratio_to_full", rule))
        if ratio is not None:
            rows.append(("segmentation / full supervision", _RULE_NAMES[rule], ABSENT, percent(ratio)))
    for split, entry in mapping(dig(metrics, "localization")).items():
        for key, title in ERRORS.items():
            value = number(dig(entry, key))
            if value is not None:
                both = (percent(value), ABSENT) if split == "train" else (ABSENT, percent(value))
                rows.append((f"boxes, {title} error", "", *both))
    return rows


def _clean_rows(metrics: Mapping[str, Any], measure: str, rule: str) -> list[tuple[str, str, str, str]]:
    """Images without an object, where a split has any: how many stay without a marked pixel."""
    values = [number(dig(scores(metrics, split, measure, rule), "image_level", "left_clean")) for split in _SPLITS]
    if all(value is None for value in values):
        return []
    what = _ROW_NAMES[measure].removesuffix(", mIoU")
    return [(f"{what}, clean images left clean", _RULE_NAMES[rule], percent(values[0]), percent(values[1]))]
