"""Split & unite: an image is cut where its objects lie, and the maps of the cuts are put together again.

Sun, Zhang, Barnes, "Inferring the Class Conditional Response Map for Weakly Supervised Semantic Segmentation", WACV
2022, 3.2; docs/methods/class-conditional.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tagmask.types import UInt8Array

#: Pixels by which cuts reach over a centre of mass: with one class, and with two.
BUFFERS = (10, 20)


class Rectangle(NamedTuple):
    """Rows [top, bottom) and columns [left, right)."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left


def centres_of_mass(maps: Tensor) -> list[tuple[float, float]]:
    """Where the mean of each map lies.

    Args:
        maps: [K, H, W] float, >= 0.

    Returns:
        K pairs (y, x) in pixels; of a map that is zero everywhere (or not finite): (H // 2, W // 2).
    """
    height, width = maps.shape[-2:]
    # float64: the centre is cut to whole pixels, and rounding in float32 may move it over the edge of one.
    masses = maps.double().cpu()
    rows = (masses.sum(-1) * torch.arange(height)).sum(-1)
    columns = (masses.sum(-2) * torch.arange(width)).sum(-1)
    total = masses.sum((-2, -1))
    centres = [(y, x) for y, x in zip((rows / total).tolist(), (columns / total).tolist(), strict=True)]
    return [centre if math.isfinite(sum(centre)) else (float(height // 2), float(width // 2)) for centre in centres]


def split_rectangles(centers: Sequence[tuple[float, float]], image_size: tuple[int, int]) -> list[Rectangle]:
    """Four overlapping cuts of an image, each anchored in one of its corners.

    Section 3.2 of the paper. The cuts reach over the centre by a buffer of 10 px with one class. With two, the
    rectangle between both centres, and 20 px more, is inside all four, so that both objects keep their context. With
    three or more classes the released code does not split: each cut is the whole image. Bounds are clipped to the
    image; the released code does not clip, and a negative start there counts from the far end.

    Args:
        centers: (y, x) of each class, K >= 1, in pixels; they are truncated to whole pixels.
        image_size: (H, W).

    Returns:
        Top left, top right, bottom left, bottom right, each as (top, left, bottom, right), half-open.

    Raises:
        ValueError: no centre.
    """
    if not len(centers):
        msg = "an image without a class has no centre to split it at"
        raise ValueError(msg)
    height, width = image_size
    if len(centers) > len(BUFFERS):
        return [Rectangle(0, 0, height, width)] * 4
    buffer = BUFFERS[len(centers) - 1]
    # Truncated, as published, so a mirrored image may be cut a pixel elsewhere (``symmetric = False``).
    rows, columns = [int(y) for y, _ in centers], [int(x) for _, x in centers]
    bottom, right = min(height, max(rows) + buffer), min(width, max(columns) + buffer)
    top, left = max(0, min(rows) - buffer), max(0, min(columns) - buffer)
    return [
        Rectangle(0, 0, bottom, right),
        Rectangle(0, left, bottom, width),
        Rectangle(top, 0, height, right),
        Rectangle(top, left, height, width),
    ]


def unite(parts: Sequence[tuple[Rectangle, Tensor]], image_size: tuple[int, int]) -> Tensor:
    """Maps of cuts [K, h, w], each at its rectangle; where several lie the maximum, where none lies 0: [K, H, W].

    Raises:
        ValueError: nothing to unite.
    """
    if not parts:
        msg = "no maps to unite"
        raise ValueError(msg)
    # Maximum and not sum: cuts overlap around the centre, which would count up to four times.
    united = parts[0][1].new_zeros(parts[0][1].shape[0], *image_size)
    for cut, maps in parts:
        place = united[:, cut.top : cut.bottom, cut.left : cut.right]
        torch.maximum(place, maps, out=place)
    return united


def whole_or_cut(image: UInt8Array, cuts: Sequence[Rectangle], rng: np.random.Generator) -> UInt8Array:
    """The image uint8 [H, W, 3] or one of its cuts, each with the same probability."""
    which = int(rng.integers(len(cuts) + 1))
    if which == len(cuts):
        return image
    cut = cuts[which]
    return np.ascontiguousarray(image[cut.top : cut.bottom, cut.left : cut.right])
