"""Sweeps: a recipe with every combination of some values, each an ordinary run directory; what is alike is done once.

A stage that an earlier point has finished under the same fingerprint is linked, so a sweep over a localizer's
setting trains its classifier once. Started again, a sweep goes on where it stopped.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tagmask.errors import InputError
from tagmask.experiments.points import Point, check_one_process, digest, expand_reuse, run_points, safe_name
from tagmask.experiments.sweep_keys import parse_grid, short_keys
from tagmask.progress.listeners import Progress, SilentProgress
from tagmask.report.several.score_table import ScoreTable
from tagmask.settings.loading import Recipe, load_recipe
from tagmask.storage.arrays import SCHEMA
from tagmask.storage.files import atomic_write
from tagmask.storage.records import write_json


@dataclass(frozen=True)
class Sweep:
    """A sweep: its folder, its keys with all their values, its points."""

    path: Path
    keys: Mapping[str, tuple[str, ...]]
    fixed: tuple[str, ...]
    points: tuple[Point, ...] = field(repr=False)

    @property
    def failed(self) -> tuple[Point, ...]:
        """The points that ended in an error."""
        return tuple(point for point in self.points if point.error is not None)

    @property
    def page(self) -> Path:
        """The table and the curves."""
        return self.path / "sweep.html"

    def table(self) -> ScoreTable:
        """One row per combination and void rule, seeds as mean ± std; points that failed are left out."""
        from tagmask.report.several.sweep_page import sweep_table

        return sweep_table(short_keys(self.keys), [(point.values, point.path) for point in self.points if point.done])


def sweep(
    recipe: Recipe | str | Path | Mapping[str, Any],
    grid: Sequence[str] | Mapping[str, Sequence[Any]],
    *,
    overrides: Sequence[str] = (),
    output: Path | str | None = None,
    reuse: Path | str | Sequence[Path | str] = (),
    until: str | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Run a recipe with every combination of values, and write the table and curves.

    Args:
        recipe: a recipe, its path, or a mapping.
        grid: ``key=a,b,c`` texts (one value: a fixed override), or key -> values.
        overrides: further fixed ``key=value`` texts, applied before the grid's.
        output: the sweep's folder; ``sweeps/NAME-KEYS`` by default.
        reuse: run directories, or folders of sweeps, whose finished stages are linked where they fit.
        until: last stage of every point.
        progress: who to tell; silent by default.

    Returns:
        The sweep; its folder holds sweep.json, table.csv, table.md, sweep.html and a run directory per point.

    Raises:
        InputError: the recipe or a value is wrong, or no key has several values.
    """
    keys, fixed = parse_grid(grid)
    fixed = [*overrides, *fixed]
    base = load_recipe(recipe, fixed)
    check_one_process(base)
    folder = Path(output) if output is not None else Path("sweeps") / _default_name(base.name, keys)
    points = _points(recipe, base.name, keys, fixed, folder)
    listener = progress or SilentProgress()
    others = expand_reuse([reuse] if isinstance(reuse, str | Path) else reuse)
    result = Sweep(folder, keys, tuple(fixed), tuple(points))

    def after(done: Sequence[Point]) -> None:
        nonlocal result
        result = replace(result, points=tuple(done))
        _write(result, base.name)

    run_points(points, reuse=others, until=until, progress=listener, after=after)
    return result


def _points(
    recipe: Any, name: str, keys: Mapping[str, tuple[str, ...]], fixed: Sequence[str], folder: Path
) -> list[Point]:
    """All combinations, checked before anything runs.

    Raises:
        InputError: a value is wrong in whatever combination (a typo, most likely).
    """
    short = short_keys(keys)
    points: list[Point] = []
    errors: dict[str, InputError] = {}
    for combination in itertools.product(*keys.values()):
        values = dict(zip(keys, combination, strict=True))
        labels = {short[key]: _slug(value) for key, value in values.items()}
        folder_name = safe_name(",".join(f"{label}={slug}" for label, slug in labels.items()))
        if any(point.name == folder_name for point in points):  # values that differ in signs only
            folder_name = safe_name(f"{folder_name}~{digest(str(combination))}")
        name_parts = [f"{label}-{slug}".replace("+", "-") for label, slug in labels.items() if label != "seed"]
        texts = [*fixed, *(f"{key}={value}" for key, value in values.items())]
        point_recipe = None
        try:
            point_recipe = load_recipe(recipe, [*texts, f"name='{safe_name('-'.join([name, *name_parts]), 100)}'"])
            check_one_process(point_recipe)
        except InputError as error:
            errors[folder_name] = error
        message = str(errors[folder_name]) if folder_name in errors else None
        points.append(Point(folder_name, folder / folder_name, values, point_recipe, message))
    # What is wrong in every combination is a typo and said before hours are spent. What is wrong in some (a localizer
    # that one of the heads does not fit) leaves out those points.
    for key, options in keys.items():
        for text in options:
            names = [point.name for point in points if point.values[key] == text]
            if all(name in errors for name in names):
                raise errors[names[0]]
    return points


def _slug(text: str) -> str:
    """A value inside a file name: '[1.0, 1.5]' -> '1.0+1.5'."""
    return re.sub(r"[^\w.+-]+", "-", re.sub(r"\s*,\s*", "+", text)).strip("-") or "none"


def _default_name(name: str, keys: Mapping[str, Any]) -> str:
    """Named after what is swept, so that two sweeps of one recipe do not overwrite each other's tables."""
    return safe_name("-".join([name, *(short for key, short in short_keys(keys).items() if key != "seed")]))


def _write(result: Sweep, name: str) -> None:
    """sweep.json, table.csv, table.md and sweep.html, as far as the sweep has come."""
    from tagmask.report.several.sweep_page import sweep_html

    table = result.table()
    points = [
        {
            "name": point.name,
            "values": dict(point.values),
            "status": "failed" if point.error is not None else "done" if point.done else "open",
            "error": point.error,
        }
        for point in result.points
    ]
    keys = {key: list(texts) for key, texts in result.keys.items()}
    write_json(
        result.path / "sweep.json",
        {
            "schema": SCHEMA,
            "recipe": name,
            "keys": keys,
            "fixed": list(result.fixed),
            "points": points,
            "rows": table.records(),
        },
    )
    page = sweep_html(name, result.keys, result.fixed, table, [(p.name, p.error) for p in result.failed])
    for file, text in (("table.csv", table.to_csv()), ("table.md", table.to_markdown()), ("sweep.html", page)):
        with atomic_write(result.path / file, "w") as stream:
            stream.write(text)
