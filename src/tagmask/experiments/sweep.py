"""Grids of runs: every combination of some settings, each an ordinary run directory; what is alike is done once.

A stage that an earlier point has finished under the same fingerprint is linked, so a sweep over a localizer's
setting trains its classifier once. Started again, a grid goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tagmask.errors import InputError, RecipeError, TagmaskError
from tagmask.pipeline.execute import run
from tagmask.progress.listeners import Progress, SilentProgress
from tagmask.report.several.score_table import ScoreTable
from tagmask.settings.loading import Recipe, load_recipe
from tagmask.storage.arrays import SCHEMA
from tagmask.storage.files import atomic_write
from tagmask.storage.records import write_json

_LONGEST_NAME = 120
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Point:
    """One run of a grid. ``values``: the swept keys with their values as texts; ``error`` says why it failed.

    ``recipe`` is None where the combination is no recipe (a localizer that the head does not fit, say). ``done``:
    it was run, or found up to date, by this very call.
    """

    name: str
    path: Path
    values: Mapping[str, str]
    recipe: Recipe | None
    error: str | None = None
    done: bool = False


@dataclass(frozen=True)
class Sweep:
    """A grid that was walked: its folder, its keys with all their values, its points."""

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
    voice = progress or SilentProgress()
    others = expand_reuse([reuse] if isinstance(reuse, str | Path) else reuse)
    result = Sweep(folder, keys, tuple(fixed), tuple(points))

    def after(done: Sequence[Point]) -> None:
        nonlocal result
        result = replace(result, points=tuple(done))
        _write(result, base.name)

    run_points(points, reuse=others, until=until, progress=voice, after=after)
    return result


def run_points(
    points: Sequence[Point],
    *,
    reuse: Sequence[Path] = (),
    until: str | None = None,
    progress: Progress | None = None,
    after: Callable[[Sequence[Point]], None] = lambda points: None,
) -> list[Point]:
    """Run points one after the other; each may reuse all that stand beside it. A failure does not stop the others.

    Args:
        points: what to run; one with an error already is left out.
        reuse: further run directories to take finished stages from.
        until: last stage.
        progress: who to tell.
        after: called after each point with the points as they are now.

    Returns:
        The points, with the errors of those that failed.
    """
    voice, current = progress or SilentProgress(), list(points)
    for index, point in enumerate(points):
        voice.message(f"[{index + 1}/{len(points)}] {point.name}")
        error = point.error
        if point.recipe is not None and error is None:
            beside = [other.path for other in points if other.path != point.path and is_run(other.path)]
            error = _run_point(point.recipe, point.path, [*reuse, *beside], until, voice)
        if error is not None:
            voice.warning(f"{point.name} failed: {error}")
        current[index] = replace(point, error=error, done=error is None)
        after(current)
    return current


def _run_point(recipe: Recipe, path: Path, reuse: Sequence[Path], until: str | None, voice: Progress) -> str | None:
    """The error of one run as a line, None if it ended well."""
    try:
        run(recipe, output=path, reuse=reuse, until=until, progress=voice)
    except TagmaskError as error:
        return str(error)
    except Exception as error:  # whatever a method raises must not cost the points that are still to come
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return f"{' '.join(what.split())} (details: tagmask run {path} --debug)"
    return None


def parse_grid(grid: Sequence[str] | Mapping[str, Sequence[Any]]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Swept keys with their values as YAML texts, and the overrides with one value only.

    Raises:
        RecipeError: not ``key=value``, an empty item, or a key that stands twice.
        InputError: no key has several values.
    """
    keys: dict[str, tuple[str, ...]] = {}
    fixed: list[str] = []
    seen: set[str] = set()
    for key, texts in _entries(grid):
        if key in seen:
            msg = f"'{key}' stands twice; write all its values once, such as {key}={','.join(texts)}"
            raise RecipeError(msg)
        seen.add(key)
        values = tuple(dict.fromkeys(texts))
        if len(values) > 1:
            keys[key] = values
        else:
            fixed.append(f"{key}={values[0]}")
    if not keys:
        msg = "nothing to sweep: give a key several values, such as seed=0,1,2 or localize.scales=[1.0],[1.0,1.5]"
        raise InputError(msg)
    return keys, fixed


