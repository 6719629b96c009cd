"""Groups of runs as tables: mean ± standard deviation over seeds, as text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tagmask.report.metrics_file import ABSENT, RULES
from tagmask.report.several.run_scores import BOXES, COLUMNS, COST, FALSE_ALARMS, LATER, MAPS, Column, Kind, RunScores
from tagmask.runs.stage_names import LOCALIZE

_RULE_NAMES = {"void_ignored": "ignored", "void_background": "background", "": ""}
_LOWER_IS_BETTER = ("FP", "FN", FALSE_ALARMS)
Members = tuple[tuple[str, ...], Sequence[RunScores]]  # labels, and the runs that they name


@dataclass(frozen=True, slots=True)
class Cell:
    """One score of all runs of a group that have it: fractions for percent, else as they are."""

    values: tuple[float, ...]
    kind: Kind = "percent"

    @property
    def mean(self) -> float | None:
        """Mean, None without a value."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Standard deviation of the sample (n - 1), None below two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        """Percent: '47.1 ± 0.4', '47.1' for one run, 'n/a' for none; gains carry their sign."""
        if self.mean is None:
            return ABSENT
        factor = 100 if self.kind in ("percent", "gain") else 1
        form = {"percent": ".1f", "gain": "+.1f", "seconds": ".1f", "ratio": ".2f", "number": ".2f"}[self.kind]
        spread = "" if self.std is None else f" ± {factor * self.std:{form.lstrip('+')}}"
        text = f"{factor * self.mean:{form}}"
        return (text if float(text) else text.lstrip("+-")) + spread


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ in their seed only, under one void rule ('' when nothing depends on it)."""

    labels: tuple[str, ...]
    seeds: tuple[str, ...]
    runs: tuple[Path, ...]
    rule: str
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """The labels in one text."""
        return ", ".join(self.labels)


@dataclass(frozen=True)
class Part:
    """A few columns of the whole, ready to be printed. ``best``: the cells (row, column) to stress."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class ScoreTable:
    """All scores. ``columns`` are those that at least one run has; the cells of a group follow their order.

    ``label_names`` says what the labels of the groups are (the recipe, or the swept keys); ``notes`` what to know.
    """

    label_names: tuple[str, ...]
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = field(default=())

    def parts(self) -> list[Part]:
        """One table each for mIoU, errors, number of classes and cost, as far as there is something in it.

        Void as background stands in those of mIoU only; the CSV has all of it.
        """
        titles = list(dict.fromkeys(column.table for column in self.columns))
        return [self._part(title) for title in titles]

    def _part(self, title: str) -> Part:
        indices = [index for index, column in enumerate(self.columns) if column.table == title]
        by_void_rule = title in (MAPS, LATER)
        groups = [group for group in self.groups if by_void_rule or group.rule in (next(iter(RULES)), "")]
        rule = ("void pixels",) if by_void_rule else ()
        header = (*self.label_names, "runs", *rule, *(self.columns[index].name for index in indices))
        rows = [
            (
                *group.labels,
                str(len(group.runs)),
                *((_RULE_NAMES[group.rule],) if by_void_rule else ()),
                *(str(group.cells[index]) for index in indices),
            )
            for group in groups
        ]
        lead = len(self.label_names) + 1 + len(rule)
        best = {
            (row, lead + place)
            for place, index in enumerate(indices)
            for row in _best_rows(groups, self.columns[index], index)
        }
        return Part(title, header, tuple(rows), frozenset(best))

    def to_markdown(self) -> str:
        """Tables for a README or an issue; '|' in names is escaped."""
        blocks = []
        for part in self.parts():
            lines = [part.header, ("---", *("---:" for _ in part.header[1:])), *part.rows]
            table = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
            blocks.append(f"**{part.title}**\n\n{table}")
        blocks += [f"{note}\n" for note in self.notes]
        return "\n".join(blocks)

    def to_csv(self) -> str:
        """Numbers for a spreadsheet: mean, std and n of every column, scores as fractions, empty where absent."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        parts = [f"{column.name} {part}" for column in self.columns for part in ("mean", "std", "n")]
        writer.writerow([*self.label_names, "seeds", "void pixels", *parts])
        for group in self.groups:
            cells: list[str] = []
            for cell in group.cells:
                cells += ["" if value is None else f"{value:.6f}" for value in (cell.mean, cell.std)]
                cells.append(str(len(cell.values)))
            writer.writerow([*group.labels, " ".join(group.seeds), group.rule.removeprefix("void_"), *cells])
        return stream.getvalue()

    def records(self) -> list[dict[str, Any]]:
        """The same for JSON: labels, seeds, void rule, and mean, std and single values of every column."""
        return [
            {
                "labels": dict(zip(self.label_names, group.labels, strict=True)),
                "seeds": list(group.seeds),
                "runs": [path.name for path in group.runs],
                "void": group.rule.removeprefix("void_"),
                "figures": {
                    column.name: {"mean": cell.mean, "std": cell.std, "values": list(cell.values)}
                    for column, cell in zip(self.columns, group.cells, strict=True)
                    if cell.values
                },
            }
            for group in self.groups
        ]


