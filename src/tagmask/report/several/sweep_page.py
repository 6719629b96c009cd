"""The page of a sweep: its table, and the chart of each swept key, as the papers print their sensitivity studies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tagmask.report.metrics_file import RULES
from tagmask.report.pages import environment, page_css
from tagmask.report.run.charts import Chart
from tagmask.report.several.run_scores import RunScores, read_run
from tagmask.report.several.score_table import Cell, Group, ScoreTable, score_table
from tagmask.report.svg import Marker, Series, line_chart
from tagmask.runs.stage_names import REFINE, SEGMENT

_SPLIT_COLOURS = {"train": "var(--train)", "val": "var(--val)"}
_LINES = ("var(--seg)", "var(--pseudo)", "var(--maps)", "var(--tags)", "var(--refined)", "var(--full)")
_LOGARITHMIC_FROM = 30  # largest over smallest value
_MOST_TICKS = 9
_NO_NUMBERS = " "
#: What a chart shows, by the stage that its key changes: the first measure that was scored.
_MEASURES = {REFINE: ("refined maps", "pseudo masks", "maps"), SEGMENT: ("segmentation", "pseudo masks", "maps")}
_USUAL = ("maps", "segmentation")


def sweep_table(keys: Mapping[str, str], points: Sequence[tuple[Mapping[str, str], Path]]) -> ScoreTable:
    """Points that differ in their seed only as one row.

    Args:
        keys: the swept keys in order, each with its name in the table.
        points: the value (text) of every key, and the run directory, evaluated or not.
    """
    labels = tuple(key for key in keys if key != "seed")
    groups: dict[tuple[str, ...], list[RunScores]] = {}
    for values, path in points:
        groups.setdefault(tuple(values[key] for key in labels), []).append(read_run(path, need_scores=False))
    if not labels:  # seeds alone: one row, named after the run
        return score_table(("recipe",), [((runs[0].name,), runs) for runs in groups.values()])
    return score_table([keys[key] for key in labels], list(groups.items()))


def sweep_html(
    name: str,
    keys: Mapping[str, Sequence[str]],
    fixed: Sequence[str],
    table: ScoreTable,
    failed: Sequence[tuple[str, str | None]],
) -> str:
    """A self-contained page: the curves, the table, the points that failed.

    Args:
        name: of the recipe.
        keys: swept keys with all their values as texts.
        fixed: the overrides that every point has.
        table: of :func:`sweep_table`.
        failed: (point, error).
    """
    count = math.prod(len(values) for values in keys.values())
    return (
        environment()
        .get_template("sweep.html.j2")
        .render(
            name=name,
            keys=keys,
            fixed=fixed,
            count=count,
            charts=sweep_charts(keys, table),
            parts=table.parts(),
            notes=table.notes,
            failed=failed,
            label_count=len(table.label_names),
            css=page_css(),
        )
    )


def sweep_charts(keys: Mapping[str, Sequence[str]], table: ScoreTable) -> list[Chart]:
    """For every swept key but the seed: mIoU (void ignored) against its values."""
    groups = [group for group in table.groups if group.rule == next(iter(RULES))]
    labels = tuple(key for key in keys if key != "seed")
    columns = {column.name: index for index, column in enumerate(table.columns)}
    charts = []
    for place, key in enumerate(labels if groups else ()):
        measures = _MEASURES.get(key.partition(".")[0], _USUAL)
        measure = next((m for m in measures if {f"{m} train", f"{m} val"} & columns.keys()), "maps")
        others = list(dict.fromkeys(_others(group, place) for group in groups))
        many = len(others) > 1
        for splits in (("train",), ("val",)) if many else (("train", "val"),):
            column_of = {split: columns[f"{measure} {split}"] for split in splits if f"{measure} {split}" in columns}
            if column_of:
                chart = _curves(key, place, labels, keys[key], groups, others, column_of, measure)
                charts += [chart] if chart.svg else []
    return charts


def _number(text: str) -> float | None:
    """The value if it is a number (1e-3 too, which YAML takes for a text)."""
    value: Any = yaml.safe_load(text)
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _others(group: Group, place: int) -> tuple[str, ...]:
    return (*group.labels[:place], *group.labels[place + 1 :])


def _lines(
    place: int,
    labels: Sequence[str],
    groups: Sequence[Group],
    others: Sequence[tuple[str, ...]],
    columns: Mapping[str, int],
) -> list[tuple[str, str, dict[str, Cell]]]:
    """(name, colour, value text -> cell) of each line.

    One per split where nothing else varies, one per combination of the other keys while colours last, else their mean.
    """
    if len(others) == 1:
        return [
            (split, _SPLIT_COLOURS[split], {group.labels[place]: group.cells[index] for group in groups})
            for split, index in columns.items()
        ]
    ((split, index),) = columns.items()
    rest = [key.rpartition(".")[2] for at, key in enumerate(labels) if at != place]
    if len(others) <= len(_LINES):
        return [
            (
                ", ".join(f"{key}={value}" for key, value in zip(rest, other, strict=True)),
                colour,
                {group.labels[place]: group.cells[index] for group in groups if _others(group, place) == other},
            )
            for other, colour in zip(others, _LINES, strict=False)
        ]
    means: dict[str, list[float]] = {}
    for group in groups:
        mean = group.cells[index].mean
        if mean is not None:
            means.setdefault(group.labels[place], []).append(mean)
    name = f"{split}, mean ± std over {', '.join(rest)}"
    return [(name, _SPLIT_COLOURS[split], {text: Cell(tuple(values)) for text, values in means.items()})]


def _curves(
    key: str,
    place: int,
    labels: Sequence[str],
    texts: Sequence[str],
    groups: Sequence[Group],
    others: Sequence[tuple[str, ...]],
    columns: Mapping[str, int],
    measure: str,
) -> Chart:
    """Lines with the standard deviation over seeds; dashed, in the order given, where the values are no numbers."""
    at, ticks, x_range, remark = _axis(texts)
    series, markers, legend = [], [], []
    for name, colour, cells in _lines(place, labels, groups, others, columns):
        known = [(at[text], text, cell) for text, cell in cells.items() if cell.values]
        known.sort(key=lambda entry: entry[0])
        y = [100 * (cell.mean or 0.0) for _, _, cell in known]
        spread = [100 * (cell.std or 0.0) for _, _, cell in known]
        dashed = remark == _NO_NUMBERS
        series.append(Series(name, [x for x, _, _ in known], y, colour, dashed=dashed, spread=spread))
        markers += [
            Marker(x, f"{name}, {key}={text}: {cell}", colour, 100 * (cell.mean or 0.0)) for x, text, cell in known
        ]
        if known:
            best = max(known, key=lambda entry: entry[2].mean or 0.0)
            legend.append((colour, f"{name}: best {best[2]} at {best[1]}"))
    svg = line_chart(
        series,
        label=f"mIoU of the {measure} against {key}",
        x_label=key + remark,
        y_label="mIoU",
        markers=markers,
        x_ticks=ticks,
        x_range=x_range,
        hover=False,
    )
    return Chart(_title(key, measure, columns), svg, tuple(legend))


def _axis(
    texts: Sequence[str],
) -> tuple[dict[str, float], list[tuple[float, str]], tuple[float, float], str]:
    """Where each value stands, the ticks, the range, and what to add to the axis's name."""
    numbers = {text: _number(text) for text in texts}
    values = sorted({value for value in numbers.values() if value is not None})
    if None in numbers.values() or len(values) < 2:
        room = max(4, 52 // len(texts))
        short = [text if len(text) <= room else f"{text[: room - 1]}…" for text in texts]
        places = {text: float(index) for index, text in enumerate(texts)}
        return places, list(zip(places.values(), short, strict=True)), (-0.5, len(texts) - 0.5), _NO_NUMBERS
    logarithmic = values[0] > 0 and len(values) > 2 and values[-1] / values[0] >= _LOGARITHMIC_FROM
    scaled = {value: math.log10(value) if logarithmic else value for value in values}
    places = {text: scaled[value] for text, value in numbers.items() if value is not None}
    ticks = [(x, f"{value:g}") for value, x in scaled.items()] if len(values) <= _MOST_TICKS else []
    return places, ticks, (scaled[values[0]], scaled[values[-1]]), " (logarithmic)" if logarithmic else ""


def _title(key: str, measure: str, columns: Mapping[str, int]) -> str:
    split = f", {next(iter(columns))}" if len(columns) == 1 else ""
    return f"{measure[0].upper()}{measure[1:]} against {key}{split}"
