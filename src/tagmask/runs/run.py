"""A run directory as the Python API hands it out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagmask.errors import InputError
from tagmask.runs.workspace import Workspace
from tagmask.settings.loading import Recipe, load_recipe
from tagmask.storage.records import read_json


@dataclass(frozen=True)
class Run:
    """A finished (or partly finished) run directory."""

    path: Path
    recipe: Recipe

    @property
    def workspace(self) -> Workspace:
        """The run's artifacts."""
        return Workspace(self.path)

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json, or an empty mapping before evaluate has run."""
        path = self.path / "metrics.json"
        metrics: dict[str, Any] = read_json(path) if path.exists() else {}
        return metrics

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"


def open_run(path: Path | str) -> Run:
    """An existing run as a :class:`Run`, nothing done.

    Raises:
        InputError: not a run directory.
    """
    root = Path(path)
    if not (root / "manifest.json").is_file() or not (root / "recipe.yaml").is_file():
        msg = f"{path}: not a run directory (no manifest.json and recipe.yaml in it)"
        raise InputError(msg)
    return Run(root, load_recipe(root / "recipe.yaml"))
