"""Pixel pairs of a local stencil, and the strongest value on the straight path of each pair.

Source: Ahn, Cho, Kwak, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations",
CVPR 2019 (IRNet), section 4; ``misc/indexing.PathIndex`` of jiwoon-ahn/irn.

The published code lists the pixels of all paths (2,134 per source at radius 10) and gathers them. Here every
offset is a slice of the grid, and a path is cut into runs along one axis (532 of them at radius 10), for
whose lengths the maxima of the whole grid are made once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from tagmask.types import BACKGROUND, IGNORE_INDEX

Offset = tuple[int, int]
NO_PAIR, BACKGROUND_PAIR, FOREGROUND_PAIR, NEGATIVE_PAIR = range(4)


def stencil_offsets(radius: int) -> list[Offset]:
    """Half-plane offsets (dy, dx) closer than ``radius``: each neighbour pair of the grid once.

    34 offsets for radius 5. Order: (0, 1..radius-1), then row by row downwards.

    Raises:
        ValueError: radius < 2 (there would be no neighbour).
    """
    if radius < 2:
        msg = f"radius must be at least 2, got {radius}: a smaller one has no neighbours"
        raise ValueError(msg)
    # The published order: affinities that are stored or compared as [P, n] depend on it.
    right = [(0, dx) for dx in range(1, radius)]
    below = [
        (dy, dx) for dy in range(1, radius) for dx in range(1 - radius, radius) if dy * dy + dx * dx < radius * radius
    ]
    return right + below


def path_points(offset: Offset) -> list[Offset]:
    """Grid points (y, x) of the path from (0, 0) to ``offset``, both ends included.

    All integer points of the bounding box closer than 1 to the straight line (irn ``PathIndex``).
    """
    dy, dx = offset
    return [
        (y, x)
        for y in range(min(0, dy), max(0, dy) + 1)
        for x in range(min(0, dx), max(0, dx) + 1)
        # The distance from the line, squared and times the squared length of the offset: whole numbers, no rounding
        # decides.
        if (dy * x - dx * y) ** 2 < dy * dy + dx * dx
    ]


class Run(NamedTuple):
    """Neighbouring points of a path: ``length`` of them from (y, x) on, to the right or downwards."""

    y: int
    x: int
    length: int
    across: bool


@lru_cache(maxsize=4096)
def path_runs(offset: Offset) -> tuple[Run, ...]:
    """The points of a path as runs along the axis that needs fewer; the path is a strip, so none has a hole."""
    points = path_points(offset)
    rows: dict[int, list[int]] = {}
    columns: dict[int, list[int]] = {}
    for y, x in points:
        rows.setdefault(y, []).append(x)
        columns.setdefault(x, []).append(y)
    if len(rows) <= len(columns):
        return tuple(Run(y, min(xs), len(xs), across=True) for y, xs in rows.items())
    return tuple(Run(min(ys), x, len(ys), across=False) for x, ys in columns.items())


class Region(NamedTuple):
    """A rectangle of the grid: the sources of pairs."""

    top: int
    left: int
    height: int
    width: int

    def of(self, grid: Tensor, y: int = 0, x: int = 0) -> Tensor:
        """View of ``grid`` [..., h, w] on the rectangle moved by (y, x)."""
        top, left = self.top + y, self.left + x
        return grid[..., top : top + self.height, left : left + self.width]


def source_region(height: int, width: int, radius: int) -> Region:
    """Sources whose whole stencil lies in the grid: rows 0..h-radius, columns radius-1..w-radius.

    Raises:
        ValueError: the grid has none.
    """
    margin = radius - 1
    if height <= margin or width <= 2 * margin:
        msg = (
            f"a grid of {height} x {width} has no pixel with all neighbours of radius {radius}: it must be at "
            f"least {radius} x {2 * radius - 1}"
        )
        raise ValueError(msg)
    return Region(0, margin, height - margin, width - 2 * margin)


class PathMaxima:
    """Maxima on paths over a grid [..., h, w], any number type; not differentiable."""

    def __init__(self, values: Tensor, radius: int) -> None:
        height, width = values.shape[-2:]
        self._across, self._down = [values], [values]
        # Windows of one cell more from those of one less, a comparison per cell; all offsets share them.
        for length in range(2, radius + 1):
            w, h = max(width - length + 1, 0), max(height - length + 1, 0)
            self._across.append(torch.maximum(self._across[-1][..., :w], values[..., length - 1 :]))
            self._down.append(torch.maximum(self._down[-1][..., :h, :], values[..., length - 1 :, :]))

    def of(self, offset: Offset, sources: Region) -> Tensor:
        """Maximum on the path from every source to source + offset, [..., height, width] of the region."""
        first, *rest = path_runs(offset)
        strongest = self._view(first, sources).clone()
        for run in rest:
            torch.maximum(strongest, self._view(run, sources), out=strongest)
        return strongest

    def _view(self, run: Run, sources: Region) -> Tensor:
        windows = self._across if run.across else self._down
        return sources.of(windows[run.length - 1], run.y, run.x)


class PairKinds:
    """Supervision of pixel pairs by a label map: both background, same class, different labels, or unsure."""

    def __init__(self, labels: Tensor) -> None:
        self._labels = labels
        self._valid = (labels != IGNORE_INDEX).to(torch.uint8)
        self._different = self._valid * NEGATIVE_PAIR
        same = torch.where(labels == BACKGROUND, BACKGROUND_PAIR, FOREGROUND_PAIR).to(torch.uint8)
        self._same = same * self._valid

    def of(self, offset: Offset, sources: Region) -> Tensor:
        """Kind of the pair (source, source + offset), uint8 [..., height, width] of the region."""
        equal = sources.of(self._labels) == sources.of(self._labels, *offset)
        # 255 equals 255, but neither side is valid then: both products with ``_valid`` make the kind 0.
        kinds = torch.where(equal, sources.of(self._same), sources.of(self._different))
        return kinds.mul_(sources.of(self._valid, *offset))


def pair_kinds(labels: Tensor, radius: int) -> Tensor:
    """Kinds of all pairs of a label map.

    Args:
        labels: int [B, h, w], 0 background, 1..254 classes, 255 unsure.
        radius: pairs closer than this.

    Returns:
        uint8 [B, P, h - radius + 1, w - 2 radius + 2], pairs in the order of :func:`stencil_offsets`, sources
        of :func:`source_region`: BACKGROUND_PAIR (both 0), FOREGROUND_PAIR (equal, above 0), NEGATIVE_PAIR
        (different), NO_PAIR where one of the two is 255.

    Raises:
        ValueError: radius < 2, or the grid is too small for it.
    """
    offsets = stencil_offsets(radius)
    sources = source_region(labels.shape[-2], labels.shape[-1], radius)
    kinds = PairKinds(labels)
    return torch.stack([kinds.of(offset, sources) for offset in offsets], dim=1)


def by_rows(offsets: list[Offset]) -> Iterator[list[Offset]]:
    """The offsets in groups of one row: what is worked on at a time, so that memory stays bounded."""
    for row in sorted({dy for dy, _ in offsets}):
        yield [offset for offset in offsets if offset[0] == row]
