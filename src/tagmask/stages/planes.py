"""Planes that a run has made, read for whoever asked for them (see :mod:`tagmask.contracts.planes`)."""

from __future__ import annotations

from collections.abc import Iterable

from tagmask.contracts.planes import SOURCES
from tagmask.runs.workspace import Workspace
from tagmask.storage.pictures import load_grey
from tagmask.types import FloatArray, Sample


def plane_of(workspace: Workspace, name: str, sample: Sample) -> FloatArray | None:
    """One plane of a sample, float32 [H, W] in [0, 1], or None where it has none."""
    path = workspace.grey_path(sample.id, name, "maps")
    return load_grey(path) if path.exists() else None


def planes_of(workspace: Workspace, needs: Iterable[str], sample: Sample) -> dict[str, FloatArray]:
    """The planes among ``needs`` that a sample has, by name."""
    planes = {name: plane_of(workspace, name, sample) for name in sorted(SOURCES.keys() & set(needs))}
    return {name: plane for name, plane in planes.items() if plane is not None}
