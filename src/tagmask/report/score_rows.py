"""All single scores of some scores objects side by side, as rows for a terminal or a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tagmask.report.metrics_file import dig, mapping, number, percent

#: What people call a score -> where it stands in a scores object.
SCORES: Mapping[str, tuple[str, ...]] = {
    "mIoU": ("miou",),
    "mIoU of the objects": ("miou_foreground",),
    "pixel accuracy": ("pixel_accuracy",),
    "precision, mean of classes": ("mean_precision",),
    "recall, mean of classes": ("mean_recall",),
    "F1, mean of classes": ("mean_f1",),
    "boundary mIoU": ("boundary", "miou"),
    "trimap mIoU": ("boundary", "trimap_miou"),
    "TP (ReCAM)": ("recam_errors", "tp"),
    "FP of objects (ReCAM)": ("recam_errors", "fp_object"),
    "FN (ReCAM)": ("recam_errors", "fn"),
    "FP of background (ReCAM)": ("recam_errors", "fp_background"),
    "right, of all pixels": ("errors", "right"),
    "object as another object": ("errors", "object_as_object"),
    "object as background": ("errors", "object_as_background"),
    "background as object": ("errors", "background_as_object"),
    "clean images left clean": ("image_level", "left_clean"),
    "images with an object noticed": ("image_level", "objects_noticed"),
    "false alarms, of the area of clean images": ("image_level", "false_alarm_area"),
    "ROC AUC of images, any class": ("image_level", "auc_any"),
    "ROC AUC of images, mean of classes": ("image_level", "auc_mean"),
    "calibration error of the scores": ("calibration", "ece"),
    "calibration error of the labels": ("calibration", "label_ece"),
}


def score_rows(columns: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """(score, percent in each column) of everything that at least one of them has.

    Args:
        columns: scores objects (docs/artifacts.md): other void rules, other measures, other splits.
    """
    rows = [(title, *_values(columns, *keys)) for title, keys in SCORES.items()]
    for group in _groups(columns, "by_class_count"):
        noun = "class" if group == "1" else "classes"
        rows.append((f"mIoU, images with {group} {noun}", *_values(columns, "by_class_count", group)))
    for part in ("shares", "quarters"):
        for group in _groups(columns, "by_object_size", part):
            rows.append((f"mIoU, objects {group}", *_values(columns, "by_object_size", part, group, "miou")))
    for name in _groups(columns, "image_level", "auc"):
        rows.append((f"ROC AUC of images, {name}", *_values(columns, "image_level", "auc", name)))
    absent = percent(None)
    return [row for row in rows if any(value != absent for value in row[1:])]


def _values(columns: Sequence[Mapping[str, Any]], *keys: str) -> tuple[str, ...]:
    return tuple(percent(number(dig(column, *keys))) for column in columns)


def _groups(columns: Sequence[Mapping[str, Any]], *keys: str) -> list[str]:
    return list(dict.fromkeys(str(group) for column in columns for group in mapping(dig(column, *keys))))
