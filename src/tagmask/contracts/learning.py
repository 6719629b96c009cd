"""What localizers learn from the training images in one streaming pass: a bounded sample of feature vectors.

A reservoir keeps, of each group, the candidates with the smallest keys. With random keys that is a uniform sample
without replacement (Efraimidis & Spirakis, "Weighted random sampling with a reservoir", 2006) that depends on neither
the order of the images nor on how they were split over processes; with a distance as key it is the nearest ones.
Memory is bounded by groups x capacity x D, however many images there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Candidates:
    """What one image offers to one group: keys float64 [n] (the smallest are kept), vectors [n, D], boxes int64
    [n, 4] as (y0, x0, y1, x1) in image pixels, half-open."""

    keys: Tensor
    vectors: Tensor
    boxes: Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """What a reservoir holds of one group, by ascending key; ``images`` int64 [n] numbers the images."""

    keys: Tensor
    vectors: Tensor
    boxes: Tensor
    images: Tensor


@dataclass(frozen=True, slots=True)
class PatchGroup:
    """Image regions that show what was learnt: a title, and (image number, box) from the nearest on."""

    title: str
    patches: tuple[tuple[int, tuple[int, int, int, int]], ...]


@dataclass(frozen=True, slots=True)
class Learnt:
    """Result of a localizer's ``learn``: its tensors, what to show, and (class name, what was wrong) pairs."""

    tensors: Mapping[str, Tensor]
    patch_groups: tuple[PatchGroup, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


@dataclass
class Reservoir:
    """The candidates with the ``capacity`` smallest keys of each group; None: all of them."""

    capacity: int | None
    _samples: dict[int, list[Sample]] = field(default_factory=dict)

    def add(self, image: int, candidates_by_group: Mapping[int, Candidates]) -> None:
        """Take what image number ``image`` offers to each group."""
        for group, candidates in candidates_by_group.items():
            images = torch.full((len(candidates.keys),), image, dtype=torch.int64)
            self._take(group, [Sample(candidates.keys, candidates.vectors, candidates.boxes, images)])

    def merge(self, others: Iterable[Reservoir]) -> None:
        """Take what other reservoirs hold."""
        for other in others:
            for group, samples in other._samples.items():
                self._take(group, samples)

    def groups(self) -> list[int]:
        """Groups that were offered anything, ascending."""
        return sorted(self._samples)

    def group(self, group: int) -> Sample | None:
        """The sample of a group, or None if nothing was ever offered."""
        samples = self._samples.get(group)
        return _smallest(samples, self.capacity) if samples else None

    def _take(self, group: int, samples: list[Sample]) -> None:
        sample_list = self._samples.setdefault(group, [])
        sample_list.extend(sample for sample in samples if len(sample.keys))
        # At twice the capacity: sorting at every image would cost more than the images.
        if self.capacity is not None and sum(len(sample.keys) for sample in sample_list) > 2 * self.capacity:
            self._samples[group] = [_smallest(sample_list, self.capacity)]


def _smallest(samples: list[Sample], capacity: int | None) -> Sample:
    keys, images = torch.cat([s.keys for s in samples]), torch.cat([s.images for s in samples])
    # Equal keys go by image number, so that the order in which images came does not show.
    order = torch.argsort(images, stable=True)
    order = order[torch.argsort(keys[order], stable=True)][:capacity]
    vectors, boxes = torch.cat([s.vectors for s in samples]), torch.cat([s.boxes for s in samples])
    return Sample(keys[order], vectors[order], boxes[order], images[order])
