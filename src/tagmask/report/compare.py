"""Several runs as one table: seeds of one recipe together, mean ± standard deviation."""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from tagmask.errors import InputError, nearest
from tagmask.report.scores import ABSENT, RULES, dig, mapping, miou, number
from tagmask.workspace import Workspace, read_json

_SEED_SUFFIX = re.compile(r"[-_. ]+(?:seed[-_=]?|s)\d+$", re.IGNORECASE)

#: Column -> (split, measure); the ratio and the tags have no split of their own.
_COLUMNS = {
    "maps train": ("train", "maps"),
    "maps val": ("val", "maps"),
    "refined maps train": ("train", "refined_maps"),
    "refined maps val": ("val", "refined_maps"),
    "pseudo masks train": ("train", "pseudo_masks"),
    "pseudo masks val": ("val", "pseudo_masks"),
    "segmentation train": ("train", "segmentation"),
    "segmentation val": ("val", "segmentation"),
    "full supervision val": ("val", "segmentation_full"),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """Scores in [0, 1] of all runs of a group, without those that lack it."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """Mean, None without a value."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Standard deviation of the sample (n - 1), None below two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        """Percent: '47.1 ± 0.4', '47.1' for one run, 'n/a' for none."""
        if self.mean is None:
            return ABSENT
        return f"{100 * self.mean:.1f}" + ("" if self.std is None else f" ± {100 * self.std:.1f}")


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one recipe under one void rule ('' when nothing depends on it)."""

    name: str
    seeds: tuple[str, ...]
    runs: tuple[Path, ...]
    rule: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Comparison:
    """The table. ``columns`` are the measures that at least one run has; cells follow their order."""

    columns: tuple[str, ...]
    groups: tuple[Group, ...]

    def header(self) -> tuple[str, ...]:
        """Names of the columns of :meth:`rows`."""
        return ("recipe", "runs", "void pixels", *self.columns)

    def rows(self) -> list[tuple[str, ...]]:
        """One row of texts per group and void rule, percent with one decimal."""
        names = {"void_ignored": "ignored", "void_background": "background", "": ""}
        return [(group.name, str(len(group.runs)), names[group.rule], *map(str, group.cells)) for group in self.groups]

    def to_markdown(self) -> str:
        """A table for a README or an issue; '|' in names is escaped."""
        lines = [self.header(), ("---", *("---:" for _ in self.header()[1:])), *self.rows()]
        return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)

    def to_csv(self) -> str:
        """Numbers for a spreadsheet: mean, std and n of every column, as fractions, empty where absent."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        parts = [f"{column} {part}" for column in self.columns for part in ("mean", "std", "n")]
        writer.writerow(["recipe", "seeds", "void pixels", *parts])
        for group in self.groups:
            cells: list[str] = []
            for cell in group.cells:
                cells += ["" if value is None else f"{value:.6f}" for value in (cell.mean, cell.std)]
                cells.append(str(len(cell.values)))
            writer.writerow([group.name, " ".join(group.seeds), group.rule.removeprefix("void_"), *cells])
        return stream.getvalue()

    def to_html(self) -> str:
        """A self-contained page with the table; the best mean of each column and rule is bold."""
        from tagmask.report.html import page_css

        rows = list(zip(self.rows(), self.groups, self._best(), strict=True))
        page = Environment(autoescape=True).from_string(_PAGE)
        return page.render(header=self.header(), rows=rows, css=page_css(), script=Markup(""))

    def _best(self) -> list[list[bool]]:
        """For each group and column, whether its mean is the best under its rule (if there is a choice)."""
        table = []
        for group in self.groups:
            rivals = [other for other in self.groups if other.rule == group.rule]
            marks = []
            for index, cell in enumerate(group.cells):
                means = [other.cells[index].mean for other in rivals]
                known = [mean for mean in means if mean is not None]
                marks.append(len(known) > 1 and cell.mean is not None and cell.mean == max(known))
            table.append(marks)
        return table


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,"><title>Comparison – tagmask</title><style>{{ css }}</style></head>
<body><header class="top"><div class="wrap"><h1>Comparison</h1>
<p class="meta">Percent, mean ± standard deviation over runs of one recipe. mIoU unless said.</p></div></header>
<main class="wrap"><div class="card scroll"><table>
<thead><tr>{% for cell in header %}<th scope="col"{% if loop.index > 3 %} class="r"{% endif %}>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row, group, best in rows %}<tr><th scope="row" title="seeds {{ group.seeds | join(', ') }}">{{ row[0] }}</th>
<td>{{ row[1] }}</td><td>{{ row[2] }}</td>{% for cell in row[3:] %}<td class="r">{% if best[loop.index0] %}<b>{{ cell }}</b>{% else %}{{ cell }}{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div></main></body></html>
"""  # noqa: E501


