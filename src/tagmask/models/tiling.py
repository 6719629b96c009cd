"""Large images piece by piece: overlapping tiles, blended, in memory that does not grow with the image's height."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tagmask.types import UInt8Array


def tile_starts(length: int, tile: int) -> list[int]:
    """First pixels of tiles of side ``tile`` that cover ``length``, neighbours sharing a quarter or more."""
    step = max(1, tile - tile // 4)
    return [*range(0, max(1, length - tile), step), *([length - tile] if length > tile else [])]


def ramp(tile: int) -> Tensor:
    """Weight of a tile's pixels along one side: 1 inside, falling linearly to its ends over the overlap, never 0."""
    overlap = max(1, tile // 4)
    place = torch.arange(tile, dtype=torch.float32)
    return torch.minimum(place + 1, tile - place).clamp(max=overlap) / overlap


def blended_bands(
    image: UInt8Array, predict: Callable[[UInt8Array], Tensor], *, n_labels: int, tile: int
) -> Iterator[Tensor]:
    """Predictions of a large image from top to bottom.

    Args:
        image: uint8 [H, W, 3].
        predict: prediction float32 [C + 1, h, w] of a part uint8 [h, w, 3], on the CPU.
        n_labels: C + 1.
        tile: side of the parts in pixels; the image's side where that is smaller.

    Yields:
        float32 [C + 1, rows, W]: where tiles overlap their weighted mean; the rows of all bands make up H. At any
        time there is one row of tiles in memory.
    """
    height, width = image.shape[:2]
    down, across = min(tile, height), min(tile, width)
    tops, lefts = tile_starts(height, down), tile_starts(width, across)
    along_y, along_x = ramp(down), ramp(across)
    total_y, total_x = torch.zeros(height), torch.zeros(width)
    for top in tops:
        # The weight of a pixel is a product of one per axis, so two vectors normalise all of the image.
        total_y[top : top + down] += along_y
    for left in lefts:
        total_x[left : left + across] += along_x
    rows = torch.zeros(n_labels, down, width)
    for top, following in zip(tops, [*tops[1:], height], strict=True):
        for left in lefts:
            part = predict(image[top : top + down, left : left + across])
            rows[:, :, left : left + across] += part * along_y[:, None] * along_x
        n_rows = following - top
        yield rows[:, :n_rows] / total_y[top:following, None] / total_x
        # What the next row of tiles overlaps with stays; the rest is finished and handed on.
        rows = torch.cat([rows[:, n_rows:], torch.zeros(n_labels, min(n_rows, down), width)], dim=1)