def _best_rows(groups: Sequence[Group], column: Column, index: int) -> list[int]:
    """Rows with the best mean among those of the same void rule, if there is a choice."""
    if column.table == COST or column.kind not in ("percent", "gain"):
        return []
    sign = -1 if column.name.startswith(_LOWER_IS_BETTER) or column.table == BOXES else 1
    best = []
    for row, group in enumerate(groups):
        mean = group.cells[index].mean
        rivals = [other.cells[index].mean for other in groups if other.rule == group.rule]
        known = {sign * rival for rival in rivals if rival is not None}
        if mean is not None and len(known) > 1 and sign * mean == max(known):
            best.append(row)
    return best


def score_table(label_names: Sequence[str], groups: Sequence[Members]) -> ScoreTable:
    """The table of several groups of runs; the baseline, if one of the runs is plain CAM, gives gains and ut.

    Args:
        label_names: what the labels are.
        groups: (labels, runs that differ in their seed only), in the order wanted.
    """
    runs = [run for _, members in groups for run in members]
    baseline = _baseline(groups)
    columns = (*COLUMNS[:2], *_gains(baseline), *COLUMNS[2:], *_relative_cost(baseline))
    rows = [group for labels, members in groups for group in _groups_by_rule(labels, members, columns)]
    rows.sort(key=lambda group: list(RULES).index(group.rule) if group.rule else 0)
    indices = [index for index in range(len(columns)) if any(group.cells[index].values for group in rows)]
    order = {MAPS: 0, COST: 2}
    indices.sort(key=lambda index: order.get(columns[index].table, 1))
    return ScoreTable(
        tuple(label_names),
        tuple(columns[index] for index in indices),
        tuple(Group(g.labels, g.seeds, g.runs, g.rule, tuple(g.cells[index] for index in indices)) for g in rows),
        tuple(_notes(runs, baseline)),
    )


def _groups_by_rule(labels: tuple[str, ...], members: Sequence[RunScores], columns: Sequence[Column]) -> list[Group]:
    """One group per void rule under which something was scored; one without a rule if there is no such thing."""
    paths, seeds = tuple(run.path for run in members), tuple(run.seed for run in members)

    def cell(column: Column, rule: str) -> Cell:
        values = (column.read(run, rule) for run in members)
        return Cell(tuple(value for value in values if value is not None), column.kind)

    rules = [rule for rule in RULES if any(cell(column, rule).values for column in columns if column.by_void_rule)]
    return [
        Group(labels, seeds, paths, rule, tuple(cell(column, rule) for column in columns)) for rule in rules or [""]
    ]


def _baseline(groups: Sequence[Members]) -> dict[str, list[RunScores]]:
    """By data fingerprint: the runs of the group with the most runs of plain CAM on this data, the first of equals."""
    baseline: dict[str, list[RunScores]] = {}
    for _, members in groups:
        for data in dict.fromkeys(run.data for run in members):
            plain = [run for run in members if run.data == data and run.is_plain_cam]
            if len(plain) > len(baseline.get(data, ())):
                baseline[data] = plain
    return baseline


def _same_seed(baseline: dict[str, list[RunScores]], run: RunScores) -> RunScores | None:
    """The baseline's run with this run's data and seed."""
    return next((plain for plain in baseline.get(run.data, []) if plain.seed == run.seed), None)


def _gains(baseline: dict[str, list[RunScores]]) -> list[Column]:
    """mIoU of the maps minus that of plain CAM with the same seed."""

    def column(name: str, source: Column) -> Column:
        def read(run: RunScores, rule: str) -> float | None:
            plain = _same_seed(baseline, run)
            if plain is None or plain is run:
                return None
            value, reference = source.read(run, rule), source.read(plain, rule)
            return None if value is None or reference is None else value - reference

        return Column(name, MAPS, "gain", read)

    return [column("gain train", COLUMNS[0]), column("gain val", COLUMNS[1])]


def _relative_cost(baseline: dict[str, list[RunScores]]) -> list[Column]:
    """Seconds over those of plain CAM (the papers' ut), with the same seed where there is one, else their mean."""

    def column(name: str, seconds: Any) -> Column:
        def read(run: RunScores, rule: str) -> float | None:
            plain = _same_seed(baseline, run)
            rivals = [plain] if plain is not None else baseline.get(run.data, [])
            known = [value for value in map(seconds, rivals) if value]
            own = seconds(run)
            return own / statistics.fmean(known) if known and own is not None else None

        return Column(name, COST, "ratio", read, by_void_rule=False)

    return [
        column("ut", lambda run: run.map_seconds),
        column("localize / CAM", lambda run: run.seconds.get(LOCALIZE)),
    ]


def _notes(runs: Sequence[RunScores], baseline: dict[str, list[RunScores]]) -> list[str]:
    notes = []
    if baseline:
        names = ", ".join(dict.fromkeys(run.name for plain in baseline.values() for run in plain))
        notes.append(
            f"gain: mIoU minus that of plain CAM ({names}) with the same seed. ut: seconds of classify and localize "
            "over plain CAM's; localize / CAM: those of the maps alone."
        )
    resumed = [f"{run.path.name} ({', '.join(run.resumed)})" for run in runs if run.resumed]
    if resumed:
        notes.append(f"Seconds of resumed stages count their last session only: {'; '.join(resumed)}.")
    return notes
