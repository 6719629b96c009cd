"""The split that is made where the data has none."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence

from tagmask.types import Sample


def hold_out(
    samples: Sequence[Sample],
    fraction: float,
    seed: int,
    *,
    stratified: bool = False,
    groups: Collection[Collection[str]] = (),
) -> set[str]:
    """Ids for validation, chosen by hash: the same on every machine, and stable when images are added.

    At least one image is held out where ``fraction`` > 0, but never the last training image of a class.

    Args:
        samples: the images to divide.
        fraction: share to hold out.
        seed: changes which images these are.
        stratified: first an image of every class that can spare one, the rarest classes first, then others up to
            ``fraction``. For few images, of which chance leaves classes out; new images may then move old ones.
        groups: ids that are held out together or not at all, each id in one group at most.
    """
    if fraction <= 0:
        return set()
    units = sorted(_units(samples, groups), key=lambda unit: _place(unit, seed))
    remaining = Counter(tag for sample in samples for tag in sample.tags)
    validation: set[str] = set()

    def take(unit: Sequence[Sample]) -> bool:
        own = Counter(tag for sample in unit for tag in sample.tags)
        spare = all(remaining[tag] > n for tag, n in own.items()) and len(validation) + len(unit) < len(samples)
        if spare:
            validation.update(sample.id for sample in unit)
            remaining.subtract(own)
        return spare

    if not stratified:
        for unit in units:
            if _place(unit, seed) >= fraction * 2**64 and validation:
                break
            take(unit)
        return validation
    n_wanted = max(1, round(fraction * len(samples)))
    # A group that is larger than all that is to be held out comes last: another may do.
    units.sort(key=lambda unit: len(unit) > n_wanted)
    frequency = Counter(remaining)
    for tag in sorted(frequency, key=lambda tag: (frequency[tag], tag)):
        if remaining[tag] == frequency[tag]:  # none of its images has been taken with another class
            any(take(unit) for unit in units if any(tag in sample.tags for sample in unit))
    for unit in units:
        room = n_wanted - len(validation)
        if unit[0].id not in validation and (len(unit) <= room or not validation):
            take(unit)
    return validation


def _units(samples: Sequence[Sample], groups: Collection[Collection[str]]) -> list[list[Sample]]:
    """Samples that go together, each unit by the ids of its samples."""
    group_of = {key: number for number, group in enumerate(groups) for key in group}
    units: dict[int | str, list[Sample]] = {}
    for sample in samples:
        units.setdefault(group_of.get(sample.id, sample.id), []).append(sample)
    return [sorted(unit, key=lambda sample: sample.id) for unit in units.values()]


def _place(unit: Sequence[Sample], seed: int) -> int:
    """Where a unit stands in the order, by its first id: of 2 ** 64 places."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{unit[0].id}".encode()).digest()[:8], "big")