def _entries(grid: Sequence[str] | Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, list[str]]]:
    if isinstance(grid, Mapping):
        for key, values in grid.items():
            listed = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
            if not listed:
                msg = f"'{key}' has no value"
                raise RecipeError(msg)
            yield str(key), [_yaml_text(value) for value in listed]
        return
    for text in grid:
        key, equals, values_text = text.partition("=")
        items = split_values(values_text)
        if not equals or not key.strip() or (len(items) > 1 and "" in items):
            msg = f"'{text}' is not key=a,b,c; write for example classify.epochs=3,5 (no spaces, no empty item)"
            raise RecipeError(msg)
        yield key.strip(), items


def _yaml_text(value: Any) -> str:
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, tuple):
        value = list(value)
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("...\n").strip()


def split_values(text: str) -> list[str]:
    """Items between commas that stand outside of brackets and quotes: '[4,5],[5]' -> ['[4,5]', '[5]']."""
    items, closing, quote = [""], [], ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in _BRACKETS:
            closing.append(_BRACKETS[char])
        elif closing and char == closing[-1]:
            closing.pop()
        elif char == "," and not closing:
            items.append("")
            continue
        items[-1] += char
    return [item.strip() for item in items]


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
            folder_name = safe_name(f"{folder_name}~{_digest(str(combination))}")
        own = [f"{label}-{slug}".replace("+", "-") for label, slug in labels.items() if label != "seed"]
        texts = [*fixed, *(f"{key}={value}" for key, value in values.items())]
        loaded = None
        try:
            loaded = load_recipe(recipe, [*texts, f"name='{safe_name('-'.join([name, *own]), 100)}'"])
            check_one_process(loaded)
        except InputError as error:
            errors[folder_name] = error
        wrong = errors.get(folder_name)
        points.append(Point(folder_name, folder / folder_name, values, loaded, None if wrong is None else str(wrong)))
    for key, options in keys.items():
        for text in options:
            names = [point.name for point in points if point.values[key] == text]
            if all(name in errors for name in names):
                raise errors[names[0]]
    return points


def check_one_process(recipe: Recipe) -> None:
    """Several runs after one another cannot share the ranks of one launch.

    Raises:
        InputError: the recipe, or the launcher, asks for several processes.
    """
    if recipe.engine.devices > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        msg = "a grid of runs works in one process: set engine.devices=1 and start it without torchrun"
        raise InputError(msg)


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Each dotted key with its shortest end that no other key has: {'localize.mu_f': 'mu_f', 'seed': 'seed'}."""
    names = list(keys)
    short = {}
    for name in names:
        parts = name.split(".")
        ends = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
        others = [other for other in names if other != name]
        short[name] = next(
            (end for end in ends if not any(other == end or other.endswith(f".{end}") for other in others)), name
        )
    return short


def _slug(text: str) -> str:
    """A value inside a file name: '[1.0, 1.5]' -> '1.0+1.5'."""
    return re.sub(r"[^\w.+-]+", "-", re.sub(r"\s*,\s*", "+", text)).strip("-") or "none"


def safe_name(name: str, longest: int = _LONGEST_NAME) -> str:
    """The name, or its beginning and a hash where it is too long."""
    return name if len(name) <= longest else f"{name[: longest - 11]}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _default_name(name: str, keys: Mapping[str, Any]) -> str:
    """Named after what is swept, so that two sweeps of one recipe do not overwrite each other's tables."""
    return safe_name("-".join([name, *(short for key, short in short_keys(keys).items() if key != "seed")]))


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory."""
    return (path / "manifest.json").is_file()


def expand_reuse(paths: Sequence[Path | str]) -> list[Path]:
    """Run directories as they are; the folder of a sweep stands for all its points.

    Raises:
        InputError: neither a run nor a sweep.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inner = [entry for entry in sorted(path.iterdir()) if is_run(entry)] if path.is_dir() else []
        if not is_run(path) and not inner:
            msg = f"--reuse {path}: neither a run directory (no manifest.json in it) nor a folder of runs"
            raise InputError(msg)
        found += [path] if is_run(path) else inner
    return found


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
