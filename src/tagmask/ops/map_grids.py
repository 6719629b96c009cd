"""Maps kept small and enlarged where they are needed.

At full size a map is the sum of its grids, one for each scale that the classifier saw (IRNet's rule,
docs/methods/cam.md). The grids are what is kept: they have few cells, and enlarged anew they give the full map itself.
Of maps that are summed on a common coarse grid and stretched back, 3 to 4 % of the labels would be others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tagmask.ops.maps import upsample_maps
from tagmask.types import ActivationMaps

_PIXELS_IN_BAND = 1 << 24


@dataclass(frozen=True, slots=True)
class MapGrids:
    """Maps [K, H, W] of an image as the sum of ``grids``, each [K, h, w] of any float type.

    Every grid is stretched over ``frame`` (H', W'), of which the image is the top left ``size`` (H, W): a network's
    grid covers whole strides, beyond the image's border.
    """

    grids: tuple[Tensor, ...]
    frame: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def stretched(cls, maps: Tensor, size: tuple[int, int]) -> MapGrids:
        """Maps [K, h, w] that are stretched over the image, as one grid."""
        return cls((maps,), size, size)

    @classmethod
    def of(cls, stored: ActivationMaps) -> MapGrids:
        """The maps of an artifact; one that was made before grids were kept has its strided maps alone."""
        seen = stored.seen or stored.image_size
        grids = stored.grids or (stored.maps,)
        return cls(tuple(torch.from_numpy(grid) for grid in grids), stored.frame or seen, seen)

    @classmethod
    def of_cells(cls, maps: Tensor, size: tuple[int, int], cell: int) -> MapGrids:
        """Maps [K, h, w] whose cells are ``cell`` pixels wide, the last ones perhaps beyond the border of an image of
        ``size``; stretched over it where its cells are others."""
        frame = maps.shape[1] * cell, maps.shape[2] * cell
        fits = all(0 <= outer - inner < cell for outer, inner in zip(frame, size, strict=True))
        return cls((maps,), frame if fits else size, size)

    def at(self, size: tuple[int, int]) -> Tensor:
        """The maps at a size: float32 [K, *size], bilinear, half-pixel centres."""
        (height, width), cropped = self.size, self.frame != self.size
        total: Tensor | None = None
        for grid in self.grids:
            if cropped and size != self.size and len(grid):
                part = self._sampled(grid, size, slice(0, size[0]))
            elif cropped:
                part = upsample_maps(grid, self.frame)[:, :height, :width]
            else:
                part = upsample_maps(grid, size)
            total = part if total is None else total + part
        if total is None:
            msg = "maps without a grid"
            raise ValueError(msg)
        return total

    def scores(self, row: int) -> Tensor:
        """One map, float32 [h, w], for whoever stretches it over the image: its only grid, or, where there are more or
        they reach beyond the border, the map at the image's size."""
        own = replace(self, grids=tuple(grid[row : row + 1] for grid in self.grids))
        alone = len(self.grids) == 1 and self.frame == self.size
        return (own.grids[0].float() if alone else own.at(self.size))[0]

    def bands(self, size: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
        """:meth:`at` a few rows at a time, for images whose full maps would be gigabytes.

        Yields:
            rows of the image, and float32 [K, rows, W], from the top to the bottom; all at once where K * H * W is at
            most 16 million. Else the values differ from those of :meth:`at` by a rounding error.
        """
        height, width = size
        rows = max(1, _PIXELS_IN_BAND // max(1, len(self.grids[0]) * width))
        if rows >= height or not len(self.grids[0]):
            yield slice(0, height), self.at(size)
            return
        for start in range(0, height, rows):
            part = slice(start, min(height, start + rows))
            first, *others = (self._sampled(grid, size, part) for grid in self.grids)
            for other in others:
                first += other
            yield part, first

    def divided(self, eps: float = 1e-5) -> MapGrids:
        """Each map divided by its own maximum at the image's size (+ ``eps``)."""
        peaks = torch.stack([band.amax((1, 2)) for _, band in self.bands(self.size)]).amax(0)
        divisor = peaks[:, None, None] + eps
        return replace(self, grids=tuple(grid.float() / divisor for grid in self.grids))

    def _sampled(self, grid: Tensor, size: tuple[int, int], rows: slice) -> Tensor:
        """Some rows of one grid at ``size``: [K, rows, W]."""
        result = grid.float()
        for axis, part in ((1, rows), (2, slice(0, size[1]))):
            cells, place = grid.shape[axis], torch.arange(part.start, part.stop, device=grid.device)
            per_pixel = self.size[axis - 1] / size[axis - 1] * cells / self.frame[axis - 1]
            places = ((place + 0.5) * per_pixel - 0.5).clamp(min=0)
            before = places.long().clamp(max=cells - 1)
            after, weight = (before + 1).clamp(max=cells - 1), places - before
            weight = weight[:, None] if axis == 1 else weight
            result = torch.lerp(result.index_select(axis, before), result.index_select(axis, after), weight)
        return result
