"""How long ``iterations: auto`` trains: a table, one row per kind of training.

A small data set gives few updates an epoch: sixty photographs in batches of 16 and eight epochs are 24 updates, after
which no class is learnt. So `auto` counts in updates: as many passes over the images as the row says, but no fewer than
its floor, which grows with the classes, and no more than its ceiling. An image without a tag teaches, but less than one
with a tag (it only says what is not there), and counts for the share of one that the row says.

The numbers were found on 60-photograph samples of MSRC and on its whole training split (docs/own-data.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class LengthRule:
    """One row.

    Args:
        passes: how often each image with a tag is seen, between floor and ceiling.
        untagged: what an image without a tag counts, as a share of one with a tag.
        floor: updates at the least.
        per_class: updates added to the floor for each class.
        ceiling: updates at the most.
    """

    passes: float
    untagged: float
    floor: int
    per_class: int
    ceiling: int

    def least(self, n_classes: int) -> int:
        """The floor for so many classes; never above the ceiling."""
        return min(self.ceiling, self.floor + self.per_class * n_classes)

    def updates(self, *, tagged: int, untagged: int, n_classes: int, batch_size: int) -> int:
        """Updates for a training set.

        Args:
            tagged: training images with a tag.
            untagged: training images without.
            n_classes: C, without the background.
            batch_size: images an update.
        """
        images = tagged + self.untagged * untagged
        return min(self.ceiling, max(self.least(n_classes), ceil(self.passes * images / batch_size)))


CLASSIFY, SEGMENT, REFINE = "classify", "segment", "refine"
TRAINING_LENGTH: dict[str, LengthRule] = {
    CLASSIFY: LengthRule(passes=12, untagged=0.5, floor=60, per_class=4, ceiling=20_000),
    SEGMENT: LengthRule(passes=30, untagged=0.5, floor=200, per_class=10, ceiling=40_000),
    REFINE: LengthRule(passes=6, untagged=0.0, floor=60, per_class=4, ceiling=10_000),
}
