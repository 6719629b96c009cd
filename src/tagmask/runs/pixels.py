"""How a run has read its images, from its manifest: for who opens its data again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tagmask.runs.workspace import Workspace
from tagmask.storage.pixel_values import pixels_entry, stored_pixels
from tagmask.storage.weights import statistics_entry, stored_statistics
from tagmask.types import DataSource

KEY = "pixels"


def keep_pixels(workspace: Workspace, source: DataSource) -> None:
    """Write into the manifest what was settled for a source, in place of what an earlier start wrote."""
    manifest = workspace.manifest()
    if source.pixels is None and KEY not in manifest:
        return
    entry: dict[str, Any] | None = None
    if source.pixels is not None:
        statistics = source.input_statistics
        entry = {**pixels_entry(source.pixels)[KEY], **({} if statistics is None else statistics_entry(statistics))}
    workspace.update_manifest(lambda manifest: manifest.update({KEY: entry}))


def with_stored_pixels(source: DataSource, workspace: Workspace) -> DataSource:
    """The source as the run reads it; one that a run has settled already as it is.

    Raises:
        InputError: the manifest's entry is not one.
    """
    if source.pixels is not None:
        return source
    manifest, path = workspace.manifest(), workspace.root / "manifest.json"
    pixels = stored_pixels(manifest, path)
    if pixels is None:
        return source
    entry = manifest[KEY]
    statistics = stored_statistics(entry, path) if "input_statistics" in entry else None
    return replace(source, pixels=pixels, input_statistics=statistics)
