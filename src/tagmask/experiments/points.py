"""Runs one after the other, each in a directory of its own, each taking from the others what it would do again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tagmask.errors import InputError, TagmaskError
from tagmask.pipeline.execute import run
from tagmask.progress.listeners import Progress, SilentProgress
from tagmask.settings.loading import Recipe

_LONGEST_NAME = 120


@dataclass(frozen=True)
class Point:
    """One run of a sweep or a comparison. ``values``: the swept keys with their values as texts.

    ``recipe`` is None where the combination is no recipe (a localizer that the head does not fit, say). ``error`` says
    why it failed. ``done``: it was run, or found up to date, by this very call.
    """

    name: str
    path: Path
    values: Mapping[str, str]
    recipe: Recipe | None
    error: str | None = None
    done: bool = False


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
    listener, current = progress or SilentProgress(), list(points)
    for index, point in enumerate(points):
        listener.message(f"[{index + 1}/{len(points)}] {point.name}")
        error = point.error
        if point.recipe is not None and error is None:
            # Looked up anew for every point: those before it have left their stages by now.
            beside = [other.path for other in points if other.path != point.path and is_run(other.path)]
            error = _run_point(point.recipe, point.path, [*reuse, *beside], until, listener)
        if error is not None:
            listener.warning(f"{point.name} failed: {error}")
        current[index] = replace(point, error=error, done=error is None)
        after(current)
    return current


def _run_point(recipe: Recipe, path: Path, reuse: Sequence[Path], until: str | None, listener: Progress) -> str | None:
    """The error of one run as a line, None if it ended well."""
    try:
        run(recipe, output=path, reuse=reuse, until=until, progress=listener)
    except TagmaskError as error:
        return str(error)
    except Exception as error:  # whatever a method raises must not cost the points that are still to come
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return f"{' '.join(what.split())} (details: tagmask run {path} --debug)"
    return None


def check_one_process(recipe: Recipe) -> None:
    """Several runs after one another cannot share the ranks of one launch.

    Raises:
        InputError: the recipe, or the launcher, asks for several processes.
    """
    if recipe.engine.devices > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        msg = "a grid of runs works in one process: set engine.devices=1 and start it without torchrun"
        raise InputError(msg)


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory."""
    return (path / "manifest.json").is_file()


def expand_reuse(paths: Sequence[Path | str]) -> list[Path]:
    """Run directories as they are; the folder of a sweep stands for all its points.

    Raises:
        InputError: neither a run nor a sweep.
    """
    runs: list[Path] = []
    for path in map(Path, paths):
        points = [entry for entry in sorted(path.iterdir()) if is_run(entry)] if path.is_dir() else []
        if not is_run(path) and not points:
            msg = f"--reuse {path}: neither a run directory (no manifest.json in it) nor a folder of runs"
            raise InputError(msg)
        runs += [path] if is_run(path) else points
    return runs


def safe_name(name: str, longest: int = _LONGEST_NAME) -> str:
    """The name, or its beginning and a hash where it is too long."""
    return name if len(name) <= longest else f"{name[: longest - 11]}-{digest(name)}"


def digest(text: str) -> str:
    """Ten hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]
