"""Figures of a data source that settings can be chosen by."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tagmask.data.source import TRAIN
from tagmask.errors import DataError
from tagmask.storage.images import image_size
from tagmask.types import DataSource, Sample

#: So many images are opened (their headers) for their size; a median needs no more.
SIZED = 200


@dataclass(frozen=True)
class DataFacts:
    """Figures of the training images; only ``long_side`` needs the files.

    ``untagged`` is the share of images without a tag, ``tags_per_image`` the mean over the others, ``long_side`` the
    median in pixels (0: no image can be read), ``imbalance`` the images of the most frequent class divided by those of
    the rarest one that occurs (1: no class occurs).
    """

    images: int
    classes: int
    untagged: float
    tags_per_image: float
    long_side: int
    imbalance: float

    def line(self) -> str:
        """The figures in words."""
        return (
            f"{self.images} training images of {self.classes} classes, {self.untagged:.0%} without a tag, "
            f"{self.tags_per_image:.1f} tags on the others, long side {self.long_side} px, "
            f"the most frequent class has {self.imbalance:.1f} times the images of the rarest"
        )


def facts_of(source: DataSource) -> DataFacts:
    """The figures of a source's training images; no mask is opened, and no more than the headers of 200 images."""
    samples = source.split(TRAIN)
    counts = Counter(tag for sample in samples for tag in sample.tags)
    tagged = [len(sample.tags) for sample in samples if sample.tags]
    return DataFacts(
        images=len(samples),
        classes=len(source.classes.foreground),
        untagged=1 - len(tagged) / len(samples),
        tags_per_image=statistics.fmean(tagged) if tagged else 0.0,
        long_side=_median(long_sides(samples, source.max_pixels)),
        imbalance=max(counts.values()) / min(counts.values()) if counts else 1.0,
    )


def long_sides(samples: Sequence[Sample], max_pixels: int) -> list[int]:
    """The long sides of at most :data:`SIZED` of the images, evenly chosen, from their headers."""
    sides = []
    for sample in samples[:: max(1, -(-len(samples) // SIZED))]:
        try:
            sides.append(max(image_size(sample.image_path, max_pixels=max_pixels)))
        except DataError:
            continue  # the stages list what cannot be read
    return sides


def _median(sides: Sequence[int]) -> int:
    return round(statistics.median(sides)) if sides else 0
