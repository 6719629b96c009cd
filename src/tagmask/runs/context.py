"""What every stage is handed: the recipe, the run directory, the engine, the data it may see, and a voice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tagmask.data.loading import CACHE_BYTES, ImageLoader
from tagmask.engine.engine import Engine
from tagmask.progress.listeners import Progress
from tagmask.runs.workspace import Workspace
from tagmask.settings.recipe import Recipe
from tagmask.types import DataSource, Problem, Sample

TRAIN, VAL = "train", "val"


@dataclass(frozen=True)
class Context:
    """One stage's view of the run. ``source`` is the weak view except in ``evaluate`` and full supervision."""

    recipe: Recipe
    workspace: Workspace
    engine: Engine
    source: DataSource
    progress: Progress

    def loader(self, stage: str, *, cached: bool = False) -> ImageLoader:
        """Images as every stage sees them, at the recipe's working size; ``cached``: for one thread that comes back."""
        return ImageLoader(
            stage,
            max_pixels=self.source.max_pixels,
            max_side=self.recipe.working_size,
            pixels=self.source.pixels,
            cache_bytes=CACHE_BYTES if cached else 0,
        )

    def samples(self, *splits: str) -> list[Sample]:
        """Samples of the named splits that exist, each id once, in order."""
        by_id: dict[str, Sample] = {}
        for split in splits or tuple(self.source.splits):
            for sample in self.source.splits.get(split, ()):
                by_id.setdefault(sample.id, sample)
        return list(by_id.values())

    def report_skipped(self, stage: str, problems: Sequence[Problem]) -> None:
        """Say on the terminal how many inputs a stage left out, and how often a fallback was taken."""
        left_out = sum(problem.left_out for problem in problems)
        counts = ((left_out, "inputs were left out"), (len(problems) - left_out, "times a fallback was taken"))
        for count, what in counts:
            if count:
                self.progress.warning(f"{stage}: {count} {what}; problems.jsonl lists them")
