"""What is laid over a photograph: masks and heat maps of one image, and how right a mask is.

A broken file leaves out its layer, never the page: what raises one of ``READ_ERRORS`` is noted instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from tagmask.errors import TagmaskError
from tagmask.metrics.image_counts import single_image_miou
from tagmask.report.thumbnails import heat_uri
from tagmask.runs.stage_names import LOCALIZE, SEGMENT
from tagmask.runs.workspace import Workspace
from tagmask.types import BACKGROUND, IGNORE_INDEX, DataSource, Sample, UInt8Array

_MOST_MAPS = 6
_USUAL_THRESHOLD = 0.3
READ_ERRORS = (TagmaskError, OSError, ValueError, MemoryError)


@dataclass(frozen=True, slots=True)
class Layer:
    """One picture laid over the photograph: what it is, its name for people, its data URI, its labels."""

    kind: Literal["activation", "refined", "pseudo", "prediction", "full", "truth"]
    name: str
    uri: str
    labels: tuple[int, ...] = ()


def visible(mask: UInt8Array) -> tuple[int, ...]:
    """Foreground labels that cover at least 0.5 % of the image, largest first."""
    areas = np.bincount(mask.reshape(-1), minlength=256)
    areas[[BACKGROUND, IGNORE_INDEX]] = 0
    labels = np.nonzero(areas >= max(0.005 * mask.size, 1))[0]
    return tuple(int(label) for label in sorted(labels, key=lambda label: -int(areas[label])))


def map_layers(
    workspace: Workspace,
    source: DataSource,
    sample: Sample,
    stage: str,
    kind: Literal["activation", "refined"],
    side: int | None = None,
) -> list[Layer]:
    """One heat layer per class, of at most ``side`` pixels; the strongest classes only if there are too many."""
    if not workspace.map_path(sample.id, stage=stage).exists():
        return []
    stored_maps = workspace.load_maps(sample.id, stage=stage)
    order = np.argsort(-stored_maps.peak, kind="stable")[:_MOST_MAPS]
    names = source.classes.names
    layers = []
    for index in sorted(int(place) for place in order):
        label = int(stored_maps.classes[index])
        name = names[label] if 0 <= label < len(names) else f"class {label}"
        layers.append(Layer(kind, name, heat_uri(stored_maps.maps[index], side), (label,)))
    return layers


def threshold_maps(
    workspace: Workspace, sample: Sample, threshold: float | None, stage: str = LOCALIZE
) -> UInt8Array | None:
    """Labels of the strongest map where it exceeds the threshold, enlarged to the image's size."""
    if not workspace.map_path(sample.id, stage=stage).exists():
        return None
    stored_maps = workspace.load_maps(sample.id, stage=stage)
    height, width = stored_maps.image_size
    if len(stored_maps.classes) == 0:
        return np.zeros((height, width), dtype=np.uint8)
    # Labels of the strided map, then enlarged: enough for a picture. Scores come from maps that are enlarged first.
    strongest = stored_maps.maps.argmax(axis=0)
    labels = stored_maps.classes[strongest].astype(np.uint8)
    labels[stored_maps.maps.max(axis=0) <= (_USUAL_THRESHOLD if threshold is None else threshold)] = BACKGROUND
    return np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))


def image_iou(mask: UInt8Array, truth: UInt8Array) -> float | None:
    """Mean IoU of one image uint8 [H, W] as the evaluation ranks images by it; None without a pixel to compare."""
    return single_image_miou(mask, truth) if mask.shape == truth.shape else None


def result_stage(workspace: Workspace) -> str:
    """Where the predictions to show are; a broken manifest stops no page."""
    try:
        return workspace.result_stage()
    except READ_ERRORS:
        return SEGMENT
