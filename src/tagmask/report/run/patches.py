"""What localizers have learnt, as image regions: the rows of patches that ``localize/NAME.json`` names.

The number of pictures on the page is bounded, however many classes there are; each image is opened once.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from tagmask.ops.transforms import colour_view
from tagmask.report.metrics_file import mapping
from tagmask.report.run.layers import READ_ERRORS
from tagmask.report.thumbnails import data_uri, fit
from tagmask.runs.stage_names import LOCALIZE
from tagmask.runs.workspace import Workspace
from tagmask.storage.images import read_image
from tagmask.storage.records import read_json
from tagmask.types import DataSource, Sample, UInt8Array

Box = tuple[int, int, int, int]
_FEWEST_IN_ROW, _MOST_IN_ROW = 3, 6
_LEAST_WINDOW = 64  # image pixels: a feature's cell alone shows nothing
_SIDE = 88  # of a picture on the page


@dataclass(frozen=True, slots=True)
class Patch:
    """One picture: the image's id, a data URI, and the region in it as CSS percentages (left, top, width, height)."""

    id: str
    uri: str
    width: int
    height: int
    region: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class PatchRow:
    """One group of regions, from the nearest on."""

    title: str
    patches: tuple[Patch, ...]


@dataclass
class LocalizerPatches:
    """All shown rows of one localizer, how many it left, and what could not be shown."""

    name: str
    rows: list[PatchRow] = field(default_factory=list)
    total: int = 0
    notes: list[str] = field(default_factory=list)


def localizer_patches(workspace: Workspace, source: DataSource, *, most: int = 360) -> list[LocalizerPatches]:
    """Pictures of everything that the run's localizers have learnt.

    Args:
        workspace: the run; nothing learnt gives an empty list.
        source: where images come from.
        most: pictures in all, shared by the localizers. Rows become shorter first, then fewer, evenly spaced.

    Returns:
        One entry for each ``localize/NAME.json`` with regions, by name; broken files and images are only noted.
    """
    paths = sorted(workspace.stage(LOCALIZE).glob("*.json"))
    samples = {sample.id: sample for split in source.splits.values() for sample in split}
    result = []
    for path in paths:
        entry = LocalizerPatches(path.stem)
        try:
            groups = list(_groups(read_json(path)))
        except READ_ERRORS as error:
            entry.notes.append(str(error))
            groups = []
        entry.total = len(groups)
        selection = _fewer(groups, most // len(paths))
        pictures = _pictures(selection, samples, source, entry.notes)
        for title, regions in selection:
            patches = tuple(pictures[region] for region in regions if region in pictures)
            if patches:
                entry.rows.append(PatchRow(title, patches))
        if entry.rows or entry.notes:
            result.append(entry)
    return result


Region = tuple[str, Box]
Group = tuple[str, list[Region]]


def _groups(record: Any) -> Iterator[Group]:
    """Groups that have regions; what does not look like one is passed over."""
    groups = mapping(record).get("groups")
    for group in groups if isinstance(groups, list) else []:
        patches = mapping(group).get("patches")
        regions = [
            region
            for patch in (patches if isinstance(patches, list) else [])
            if (region := _region(mapping(patch))) is not None
        ]
        if regions:
            yield str(mapping(group).get("title", "")), list(dict.fromkeys(regions))


def _region(patch: Mapping[str, Any]) -> Region | None:
    box = patch.get("box")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int) for value in box):
        return None
    return str(patch.get("id", "")), (box[0], box[1], box[2], box[3])


def _fewer(groups: Sequence[Group], most: int) -> list[Group]:
    """Shorter rows, and if these are still too many, evenly spaced ones, so that no class is cut off the end."""
    if not groups:
        return []
    length = min(_MOST_IN_ROW, max(_FEWEST_IN_ROW, most // len(groups)))
    rows = min(len(groups), max(1, most // length))
    return [
        (title, regions[:length]) for title, regions in (groups[place * len(groups) // rows] for place in range(rows))
    ]


def _pictures(
    groups: Sequence[Group], samples: Mapping[str, Sample], source: DataSource, notes: list[str]
) -> dict[Region, Patch]:
    """Every region's picture, image by image."""
    by_image: dict[str, list[Region]] = {}
    for _, regions in groups:
        for region in regions:
            by_image.setdefault(region[0], []).append(region)
    pictures: dict[Region, Patch] = {}
    for image_id, regions in by_image.items():
        if image_id not in samples:
            notes.append(f"patches of image '{image_id}' are not shown: the data source does not have it")
            continue
        try:
            path = samples[image_id].image_path
            image = colour_view(read_image(path, max_pixels=source.max_pixels, pixels=source.pixels))
        except READ_ERRORS as error:
            notes.append(str(error))
            continue
        for region in regions:
            pictures[region] = draw_patch(image_id, image, region[1])
    return pictures


def draw_patch(image_id: str, image: UInt8Array, box: Box) -> Patch:
    """A region of an image uint8 [H, W, 3] and what is around it, small.

    The window is square, at least twice the region and 64 pixels wide, and moved or cut to stay within the image.
    """
    height, width = image.shape[:2]
    y0, x0 = min(max(box[0], 0), height - 1), min(max(box[1], 0), width - 1)
    y1, x1 = min(max(box[2], y0 + 1), height), min(max(box[3], x0 + 1), width)
    side = max(_LEAST_WINDOW, 2 * max(y1 - y0, x1 - x0))
    top, bottom = _window(y0, y1, side, height)
    left, right = _window(x0, x1, side, width)
    crop = Image.fromarray(image[top:bottom, left:right])
    scale = max(1.0, _SIDE / max(crop.size))  # small windows are enlarged
    size = fit(round(crop.width * scale), round(crop.height * scale), _SIDE)
    stream = io.BytesIO()
    crop.resize(size, Image.Resampling.BICUBIC).save(stream, format="JPEG", quality=80, optimize=True)
    region = (
        100 * (x0 - left) / (right - left),
        100 * (y0 - top) / (bottom - top),
        100 * (x1 - x0) / (right - left),
        100 * (y1 - y0) / (bottom - top),
    )
    return Patch(image_id, data_uri(stream.getvalue(), "jpeg"), *size, region)


def _window(start: int, stop: int, side: int, length: int) -> tuple[int, int]:
    """``side`` pixels around start..stop, within 0..length."""
    first = min(max((start + stop - side) // 2, 0), max(length - side, 0))
    return first, min(first + side, length)
