"""How long ``iterations: auto`` trains: a table, one row per kind of training.

A small data set gives few updates an epoch: sixty photographs in batches of 16 and eight epochs are 24 updates, after
which no class is learnt. So `auto` counts in updates: as many passes over the images as the row says, but no fewer than
its floor, which grows with the classes, and no more than its ceiling. An image without a tag teaches, but less than one
with a tag (it only says what is not there), and counts for the share of one that the row says.

The numbers were found on 60-photograph samples of MSRC and on its whole training split (docs/own-data.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from tagmask.contracts.optimizer import Iterations


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


TRAINING_LENGTH: dict[str, LengthRule] = {
    "classify": LengthRule(passes=12, untagged=0.5, floor=60, per_class=4, ceiling=20_000),
    "segment": LengthRule(passes=30, untagged=0.5, floor=200, per_class=10, ceiling=40_000),
    "refine": LengthRule(passes=6, untagged=0.0, floor=60, per_class=4, ceiling=10_000),
}


def training_steps(n_images: int, batch_size: int, epochs: int, iterations: int | None) -> tuple[int, int]:
    """Updates in an epoch, and in all: of ``iterations``, or else of ``epochs``."""
    per_epoch = max(1, n_images // batch_size)
    return per_epoch, iterations or per_epoch * epochs


def share_of_published(iterations: int, n_images: int, per_images: int) -> int:
    """Published updates for ``per_images`` images, so many for ``n_images`` that each is seen as often."""
    return max(1, round(iterations * (n_images / per_images)))


@dataclass(frozen=True, slots=True)
class TrainingLength:
    """One training as it is settled.

    Args:
        key: the recipe's key of its number of updates.
        origin: what says how long it is: 'auto', 'iterations' or 'epochs'.
        updates: how many there are.
        per_epoch: updates in one pass.
        batch_size: images an update.
        images: training images.
        untagged: of these, images without a tag.
        classes: C, without the background.
        least: updates at the least that are advised.
    """

    key: str
    origin: str
    updates: int
    per_epoch: int
    batch_size: int
    images: int
    untagged: int
    classes: int
    least: int

    @property
    def iterations(self) -> int | None:
        """Updates where they were asked for as such, None where epochs were."""
        return None if self.origin == "epochs" else self.updates

    @property
    def epochs(self) -> int:
        """Passes over the images that are begun."""
        return ceil(self.updates / self.per_epoch)

    def record(self) -> dict[str, Any]:
        """Its entry in the manifest of a run."""
        return {
            "key": self.key,
            "updates": self.updates,
            "from": self.origin,
            "batch_size": self.batch_size,
            "images": self.images,
            "untagged": self.untagged,
            "classes": self.classes,
            "least": self.least,
        }


def too_short(record: Mapping[str, Any]) -> str:
    """That a training had too few updates, and the remedy; '' where it had enough.

    Args:
        record: its entry in the manifest (:meth:`TrainingLength.record`). One of an older version may say too little
            to be judged, and counts as enough.
    """
    updates, least = record.get("updates"), record.get("least")
    if not isinstance(updates, int) or not isinstance(least, int) or updates >= least:
        return ""
    remedy = f"; set {record['key']}=auto" if record.get("key") else ""
    count = "1 update is" if updates == 1 else f"{updates} updates are"
    return f"{count} few for {record.get('classes')} classes, {least} or more are advised{remedy}"


def settle(
    key: str,
    *,
    iterations: Iterations,
    epochs: int,
    batch_size: int,
    tagged: int,
    untagged: int,
    n_classes: int,
) -> TrainingLength:
    """The length of a training, by its settings and, where they are 'auto', by the table.

    Args:
        key: the recipe's key of ``iterations``, such as classify.iterations; its first part names the row.
        iterations: the setting.
        epochs: the setting, which counts where ``iterations`` is None.
        batch_size: images an update.
        tagged: training images with a tag.
        untagged: training images without.
        n_classes: C, without the background.
    """
    rule = TRAINING_LENGTH["classify" if key.startswith("retrain.") else key.partition(".")[0]]
    number = iterations
    if number == "auto":
        number = rule.updates(tagged=tagged, untagged=untagged, n_classes=n_classes, batch_size=batch_size)
    images = tagged + untagged
    per_epoch, updates = training_steps(images, batch_size, epochs, number)
    origin = "auto" if iterations == "auto" else "epochs" if iterations is None else "iterations"
    return TrainingLength(
        key, origin, updates, per_epoch, batch_size, images, untagged, n_classes, rule.least(n_classes)
    )
