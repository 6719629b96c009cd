"""Boxes laid over a photograph: the true ones, and the one that is made of the map as the scores made it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from tagmask.metrics.boxes import Component, boxes_of_levels, threshold_levels
from tagmask.metrics.localization import class_map
from tagmask.ops.map_grids import MapGrids
from tagmask.report.metrics_file import localization_of, number
from tagmask.runs.workspace import Workspace
from tagmask.storage.records import read_json
from tagmask.types import IGNORE_INDEX, Sample, UInt8Array

Kind = Literal["prediction", "truth"]


def box_masks(workspace: Workspace, sample: Sample) -> list[tuple[Kind, str, UInt8Array]]:
    """Kind, name and frames drawn as label masks [H, W], for an image with one tag and boxes of it.

    Nothing for other images, without a map, or where the run's boxes were not scored.

    Raises:
        RunError: the map or metrics.json is broken.
    """
    boxes = [(box.x0, box.y0, box.x1, box.y1) for box in sample.boxes if (box.label,) == sample.tags]
    path = workspace.root / "metrics.json"
    if not boxes or not path.exists() or not workspace.map_path(sample.id).exists():
        return []
    _, localization = localization_of(read_json(path))
    threshold = number(localization.get("threshold"))
    kinds: tuple[Component, ...] = get_args(Component)
    component = next((kind for kind in kinds if kind == localization.get("component")), None)
    stored_maps, (label,) = workspace.load_maps(sample.id), sample.tags
    if threshold is None or component is None or label not in stored_maps.classes:
        return []
    scores = MapGrids.of(stored_maps).scores(stored_maps.classes.tolist().index(label))
    full = class_map(scores, stored_maps.image_size)
    own = boxes_of_levels(threshold_levels(full, np.array([threshold])), 1, component).tolist()
    colour = (label - 1) % (IGNORE_INDEX - 1) + 1  # more classes than colours
    return [
        ("prediction", "box of the map", frames(own, stored_maps.image_size, colour)),
        ("truth", "true boxes", frames(boxes, stored_maps.image_size, colour)),
    ]


def frames(boxes: Sequence[Sequence[int]], size: tuple[int, int], label: int) -> UInt8Array:
    """Half-open boxes x0, y0, x1, y1 as frames of ``label`` in an empty mask [H, W]."""
    mask: UInt8Array = np.zeros(size, np.uint8)
    edge = max(2, round(max(size) / 100))
    for box in boxes:
        x0, y0, x1, y1 = (max(0, int(value)) for value in box)
        region = mask[y0:y1, x0:x1]
        inner = region[edge:-edge, edge:-edge].copy()
        region[:] = label
        region[edge:-edge, edge:-edge] = inner
    return mask
