"""COCO segmentations to label masks: polygons, run lengths (plain and compressed), painted in order.

Lin et al., "Microsoft COCO", ECCV 2014. The compressed text form is that of the COCO API (maskApi.c,
rleFrString): six bits a character from '0' on, five of them data, each run a difference to the run two before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tagmask.data.coco.annotations import CocoOutlines, Key, read_outlines
from tagmask.errors import DataError, UnreadableMaskError
from tagmask.storage.images import size_for_mask
from tagmask.types import ClassList, Sample, UInt8Array

_FARTHEST = 1e9  # pixels; beyond it the crossings of edges and rows lose their places behind the point
MaskStyle = Literal["annotation_order", "small_on_top"]
BoolArray = NDArray[np.bool_]


def decode_counts(text: str) -> list[int]:
    """Run lengths of the compressed text form.

    Raises:
        DataError: a character that cannot occur, or a text that ends inside a number.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            msg = f"a compressed run length holds the character {character!r}"
            raise DataError(msg)
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
        value = shift = 0
    if shift:
        msg = "a compressed run length ends inside a number"
        raise DataError(msg)
    return counts


def rle_mask(counts: Sequence[int], size: tuple[int, int]) -> BoolArray:
    """Run lengths to bool [H, W]. Runs go down the columns and start with zeros.

    Raises:
        DataError: negative runs, or runs that do not add up to H * W.
    """
    height, width = size
    lengths = _numbers(counts, "run lengths")
    # Each run is held against the size first: huge ones would add up to anything in 64 bits.
    in_range = lengths.ndim == 1 and ((lengths >= 0) & (lengths <= height * width) & (lengths % 1 == 0)).all()
    if not in_range or lengths.sum() != height * width:
        msg = f"the run lengths do not add up to {width}x{height} pixels"
        raise DataError(msg)
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths.astype(np.int64)).reshape((height, width), order="F")


def polygon_mask(points: Sequence[float], size: tuple[int, int]) -> BoolArray:
    """One polygon x0 y0 x1 y1 ... to bool [H, W]: the pixels whose centre is inside (even-odd rule).

    Pixel (row, column) covers [column, column + 1) x [row, row + 1). Every edge flips, in each row whose centre
    it crosses, all pixels to its right; what was flipped an odd number of times is inside.

    Raises:
        DataError: fewer than three points, or an odd number of coordinates.
    """
    height, width = size
    flat = _numbers(points, "coordinates of a polygon")
    if flat.ndim != 1 or flat.size < 6 or flat.size % 2:
        msg = f"a polygon needs at least three points (x y each), this one has {flat.size} coordinates"
        raise DataError(msg)
    if not (np.abs(flat) < _FARTHEST).all():
        msg = "a polygon has a coordinate that is none"
        raise DataError(msg)
    x0, y0 = flat[0::2], flat[1::2]
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    low, high = np.minimum(y0, y1), np.maximum(y0, y1)
    first = np.clip(np.ceil(low - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(high - 0.5), 0, height).astype(np.int64)
    edge = np.repeat(np.arange(len(x0)), last - first)
    row = np.arange(edge.size) - np.repeat(np.cumsum(last - first) - (last - first), last - first) + first[edge]
    share = (row + 0.5 - y0[edge]) / (y1 - y0)[edge]
    crossing = x0[edge] + share * (x1 - x0)[edge]
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    flips = np.zeros((height, width + 1), dtype=np.int32)
    np.add.at(flips, (row, column), 1)
    inside: BoolArray = np.cumsum(flips, axis=1)[:, :width] % 2 == 1
    return inside


def _numbers(values: Any, what: str) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"{what} that are no numbers"
        raise DataError(msg) from error


def segmentation_mask(segmentation: Any, size: tuple[int, int]) -> BoolArray:
    """Any of COCO's three forms to bool [H, W].

    Raises:
        DataError: none of the forms, or one of another size than the image.
    """
    if isinstance(segmentation, Mapping):
        frame = segmentation.get("size", list(size))
        if not isinstance(frame, list | tuple) or tuple(frame) != size:
            msg = f"run lengths for size {frame} in an image of {list(size)} (height, width)"
            raise DataError(msg)
        counts = segmentation.get("counts")
        if isinstance(counts, str):
            counts = decode_counts(counts)
        return rle_mask(counts if isinstance(counts, list | tuple) else (), size)
    if isinstance(segmentation, list | tuple) and segmentation:
        parts = segmentation if isinstance(segmentation[0], list | tuple | Mapping) else [segmentation]
        mask = np.zeros(size, dtype=bool)
        for part in parts:
            mask |= segmentation_mask(part, size) if isinstance(part, Mapping) else polygon_mask(part, size)
        return mask
    msg = "an annotation has no segmentation"
    raise DataError(msg)


@dataclass(slots=True)
class CocoMasks:
    """Mask reader of a COCO source. The JSON is read again when the first mask is asked for, so that weak
    stages never hold an outline in memory.

    ``places`` maps a sample id to its JSON and the ids of its image there (merged files list an image twice).
    """

    classes: ClassList
    style: MaskStyle
    max_pixels: int
    places: dict[str, tuple[Path, tuple[Key, ...]]] = field(default_factory=dict)
    _outlines: dict[Path, dict[Key, CocoOutlines]] = field(init=False, default_factory=dict, repr=False)

    def has_mask(self, sample: Sample) -> bool:
        """Whether the JSON outlines every object of the sample."""
        return sample.id in self.places

    def __call__(self, sample: Sample) -> UInt8Array:
        """uint8 [H, W], labels 0..C; crowd regions and categories that are no class stay 0.

        Raises:
            UnreadableMaskError: no outlines, broken ones, an unreadable image, or made for another image size.
        """
        if sample.id not in self.places:
            msg = f"{sample.image_path}: has no outlines in its COCO JSON. Leave it out of the evaluation."
            raise UnreadableMaskError(msg)
        path, keys = self.places[sample.id]
        if path not in self._outlines:
            self._outlines[path] = read_outlines(path)
        entries = [self._outlines[path][key] for key in keys]
        size = size_for_mask(sample.image_path, max_pixels=self.max_pixels)
        for other in (entry.size for entry in entries if entry.size not in (None, size)):
            msg = (
                f"{sample.image_path}: is {size[1]}x{size[0]}, but {path.name} says {other[1]}x{other[0]} "
                "(width x height). Use the images that were annotated."
            )
            raise UnreadableMaskError(msg)
        try:
            return self._paint(entries, size)
        except DataError as error:
            msg = f"{path}: image id {keys[0]} ({sample.id}): {error}. Correct or remove the annotation."
            raise UnreadableMaskError(msg) from error

    def _paint(self, entries: Sequence[CocoOutlines], size: tuple[int, int]) -> UInt8Array:
        labels = {name: label for label, name in enumerate(self.classes.names)}
        objects = [
            (labels[category], segmentation_mask(segmentation, size))
            for entry in entries
            for category, segmentation in entry.outlines
            if category in labels
        ]
        if self.style == "small_on_top":
            objects.sort(key=lambda item: -int(item[1].sum()))
        mask = np.zeros(size, dtype=np.uint8)
        for label, region in objects:
            mask[region] = label
        return mask
