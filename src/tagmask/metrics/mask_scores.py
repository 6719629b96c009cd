"""Masks of a split against its ground truth: everything that is counted on them, and the scores object it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from tagmask.metrics.boundary import RATIO, BoundaryCounts, boundary_counts
from tagmask.metrics.counting import VOID_RULES, Array, Counts, Void, as_numpy, confusion_with_void, divide
from tagmask.metrics.image_counts import Entries, ImageCounts, entries
from tagmask.metrics.image_level import image_level
from tagmask.metrics.object_size import by_object_size
from tagmask.metrics.segmentation import (
    Average,
    ConfusionCounter,
    json_number,
    mean_iou,
    mean_of_classes,
    pixel_accuracy,
    scores,
)
from tagmask.types import IGNORE_INDEX


@dataclass(frozen=True)
class MaskCounts:
    """One mask: its confusion matrix with void int64 [n + 1, n], its contours under both void rules."""

    confusion: Counts
    boundary: dict[Void, BoundaryCounts]


def count_mask(prediction: Array | Tensor, target: Array | Tensor, n_classes: int) -> MaskCounts:
    """Count one image; changes nothing, so threads may do it at once.

    Args:
        prediction: integer labels [H, W]; 255 counts as background.
        target: integer labels [H, W] 0..n_classes-1 and 255.
        n_classes: number of classes, background included.

    Raises:
        DataError: sizes differ or a label is unknown.
    """
    labels, truth = as_numpy(prediction), as_numpy(target)
    ignored = boundary_counts(labels, truth, n_classes)
    # Boundaries are the dear part; without void both rules see the same masks.
    void = bool((truth == IGNORE_INDEX).any())
    background = boundary_counts(labels, truth, n_classes, void="background") if void else ignored
    confusion = confusion_with_void(labels, truth, n_classes)
    return MaskCounts(confusion, {"ignored": ignored, "background": background})


class MaskScores:
    """Sums over the images of a split; whole numbers, so any order gives the same.

    ``know_tags``: the masks were made of the images' tags, so they cannot tell which images hold a class.
    """

    def __init__(self, n_classes: int, *, know_tags: bool = False) -> None:
        self.know_tags = know_tags
        self.counter = ConfusionCounter(n_classes)
        self.boundary: dict[Void, BoundaryCounts] = {void: BoundaryCounts.none(n_classes) for _, void in VOID_RULES}
        self._ids: list[str] = []
        self._entries: list[Entries] = []

    @property
    def n_images(self) -> int:
        """How many images were added."""
        return self.counter.n_images

    def add(self, image_id: str, counts: MaskCounts, *, n_tags: int) -> None:
        """Add one image; ``n_tags`` is the number of foreground classes it holds."""
        self.counter.add(counts.confusion, n_tags=n_tags)
        for void, boundary in counts.boundary.items():
            self.boundary[void] = self.boundary[void] + boundary
        self._ids.append(image_id)
        self._entries.append(entries(counts.confusion))

    def images(self) -> ImageCounts:
        """The counts of every image."""
        return ImageCounts.of_entries(self._ids, self._entries, self.counter.n_classes)

    def result(self, names: Sequence[str], average: Average) -> dict[str, dict[str, Any]]:
        """One *scores* object (docs/artifacts.md) per void rule."""
        images = self.images()
        return {rule: self._scores(names, average, void, images) for rule, void in VOID_RULES}

    def _scores(self, names: Sequence[str], average: Average, void: Void, images: ImageCounts) -> dict[str, Any]:
        confusion = self.counter.confusion(void)
        return {
            **scores(
                confusion,
                names,
                average=average,
                n_images=self.n_images,
                by_class_count=self.counter.by_class_count(void),
            ),
            "by_object_size": by_object_size(images, void),
            **({} if self.know_tags else {"image_level": image_level(images, names, void)}),
            "boundary": boundary_scores(self.boundary[void], confusion, names, average),
        }


def boundary_scores(
    counts: BoundaryCounts, confusion: Counts, names: Sequence[str], average: Average
) -> dict[str, Any]:
    """Boundary IoU and the trimap's scores, JSON-ready; ``None`` where a class is absent.

    Args:
        counts: of the split.
        confusion: int64 [n, n] of the split; says which classes occur.
        names: n names, background first.
        average: over which classes the means go.
    """
    iou = counts.iou()
    return {
        "ratio": RATIO,
        "miou": json_number(mean_of_classes(iou, confusion, average, background=True)),
        "miou_foreground": json_number(mean_of_classes(iou, confusion, average, background=False)),
        "iou": dict(zip(names, map(json_number, iou), strict=True)),
        "trimap_miou": json_number(mean_iou(counts.trimap, classes=average)),
        "trimap_accuracy": json_number(pixel_accuracy(counts.trimap)),
    }


def image_table(images: ImageCounts, void: Void = "ignored") -> list[tuple[str, float | None, float | None]]:
    """(id, mean IoU, pixel accuracy) of every scored image, the worst first; ``None`` where all is void."""
    miou, areas = images.image_miou(void), images.areas(void)
    accuracy = divide(areas.hits.sum(1), areas.truth.sum(1))
    order = np.argsort(np.where(np.isnan(miou), np.inf, miou), kind="stable")
    return [
        (images.ids[place], json_number(miou[place]), json_number(accuracy[place]))
        for place in order
        if images.scored[place]
    ]