def recipe_name(name: str) -> str:
    """A run's name without its seed: 'msrc-cam-seed2', 'msrc-cam_s2' and 'msrc-cam.seed=2' -> 'msrc-cam'."""
    return _SEED_SUFFIX.sub("", name) or name


def compare_runs(paths: Sequence[Path | str]) -> Comparison:
    """Read the scores of several run directories and put runs of one recipe together.

    Args:
        paths: run directories; one named twice counts once. Groups keep the order of the paths.

    Raises:
        InputError: no path, or a path is not a run that was evaluated.
        RunError: a manifest or metrics file is broken.
    """
    if not paths:
        msg = "nothing to compare: name at least one run directory"
        raise InputError(msg)
    unique = {Path(path).resolve(): Path(path) for path in paths}
    runs: dict[str, list[tuple[Path, str, Any]]] = {}
    for path in unique.values():
        name, seed, metrics = _read(path)
        runs.setdefault(recipe_name(name), []).append((path, seed, metrics))
    groups = [group for name, members in runs.items() for group in _groups(name, members)]
    groups.sort(key=lambda group: list(RULES).index(group.rule) if group.rule else 0)
    names = ("tags mAP", *_COLUMNS, "ratio to full")
    kept = [index for index in range(len(names)) if any(group.cells[index].values for group in groups)]
    return Comparison(
        tuple(names[index] for index in kept),
        tuple(Group(g.name, g.seeds, g.runs, g.rule, tuple(g.cells[index] for index in kept)) for g in groups),
    )


def _read(path: Path) -> tuple[str, str, Any]:
    """(name, seed, metrics) of one run."""
    if not path.is_dir():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        msg = f"{path}: is not a run directory. {nearest(path.name, beside)}"
        raise InputError(msg)
    if not (path / "metrics.json").exists():
        msg = f"{path}: has no metrics.json. Run `tagmask evaluate {path}` first."
        raise InputError(msg)
    manifest = Workspace(path).manifest()
    name = str(manifest.get("name") or path.resolve().name)
    return name, str(manifest.get("seed", "?")), mapping(read_json(path / "metrics.json"))


def _groups(name: str, members: Sequence[tuple[Path, str, Any]]) -> list[Group]:
    """One group per void rule that was scored; one without a rule if there is no mIoU at all."""
    paths = tuple(path for path, _, _ in members)
    seeds = tuple(seed for _, seed, _ in members)
    tags = _cell([dig(metrics, "tags", "map") for _, _, metrics in members])
    made = []
    for rule in RULES:
        cells = [
            _cell([miou(metrics, split, measure, rule) for _, _, metrics in members])
            for split, measure in _COLUMNS.values()
        ]
        ratio = _cell([dig(metrics, "ratio_to_full", rule) for _, _, metrics in members])
        if any(cell.values for cell in cells):
            made.append(Group(name, seeds, paths, rule, (tags, *cells, ratio)))
    return made or [Group(name, seeds, paths, "", (tags, *(Cell(()) for _ in range(len(_COLUMNS) + 1))))]


def _cell(values: Sequence[Any]) -> Cell:
    found = (number(value) for value in values)
    return Cell(tuple(value for value in found if value is not None))
