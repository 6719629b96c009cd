"""The charts of the page: from the facts of a run to SVG with a title and a legend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tagmask.report.metrics_file import MEASURES, dig, mapping, number, percent, rules, scores, splits
from tagmask.report.run.facts import Facts, History, trainings
from tagmask.report.run.headline import COLOURS, FURTHEST
from tagmask.report.svg import Marker, Series, grouped_bars, heat_matrix, line_chart, smooth, thin
from tagmask.runs.stage_names import CLASSIFY, SEGMENT, SEGMENT_FULL, family

_SPLIT_COLOURS = {"train": "var(--train)", "val": "var(--val)"}
_OTHER_SPLIT = "var(--other)"


@dataclass(frozen=True, slots=True)
class Chart:
    """An SVG with its title and legend entries (CSS colour, text)."""

    title: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()


def threshold_charts(facts: Facts) -> list[Chart]:
    """mIoU over the background threshold, for the maps and the refined maps, and how it was chosen.

    One line per split with its best marked. The threshold of the run is marked on the maps it was applied
    to: the refined ones where there are any.
    """
    charts = []
    applied = "refined_maps" if _curves(facts, "refined_maps") else "maps"
    for measure in ("maps", "refined_maps"):
        chart = _threshold_chart(facts, measure, mark_threshold=measure == applied)
        if chart is not None:
            charts.append(chart)
    statistic = _statistic_chart(facts)
    return [*charts, statistic] if statistic is not None else charts


def _curves(facts: Facts, measure: str) -> list[tuple[str, list[tuple[float, float]]]]:
    """(split, points) of every split that has a threshold curve."""
    void_rules = rules(facts.metrics)
    curves = []
    for split in splits(facts.metrics) if void_rules else ():
        curve = dig(scores(facts.metrics, split, measure, void_rules[0]), "threshold_curve")
        points = _pairs(dig(curve, "thresholds"), dig(curve, "miou"))
        if points:
            curves.append((split, points))
    return curves


def _threshold_chart(facts: Facts, measure: str, *, mark_threshold: bool) -> Chart | None:
    series, markers, legend = [], [], []
    for split, points in _curves(facts, measure):
        x, y = [a for a, _ in points], [100 * b for _, b in points]
        colour = _SPLIT_COLOURS.get(split, _OTHER_SPLIT)
        series.append(Series(split, x, y, colour))
        best = max(range(len(y)), key=y.__getitem__)
        markers.append(Marker(x[best], f"best on {split}: {y[best]:.1f} at {x[best]:.2f}", colour, y[best]))
        legend.append((colour, f"{split}: best {y[best]:.1f} at {x[best]:.2f}"))
    if not series:
        return None
    svg = line_chart(
        series,
        label=f"mIoU of the {MEASURES[measure].lower()} at each threshold",
        x_label="background threshold",
        y_label="mIoU",
        markers=[*markers, *(_threshold_markers(facts) if mark_threshold else ())],
        y_range=(0.0, max(max(line.y) for line in series) * 1.12),
    )
    return Chart(
        f"{MEASURES[measure]} at each threshold", svg, (*legend, *(_exceptions(facts) if mark_threshold else ()))
    )


def _exceptions(facts: Facts) -> list[tuple[str, str]]:
    """Legend entries of classes with a threshold of their own, and of the band that is ignored."""
    thresholds = facts.thresholds
    own = ((str(name), number(value)) for name, value in mapping(thresholds.get("per_class")).items())
    entries = [("var(--ink-2)", f"{name}: {value:.2f}") for name, value in own if value is not None]
    band = thresholds.get("band")
    margins = [number(value) for value in band] if isinstance(band, list) and len(band) == 2 else []
    if margins and None not in margins:
        entries.append(("var(--ink-2)", f"ignored: {margins[0]:.2f} below to {margins[1]:.2f} above the threshold"))
    return entries


def _threshold_markers(facts: Facts) -> list[Marker]:
    """The threshold of the run, as a vertical line."""
    value = number(dig(facts.metrics, "threshold", "value"))
    value = number(facts.thresholds.get("value")) if value is None else value
    rule = dig(facts.metrics, "threshold", "rule") or facts.thresholds.get("rule") or "chosen"
    return [] if value is None else [Marker(value, f"{rule} {value:.2f}", "var(--ink-2)")]


def _statistic_chart(facts: Facts) -> Chart | None:
    """The statistic that chose the threshold without any mask, where the run kept its curve."""
    curve = mapping(facts.thresholds.get("curve"))
    name = str(facts.thresholds.get("statistic") or "statistic")
    values = next((value for key, value in curve.items() if key != "thresholds"), None)
    points = _pairs(curve.get("thresholds"), values)
    if not points:
        return None
    x, y = [a for a, _ in points], [b for _, b in points]
    svg = line_chart(
        [Series(name, x, y, "var(--tags)")],
        label=f"{name} at each threshold",
        x_label="background threshold",
        y_label=name,
        markers=_threshold_markers(facts),
        digits=4,
    )
    return Chart("How the threshold was chosen, without any mask", svg, (("var(--tags)", name),))


def _pairs(xs: Any, ys: Any) -> list[tuple[float, float]]:
    """Points with both numbers present."""
    if not isinstance(xs, list) or not isinstance(ys, list):
        return []
    both = ((number(x), number(y)) for x, y in zip(xs, ys, strict=False))
    return [(x, y) for x, y in both if x is not None and y is not None]


def training_charts(facts: Facts) -> list[Chart]:
    """Loss of every trained stage, and the classifier's validation mAP."""
    charts = []
    colours = {CLASSIFY: "tags", SEGMENT: "segmentation", SEGMENT_FULL: "segmentation_full"}
    for stage, title in trainings(facts.manifest).items():
        history = facts.histories.get(stage, ())
        colour = COLOURS[colours.get(stage, "tags")]
        chart = _loss_chart(history, f"{title}: loss", colour)
        if chart is not None:
            charts.append(chart)
        if family(stage) == CLASSIFY:
            points = _points(history, "val_map")
            x, y = [step for step, _ in points], [100 * value for _, value in points]
            svg = line_chart(
                [Series("val mAP", x, y, colour)],
                label="mean average precision of the tags on val over training",
                x_label="step",
                y_label="mAP (%)",
                markers=[Marker(a, f"step {a:g}: {b:.1f}", colour, b) for a, b in zip(x, y, strict=True)][-40:],
            )
            if svg:
                training = [f", training images {100 * value:.1f}" for _, value in _points(history, "train_map")][-1:]
                charts.append(Chart(f"{title}: val mAP", svg, ((colour, "".join([f"last {y[-1]:.1f}", *training])),)))
    return charts


