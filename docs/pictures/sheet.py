"""A sheet of pictures: a title over each column, an image's tags over each row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tagmask.ops.map_grids import MapGrids
from tagmask.runs.workspace import Workspace
from tagmask.storage.pictures import voc_palette
from tagmask.types import UInt8Array

CELL, GAP, HEAD = 160, 6, 22
PALETTE = np.array(voc_palette(), np.uint8).reshape(-1, 3)


def heat(image: UInt8Array, score: np.ndarray) -> UInt8Array:
    """Image under a black-red-yellow-white heat map."""
    stops = np.array([[0, 0, 0], [130, 20, 90], [240, 90, 30], [255, 220, 80], [255, 255, 255]], float)
    place = np.clip(score, 0, 1) * (len(stops) - 1)
    low = np.minimum(place.astype(int), len(stops) - 2)
    colour = stops[low] + (stops[low + 1] - stops[low]) * (place - low)[..., None]
    return (0.35 * image + 0.65 * colour).astype(np.uint8)


def painted(mask: UInt8Array) -> UInt8Array:
    """Labels in their colours, background light grey."""
    return np.where(mask[..., None] > 0, PALETTE[mask], 235).astype(np.uint8)


def highest(workspace: Workspace, name: str, stage: str) -> np.ndarray:
    """The highest of an image's maps at each pixel, scaled to at most 1."""
    stored = workspace.load_maps(name, stage=stage)
    best = MapGrids.of(stored).at(stored.image_size).amax(0).numpy()
    return best / max(best.max(), 1e-6)


def draw_sheet(titles: Sequence[str], rows: Sequence[tuple[str, Sequence[UInt8Array]]], path: Path) -> None:
    """One row per (label, cells)."""
    sheet = Image.new("RGB", (len(titles) * (CELL + GAP) + GAP, HEAD + len(rows) * (CELL + GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, title in enumerate(titles):
        draw.text((GAP + column * (CELL + GAP), 4), title, fill=(40, 40, 40), font=font)
    for row, (label, cells) in enumerate(rows):
        top = HEAD + row * (CELL + GAP)
        for column, cell in enumerate(cells):
            sheet.paste(Image.fromarray(cell).resize((CELL, CELL)), (GAP + column * (CELL + GAP), top))
        draw.rectangle((GAP, top, GAP + 7 * len(label) + 6, top + 17), "white")
        draw.text((GAP + 3, top + 1), label, fill=(20, 20, 20), font=font)
    sheet.quantize(192).save(path, optimize=True)
