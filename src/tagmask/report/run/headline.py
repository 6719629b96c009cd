"""The first thing on the page: the scores as cards, and what they mean in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tagmask.report.metrics_file import (
    ERRORS,
    MEASURES,
    RULES,
    dig,
    localization_of,
    miou,
    number,
    percent,
    rules,
    scores,
    splits,
)
from tagmask.report.run.facts import Facts

#: What to show when there is room for one measure: the end of the pipeline first.
FURTHEST = ("segmentation", "pseudo_masks", "refined_maps", "maps", "segmentation_full")
COLOURS = {
    "tags": "var(--tags)",
    "maps": "var(--maps)",
    "refined_maps": "var(--refined)",
    "pseudo_masks": "var(--pseudo)",
    "segmentation": "var(--seg)",
    "segmentation_full": "var(--full)",
    "full_ratio": "var(--ink-2)",
}


@dataclass(frozen=True, slots=True)
class Card:
    """One headline score: ``values`` are (split, percent) pairs, the main one last; ``beside``
    tells the same under other rules, the main one first."""

    title: str
    colour: str
    values: tuple[tuple[str, str], ...]
    note: str = ""
    beside: tuple[str, ...] = ()


def cards(facts: Facts) -> list[Card]:
    """Tags, then every measure that was scored, then the ratio to full supervision."""
    metrics = facts.metrics
    result = []
    tag_map = number(dig(metrics, "tags", "map"))
    if tag_map is not None:
        result.append(Card("Tags", COLOURS["tags"], (("val", percent(tag_map)),), "mean average precision"))
    void_rules = rules(metrics)
    for measure, title in MEASURES.items():
        values = _values(metrics, measure, void_rules[0]) if void_rules else ()
        if values:
            beside = tuple(_beside(metrics, measure, rule) for rule in void_rules[1:])
            result.append(Card(title, COLOURS[measure], values, _note(metrics, measure), beside))
    split, localization = localization_of(metrics)
    if split:
        beside = tuple(
            f"{title}: {percent(number(localization[key]))}" for key, title in ERRORS.items() if key in localization
        )
        value = ((split, f"{percent(number(localization['gt_known']))} %"),)
        result.append(Card("Localisation", COLOURS["maps"], value, "GT-known error of boxes", beside[1:]))
    ratio = number(dig(metrics, "ratio_to_full", void_rules[0])) if void_rules else None
    if ratio is not None:
        others = ((RULES[rule], number(dig(metrics, "ratio_to_full", rule))) for rule in void_rules[1:])
        beside = tuple(f"{name}: {percent(value)} %" for name, value in others if value is not None)
        value = (("", f"{percent(ratio)} %"),)
        result.append(Card("Ratio to full", COLOURS["full_ratio"], value, "of full supervision's mIoU", beside))
    return result


def _values(metrics: Any, measure: str, rule: str) -> tuple[tuple[str, str], ...]:
    pairs = ((split, miou(metrics, split, measure, rule)) for split in splits(metrics))
    return tuple((split, percent(value)) for split, value in pairs if value is not None)


def _beside(metrics: Any, measure: str, rule: str) -> str:
    values = " / ".join(value for _, value in reversed(_values(metrics, measure, rule))) or "n/a"
    return f"{RULES[rule]}: {values}"


def _note(metrics: Any, measure: str) -> str:
    return "mIoU at best threshold" if measure in ("maps", "refined_maps") else "mIoU"


def no_masks(facts: Facts) -> str:
    """Why there is no mIoU, '' if there is one."""
    if rules(facts.metrics):
        return ""
    reason = facts.metrics.get("without_masks")
    if reason:
        return f"No masks, no mIoU. {reason}"
    if not facts.metrics:
        return "This run has not been evaluated yet, so there are no scores."
    return "No masks, no mIoU: there was nothing to compare the results with."


def sentences(facts: Facts) -> list[str]:
    """What the scores mean, for someone who has not read the papers."""
    metrics, void_rules = facts.metrics, rules(facts.metrics)
    if not void_rules:
        tag_map = number(dig(metrics, "tags", "map"))
        if tag_map is None:
            return []
        return [
            f"The tags of val images are ranked with a mean average precision of {percent(tag_map)}; 100 is perfect."
        ]
    rule = void_rules[0]
    texts = _result(metrics, rule)
    measure, split = _furthest(metrics, rule)
    entry = scores(metrics, split, measure, rule)
    texts += _extremes(entry, split)
    texts += _clean(entry, split)
    beside = [r for r in void_rules if r != rule]
    if beside:
        strict = miou(metrics, split, measure, beside[0])
        usual = miou(metrics, split, measure, rule)
        if strict is not None and usual is not None and usual - strict > 0.02:
            texts.append(
                f"Counting unlabelled pixels as background costs {100 * (usual - strict):.1f} points: part of what "
                "is marked lies where nobody drew a label."
            )
    return texts


def _result(metrics: Any, rule: str) -> list[str]:
    model, full = (miou(metrics, "val", measure, rule) for measure in ("segmentation", "segmentation_full"))
    start = miou(metrics, "val", "maps", rule)
    texts = []
    if model is not None:
        text = f"From image tags alone, the segmentation model reaches {percent(model)} mIoU on val"
        if full is not None and full > 0:
            text += f", {100 * model / full:.0f} % of the {percent(full)} that the same network reaches with real masks"
        texts.append(text + ".")
        if start is not None:
            gain = 100 * (model - start)
            texts.append(f"That is {abs(gain):.1f} points {'above' if gain >= 0 else 'below'} the maps it grew from.")
    else:
        measure, split = _furthest(metrics, rule)
        value = percent(miou(metrics, split, measure, rule))
        texts.append(f"{MEASURES[measure]} reach {value} mIoU on {split}; no segmentation model was scored.")
    texts.append("mIoU says how well found and true areas overlap, averaged over classes: 100 is perfect.")
    return texts


def _furthest(metrics: Any, rule: str) -> tuple[str, str]:
    """The last measure of the pipeline that was scored, and a split it was scored on (val if possible)."""
    for measure in FURTHEST:
        for split in ("val", *splits(metrics)):
            if miou(metrics, split, measure, rule) is not None:
                return measure, split
    return "segmentation", "val"


def _extremes(entry: Mapping[str, Any], split: str) -> list[str]:
    iou = entry.get("iou")
    if not isinstance(iou, Mapping):
        return []
    names = [(number(value), str(name)) for name, value in list(iou.items())[1:]]
    ranked = sorted((value, name) for value, name in names if value is not None)
    if len(ranked) < 2:
        return []
    count = min(3, len(ranked) // 2)
    best = ", ".join(f"{name} ({percent(value)})" for value, name in ranked[::-1][:count])
    worst = ", ".join(f"{name} ({percent(value)})" for value, name in ranked[:count])
    return [f"Easiest on {split}: {best}. Hardest: {worst}."]


def _clean(entry: Mapping[str, Any], split: str) -> list[str]:
    """Images without an object, if the split has any."""
    images, share = (number(dig(entry, "image_level", key)) for key in ("clean_images", "left_clean"))
    if not images or share is None:
        return []
    area, auc = (number(dig(entry, "image_level", key)) for key in ("false_alarm_area", "auc_any"))
    return [
        f"Of the {images:.0f} images of {split} without an object {percent(share)} % are left clean; "
        f"{percent(area)} % of their area is marked. Images with and without an object are told apart with a ROC AUC "
        f"of {percent(auc)}."
    ]
