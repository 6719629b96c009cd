"""``max_side: auto`` settled before the stages are planned: told, and written into the manifest."""

from __future__ import annotations

from typing import Any

from tagmask.data.facts import long_sides
from tagmask.data.source import TRAIN
from tagmask.data.working_size import WorkingSize, working_size_for
from tagmask.progress.listeners import Progress
from tagmask.runs.workspace import Workspace
from tagmask.settings.recipe import Recipe
from tagmask.types import DataSource


def with_working_size(
    recipe: Recipe, workspace: Workspace, engine: Any, source: DataSource, progress: Progress
) -> Recipe:
    """The recipe with the number that 'auto' stands for; any other recipe as it is.

    Fingerprints hold the number: a run is up to date as long as its images ask for the same one.
    """
    if recipe.max_side != "auto":
        return recipe
    settled = working_size_for(long_sides(source.split(TRAIN), source.max_pixels)) if engine.is_main else None
    # One rank measures: another might find a file missing that the first has read.
    settled = WorkingSize(*engine.fabric.broadcast(settled))
    if engine.is_main:
        progress.message(settled.line())
        workspace.update_manifest(lambda manifest: manifest.update(working_size=settled._asdict()))
    return recipe.model_copy(update={"max_side": settled.max_side})
