"""Several runs as the field's table: seeds of one recipe together, mean ± standard deviation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tagmask.errors import InputError
from tagmask.report.several.run_scores import RunScores, read_run
from tagmask.report.several.score_table import Members, ScoreTable, score_table

_SEED_SUFFIX = re.compile(r"[-_. ]+(?:seed[-_=]?|s)\d+$", re.IGNORECASE)


def recipe_name(name: str) -> str:
    """A run's name without its seed: 'msrc-cam-seed2', 'msrc-cam_s2' and 'msrc-cam.seed=2' -> 'msrc-cam'."""
    return _SEED_SUFFIX.sub("", name) or name


def compare_runs(paths: Sequence[Path | str]) -> ScoreTable:
    """Read the scores of several run directories and put runs of one recipe together.

    Args:
        paths: run directories; one named twice counts once. Groups keep the order of the paths. Runs of one name
            whose recipes differ in more than the seed are told apart by their folders.

    Raises:
        InputError: no path, or a path is not a run that was evaluated.
        RunError: a manifest or metrics file is broken.
    """
    return score_table(("recipe",), grouped_runs(paths))


def grouped_runs(paths: Sequence[Path | str]) -> list[Members]:
    """The groups of :func:`compare_runs`: (label,) and the runs it names."""
    if not paths:
        msg = "nothing to compare: name at least one run directory"
        raise InputError(msg)
    unique = {Path(path).resolve(): Path(path) for path in paths}
    groups: dict[tuple[str, str], list[RunScores]] = {}
    for path in unique.values():
        run = read_run(path)
        groups.setdefault((recipe_name(run.name), run.settings), []).append(run)
    names = [name for name, _ in groups]
    members: list[Members] = []
    for (name, _), runs in groups.items():
        label = f"{name} ({recipe_name(runs[0].path.resolve().name)})" if names.count(name) > 1 else name
        members.append(((label,), runs))
    return members
