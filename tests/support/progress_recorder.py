"""A listener that remembers what a run said."""

from __future__ import annotations

from pathlib import Path

from tagmask.pipeline.execute import run
from tagmask.progress.listeners import SilentProgress


class ProgressRecorder(SilentProgress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.stages: dict[str, str] = {}
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.tasks: list[tuple[str, int, int]] = []

    def stage(self, name: str, reason: str) -> None:
        self.stages[name] = reason

    def start(self, description: str, total: int, done: int = 0) -> None:
        self.tasks.append((description, total, done))

    def message(self, text: str) -> None:
        self.lines.append(text)

    def warning(self, text: str) -> None:
        self.lines.append(text)
        self.warnings.append(text)


def walk(root: Path, *overrides: str) -> ProgressRecorder:
    """Go on with a run, with changes; returns what it said."""
    recorder = ProgressRecorder()
    run(root, progress=recorder, overrides=overrides)
    return recorder