def _points(history: History, key: str) -> list[tuple[float, float]]:
    pairs = ((number(line.get("step")), number(line.get(key))) for line in history)
    return [(step, value) for step, value in pairs if step is not None and value is not None]


def _loss_chart(history: History, title: str, colour: str) -> Chart | None:
    points = _points(history, "loss")
    if not points:
        return None
    x, y = [step for step, _ in points], [value for _, value in points]
    series = [Series("smoothed", *thin(x, smooth(y)), colour)]
    if len(x) > 1:
        series.append(Series("loss", *thin(x, y), colour, faint=True))
    svg = line_chart(series, label=title, x_label="step", y_label="loss", digits=4)
    tail = y[-max(len(y) // 20, 1) :]
    return Chart(title, svg, ((colour, f"smoothed; mean of the last {len(tail)}: {sum(tail) / len(tail):.3f}"),))


def count_chart(facts: Facts) -> Chart | None:
    """Mean IoU by the number of classes in the image, every measure of the split that has most of them."""
    return _group_chart(
        facts,
        lambda entry: mapping(entry.get("by_class_count")),
        title="By number of classes in the image",
        x_label="classes in the image",
    )


def size_chart(facts: Facts) -> Chart | None:
    """Mean IoU by the share of the image that the object covers, likewise."""

    def groups(entry: Mapping[str, Any]) -> Mapping[str, Any]:
        shares = mapping(dig(entry, "by_object_size", "shares"))
        return {group: dig(values, "miou") for group, values in shares.items()}

    return _group_chart(facts, groups, title="By size of the object", x_label="share of the image")


def _group_chart(
    facts: Facts, groups_of: Callable[[Mapping[str, Any]], Mapping[str, Any]], *, title: str, x_label: str
) -> Chart | None:
    """Bars of every measure, by the groups of its scores object."""
    void_rules = rules(facts.metrics)
    best: tuple[str, list[tuple[str, str, Sequence[float | None]]], list[str]] | None = None
    for split in reversed(splits(facts.metrics)) if void_rules else ():
        tables = {m: groups_of(scores(facts.metrics, split, m, void_rules[0])) for m in MEASURES}
        groups = [
            group
            for group in dict.fromkeys(group for table in tables.values() for group in table)
            if any(number(table.get(group)) is not None for table in tables.values())
        ]
        rows: list[tuple[str, str, Sequence[float | None]]] = []
        for measure, table in tables.items():
            values = [number(table.get(group)) for group in groups]
            if any(value is not None for value in values):
                in_percent = [None if value is None else 100 * value for value in values]
                rows.append((MEASURES[measure], COLOURS[measure], in_percent))
        if rows and (best is None or len(rows) > len(best[1])):
            best = split, rows, groups
    if best is None:
        return None
    split, rows, groups = best
    svg = grouped_bars(groups, rows, label=f"mIoU {title.lower()}, {split}", x_label=x_label, y_label="mIoU")
    return Chart(f"{title} ({split})", svg, tuple((colour, name) for name, colour, _ in rows))


def calibration_chart(facts: Facts) -> Chart | None:
    """Share of right pixels at each score of the maps that masks are made of; on the diagonal a score is true."""
    void_rules = rules(facts.metrics)
    for measure in ("refined_maps", "maps") if void_rules else ():
        series, legend = [], []
        for split in splits(facts.metrics):
            calibration = mapping(scores(facts.metrics, split, measure, void_rules[0]).get("calibration"))
            points = _pairs(calibration.get("confidence"), calibration.get("accuracy"))
            if points:
                colour = _SPLIT_COLOURS.get(split, _OTHER_SPLIT)
                x, y = zip(*points, strict=True)
                series.append(Series(split, x, [100 * value for value in y], colour))
                legend.append((colour, f"{split}: calibration error {percent(number(calibration.get('ece')))}"))
        if series:
            svg = line_chart(
                [*series, Series("as it says", [0, 1], [0, 100], "var(--ink-2)", faint=True, dashed=True)],
                label=f"share of right pixels at each score of the {MEASURES[measure].lower()}",
                x_label="score of the strongest map",
                y_label="pixels of its class (%)",
                x_range=(0.0, 1.0),
                y_range=(0.0, 100.0),
            )
            return Chart(f"{MEASURES[measure]}: what a score means", svg, tuple(legend))
    return None


@dataclass(frozen=True, slots=True)
class Confusion:
    """The heat map and the most frequent mistakes (true class, predicted class, percent of the true area)."""

    what: str
    svg: str
    mistakes: tuple[tuple[str, str, str], ...]


def confusion(facts: Facts) -> Confusion | None:
    """Confusion of the furthest measure that has one, each row as shares of the true class."""
    void_rules = rules(facts.metrics)
    for measure in FURTHEST if void_rules else ():
        for split in reversed(splits(facts.metrics)):
            rows = _shares(scores(facts.metrics, split, measure, void_rules[0]).get("confusion"))
            names = facts.classes
            if not rows or len(rows) != len(names):
                continue
            wrong = sorted(
                (
                    (share, i, j)
                    for i, row in enumerate(rows)
                    for j, share in enumerate(row)
                    if share is not None and i != j and share >= 0.01
                ),
                reverse=True,
            )
            mistakes = tuple((names[i], names[j], percent(share)) for share, i, j in wrong[:8])
            label = f"confusion matrix of {MEASURES[measure].lower()} on {split}"
            return Confusion(f"{MEASURES[measure]}, {split}", heat_matrix(rows, names, label=label), mistakes)
    return None


def _shares(matrix: Any) -> list[list[float | None]]:
    """Rows of counts divided by their sums, [] unless it is a square of numbers."""
    if not isinstance(matrix, list) or not all(isinstance(r, list) and len(r) == len(matrix) for r in matrix):
        return []
    rows: list[list[float | None]] = []
    for row in matrix:
        counts = [number(value) or 0.0 for value in row]
        total = sum(counts)
        rows.append([count / total if total > 0 else None for count in counts])
    return rows
