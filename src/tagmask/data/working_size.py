"""The working size of ``max_side: auto``: from the long sides of the training images.

Images of up to 768 pixels are worked on as they are: what a little reduction saves costs small things. Photographs
beyond that are worked on at 512, where ImageNet's networks see whole objects. There is a limit in any case, at least
512: what was learnt on images of 320 pixels does not hold in a photograph of 4000 that is predicted later.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

PERCENTILE = 95  # a few images that are larger than the others are reduced, whatever the rest needs
AS_THEY_ARE, LARGE, GRID = 768, 512, 32


class WorkingSize(NamedTuple):
    """``max_side``: the working size; ``long_side``: the 95th percentile that it follows from; ``images``: measured."""

    max_side: int
    long_side: int
    images: int

    def line(self) -> str:
        """In words, for the run's log."""
        reason = (
            f"95 % of the training images have a long side of up to {self.long_side} px"
            if self.images
            else "no training image could be measured"
        )
        return f"working size: max_side {self.max_side} (auto: {reason})"


def working_size_for(long_sides: Sequence[int]) -> WorkingSize:
    """The working size for training images with these long sides; 512 for none.

    Args:
        long_sides: in pixels, of all of them or a sample.
    """
    if not long_sides:
        return WorkingSize(LARGE, 0, 0)
    ordered = sorted(long_sides)
    long_side = ordered[ceil(PERCENTILE / 100 * len(ordered)) - 1]
    max_side = LARGE if long_side > AS_THEY_ARE else max(LARGE, ceil(long_side / GRID) * GRID)
    return WorkingSize(max_side, long_side, len(ordered))
