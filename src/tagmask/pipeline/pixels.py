"""How pixel values are read, settled before the stages are planned: told, and written into the manifest."""

from __future__ import annotations

from typing import Any

from tagmask.data.pixels import PixelSurvey, survey_pixels, with_pixels
from tagmask.progress.listeners import Progress
from tagmask.runs.pixels import keep_pixels
from tagmask.runs.workspace import Workspace
from tagmask.types import DataSource


def with_settled_pixels(workspace: Workspace, engine: Any, source: DataSource, progress: Progress) -> DataSource:
    """The source with the range of its values, its bands and their statistics; any of 8 bits in colour as it is.

    Fingerprints hold them: images of another range are other images.

    Raises:
        DataError: the bands that the recipe names are in no image.
    """
    # One rank reads: another might find a file missing that the first has read.
    survey: PixelSurvey | None = engine.fabric.broadcast(survey_pixels(source) if engine.is_main else None)
    source = with_pixels(source, survey)
    if engine.is_main:
        if survey is not None:
            progress.message(survey.line())
        keep_pixels(workspace, source)
    return source
