"""Activation maps of a split against its ground truth: scores at the threshold that is best on it, and calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.metrics.calibration import calibration
from tagmask.metrics.counting import VOID_RULES, Counts, Void
from tagmask.metrics.image_counts import ImageCounts
from tagmask.metrics.object_size import by_object_size
from tagmask.metrics.segmentation import Average, scores
from tagmask.metrics.threshold_sweep import ThresholdSweep


class MapScores:
    """Sums over the images of a split, and of each image what gives its confusion matrix at any threshold.

    That is a few kilobytes an image: its histogram without the classes that it does not hold.
    """

    def __init__(self, n_foreground: int, thresholds: int) -> None:
        self.sweep = ThresholdSweep(n_foreground, thresholds)
        self._ids: list[str] = []
        self._histograms: list[tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.uint32]]] = []

    @property
    def n_images(self) -> int:
        """How many images were added."""
        return self.sweep.n_images

    def add(self, image_id: str, classes: NDArray[np.int64], histogram: Counts) -> None:
        """Add one image: the channels of its maps and their :meth:`ThresholdSweep.histogram`."""
        self.sweep.add(classes, histogram)
        rows = np.flatnonzero(histogram.any((1, 2)))
        self._ids.append(image_id)
        self._histograms.append((classes, rows, histogram[rows].astype(np.uint32)))

    def best(self, average: Average, void: Void = "ignored") -> int:
        """Place of the best threshold, the lowest of equals; 0 if there is nothing to score."""
        curve = self.sweep.compute(classes=average, void=void)
        return 0 if np.isnan(curve).all() else int(np.nanargmax(curve))

    def images(self, index: int) -> ImageCounts:
        """The counts of every image at ``sweep.thresholds[index]``."""

        def confusions() -> Iterator[Counts]:
            for classes, rows, counts in self._histograms:
                histogram = np.zeros((self.sweep.n_classes + 2, *counts.shape[1:]), np.int64)
                histogram[rows] = counts
                yield self.sweep.image_confusion(classes, histogram, index)

        return ImageCounts.of(self._ids, confusions(), self.sweep.n_classes + 1)

    def result(
        self, names: Sequence[str], average: Average, threshold: float | None = None
    ) -> dict[str, dict[str, Any]]:
        """One *scores* object per void rule, at the best threshold under it; see docs/artifacts.md.

        Args:
            names: C + 1 names, background first.
            average: over which classes the means go.
            threshold: where the run's masks divide object and background, if they are made of these maps.
        """
        by_rule = {}
        for rule, void in VOID_RULES:
            index = self.best(average, void)
            by_rule[rule] = {
                **self._scores(names, average, void, index),
                "by_object_size": by_object_size(self.images(index), void),
                "calibration": calibration(
                    self.sweep.counts.sum(0), self.sweep.thresholds, threshold=threshold, void=void
                ),
            }
        return by_rule

    def _scores(self, names: Sequence[str], average: Average, void: Void, index: int) -> dict[str, Any]:
        result = scores(
            self.sweep.confusions(void=void)[index],
            names,
            average=average,
            n_images=self.n_images,
            by_class_count=self.sweep.by_class_count(index, void=void),
        )
        result["threshold"] = float(self.sweep.thresholds[index])
        result["threshold_curve"] = {
            "thresholds": [float(t) for t in self.sweep.thresholds],
            "miou": [None if np.isnan(v) else float(v) for v in self.sweep.compute(classes=average, void=void)],
        }
        return result
