"""The lists of the page: scores per class, average precision of tags, errors, stages, environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tagmask.progress.listeners import duration
from tagmask.report.metrics_file import MEASURES, RULES, dig, mapping, number, percent, rules, scores, splits
from tagmask.report.run.facts import TRAINED, Facts
from tagmask.report.run.headline import COLOURS, FURTHEST
from tagmask.runs.stage_names import CLASSIFY, family
from tagmask.types import DataSource

NEVER_LEARNT = 0.1


@dataclass(frozen=True, slots=True)
class Panel:
    """IoU, precision and recall of every class under one (measure, split, rule); values in percent or None."""

    key: str
    measure: str
    split: str
    rule: str
    colour: str
    title: str
    mean: str
    rows: tuple[tuple[float | None, float | None, float | None], ...]


def class_panels(facts: Facts) -> list[Panel]:
    """One panel for each scores object of metrics.json; the segmentation on val comes first if it is there."""
    panels = []
    for split in splits(facts.metrics):
        for measure, title in MEASURES.items():
            for rule in rules(facts.metrics):
                entry = scores(facts.metrics, split, measure, rule)
                if not isinstance(entry.get("iou"), Mapping):
                    continue
                rows = tuple(
                    (_value(entry, "iou", name), _value(entry, "precision", name), _value(entry, "recall", name))
                    for name in facts.classes
                )
                key = f"{measure}.{split}.{rule}"
                mean = percent(number(entry.get("miou")))
                heading = f"{title}, {split}, {RULES[rule]}"
                panels.append(Panel(key, measure, split, rule, COLOURS[measure], heading, mean, rows))
    panels.sort(key=lambda panel: (FURTHEST.index(panel.measure), panel.split != "val", panel.rule != "void_ignored"))
    return panels


def _value(entry: Mapping[str, Any], what: str, name: str) -> float | None:
    value = number(dig(entry, what, name))
    return None if value is None else round(100 * value, 1)


@dataclass(frozen=True, slots=True)
class TagRow:
    """Average precision of one class in percent; ``warning`` says what is wrong, '' if nothing."""

    name: str
    value: float | None
    warning: str


def tag_rows(facts: Facts, source: DataSource | None) -> list[TagRow]:
    """Average precision per class, with a warning for each class that was not learnt.

    A class counts as never learnt when its average precision is below 10 %, or not half above what
    guessing gives, which is the share of val images that carry the tag.
    """
    table = mapping(dig(facts.metrics, "tags", "ap")) or _last_ap(facts)
    chance = _share_of_images(facts, source)
    rows = []
    for name in facts.classes[1:] or tuple(table):
        if name not in table:
            continue
        value = number(table[name])
        warning = ""
        if value is None:
            warning = "no val image has this tag"
        elif value < max(NEVER_LEARNT, min(1.5 * chance.get(name, 0.0), 0.5)):
            warning = "never learnt"
        rows.append(TagRow(name, None if value is None else round(100 * value, 1), warning))
    return rows


def _last_ap(facts: Facts) -> Mapping[str, Any]:
    """The newest validation in the classifier's history, for a run that was not evaluated."""
    *_, last = (history for stage, history in facts.histories.items() if family(stage) == CLASSIFY)
    tables = [line["val_ap"] for line in last if "val_ap" in line]
    return mapping(tables[-1]) if tables else {}


def _share_of_images(facts: Facts, source: DataSource | None) -> dict[str, float]:
    samples = source.splits.get("val", ()) if source is not None else ()
    counts = [0] * len(facts.classes)
    for sample in samples:
        for tag in sample.tags:
            if 0 <= tag < len(counts):
                counts[tag] += 1
    return {name: count / len(samples) for name, count in zip(facts.classes, counts, strict=True) if samples}


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """Where the foreground goes, in percent of the union of found and true: right, spilled over, missed."""

    title: str
    right: float
    spill: float
    miss: float


def error_rows(facts: Facts) -> list[ErrorRow]:
    """One row per measure and split that has an error decomposition (void ignored)."""
    void_rules = rules(facts.metrics)
    rows = []
    for measure, title in MEASURES.items():
        for split in splits(facts.metrics) if void_rules else ():
            entry = scores(facts.metrics, split, measure, void_rules[0])
            spill, miss = (number(dig(entry, "errors", key)) for key in ("fp", "fn"))
            right = number(entry.get("miou_foreground"))
            if spill is not None and miss is not None and right is not None:
                rows.append(ErrorRow(f"{title}, {split}", 100 * right, 100 * spill, 100 * miss))
    return rows


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage: status, time as text and as share of the slowest, memory likewise, throughput, reason."""

    name: str
    status: str
    time: str
    time_share: float
    memory: str
    memory_share: float
    images: str
    rate: str
    reason: str


def stage_rows(facts: Facts) -> list[StageRow]:
    """The stages in the order of the manifest."""
    stages = {str(name): mapping(entry) for name, entry in mapping(facts.manifest.get("stages")).items()}
    longest = max((number(entry.get("seconds")) or 0.0 for entry in stages.values()), default=0.0)
    largest = max((number(entry.get("peak_memory_mb")) or 0.0 for entry in stages.values()), default=0.0)
    rows = []
    for name, entry in stages.items():
        seconds, memory = number(entry.get("seconds")), number(entry.get("peak_memory_mb"))
        images = number(entry.get("images"))
        rows.append(
            StageRow(
                name=name,
                status=str(entry.get("status") or "unknown"),
                time="" if seconds is None else stage_time(seconds),
                time_share=100 * (seconds or 0.0) / longest if longest else 0.0,
                memory="" if memory is None else megabytes(memory),
                memory_share=100 * (memory or 0.0) / largest if largest else 0.0,
                images="" if images is None else f"{images:,.0f}",
                # A trained stage sees each image many times: images over seconds would say nothing.
                rate=f"{images / seconds:.3g}" if images and seconds and name not in TRAINED else "",
                reason=str(entry.get("reason") or ""),
            )
        )
    return rows


def stage_time(seconds: float) -> str:
    """4.2 -> '4.2 s'; a minute and more as progress tells it: 75 -> '1 min 15 s', 3725 -> '1 h 02 min'."""
    return f"{seconds:.1f} s" if seconds < 59.95 else duration(seconds)


def megabytes(value: float) -> str:
    """812 -> '812 MB', 2048 -> '2.0 GB'."""
    return f"{value:.0f} MB" if value < 1000 else f"{value / 1024:.1f} GB"


def flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as ('a.b', 'value') rows."""
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        else:
            text = ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
            rows.append((f"{prefix}{key}", text))
    return rows
