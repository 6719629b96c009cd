"""All localisation scores of a split side by side: errors, box accuracies, PxAP and the IoU curve."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from tagmask.metrics.boxes import Component, threshold_levels
from tagmask.metrics.counting import Array
from tagmask.metrics.localization import (
    SIDE,
    BoxAccuracy,
    BoxErrors,
    IouCurve,
    PixelPrecision,
    class_map,
    inclusive,
    object_mask,
)
from tagmask.types import Box, UInt8Array


class LocalizationScores:
    """Scores of images with one class each.

    Args:
        component: the box that the scores in front are for; all kinds are counted.
        thresholds: how many, at 0, 1/n, ..., (n-1)/n.
        iou: a box is right where its IoU exceeds this.
        inclusive: the last row and column of a true box's numbers belong to it.
    """

    def __init__(
        self, component: Component = "largest", thresholds: int = 100, iou: float = 0.5, *, inclusive: bool = False
    ) -> None:
        self.component, self.inclusive = component, inclusive
        self.thresholds = (np.arange(thresholds) / thresholds).astype(np.float32)
        kinds: tuple[Component, ...] = get_args(Component)
        self.errors = {kind: BoxErrors(self.thresholds, kind, iou) for kind in kinds}
        self.accuracy, self.pixels, self.overlap = BoxAccuracy(), PixelPrecision(), IouCurve()
        self.n_images = self.n_masks = 0

    def update(
        self,
        scores: Array,
        label: int,
        boxes: tuple[Box, ...],
        image_size: tuple[int, int],
        *,
        ranking: tuple[int, ...] = (),
        mask: UInt8Array | None = None,
        mask_label: int | None = None,
    ) -> None:
        """Add one image.

        Args:
            scores: map [h, w] of the class, any scale.
            label: the class, 1..C.
            boxes: true boxes of the class, at least one.
            image_size: (H, W).
            ranking: labels of the best classes by the classifier, best first; () where it is not known.
            mask: ground truth [H, W] where there is one.
            mask_label: number of the class in the mask; None: ``label``.

        Raises:
            DataError: the map is not finite.
        """
        full = class_map(scores, image_size)
        truth = np.array([[box.x0, box.y0, box.x1, box.y1] for box in boxes], np.int64)
        own = inclusive(truth) if self.inclusive else truth
        rank = None if not ranking else ranking.index(label) if label in ranking else len(ranking)
        levels = threshold_levels(full, self.thresholds)
        for errors in self.errors.values():
            errors.update(full, own, rank, levels)
        self.accuracy.update(class_map(scores, (SIDE, SIDE)), truth, image_size)
        self.n_images += 1
        if mask is not None:
            self.n_masks += 1
            known = object_mask(mask, label if mask_label is None else mask_label)
            self.pixels.update(full, known)
            self.overlap.update(full, known)

    def merge(self, other: LocalizationScores) -> None:
        """Add what another one with the same settings has counted."""
        for kind, errors in self.errors.items():
            errors.merge(other.errors[kind])
        self.accuracy.merge(other.accuracy)
        self.pixels.merge(other.pixels)
        self.overlap.merge(other.overlap)
        self.n_images += other.n_images
        self.n_masks += other.n_masks

    def result(self, threshold: float | None = None) -> dict[str, Any] | None:
        """The ``localization`` object of a split (docs/artifacts.md); None where no image was counted."""
        if not self.n_images:
            return None
        by_component = {kind: errors.result(threshold) for kind, errors in self.errors.items()}
        front = {key: value for key, value in by_component[self.component].items() if key != "curve"}
        return {
            "n_images": self.n_images,
            "component": self.component,
            "iou": self.errors[self.component].iou,
            **front,
            "classification": self.errors[self.component].classification(),
            **self.accuracy.result(),
            "pxap": self.pixels.result(),
            "iou_curve": self.overlap.result(),
            "n_masks": self.n_masks,
            "by_component": by_component,
        }
