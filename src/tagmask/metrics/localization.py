"""Weakly supervised object localisation: errors of boxes made from class maps (docs/localisation.md).

- Top-1, Top-5 and GT-known error at a threshold of the map, as SPA measures them (Pan et al., CVPR 2021): the map
  min-max normalised, resized to the image, foreground where it reaches the threshold; right if the box's IoU with a
  true box exceeds 0.5;
- MaxBoxAcc and MaxBoxAccV2 (Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right",
  CVPR 2020): maps and boxes at 224x224, maps in 256 steps, boxes around outlines;
- PxAP of the same paper, and the IoU curve of Zhang et al., "Rethinking the Route Towards Weakly Supervised Object
  Localization" (SEM's protocol, used by SSA's figure 6).

The map of a wrong class never counts as found, so that Top-1 and Top-5 take the map of the true class only, and its
rank among the classes: right if it is among the best k and its box is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tagmask.errors import DataError
from tagmask.metrics.boxes import Boxes, Component, best_iou, boxes_of_levels, contour_boxes, threshold_levels
from tagmask.metrics.counting import Array, as_numpy
from tagmask.types import IGNORE_INDEX, FloatArray

Curve = NDArray[np.float64]
DELTAS = (0.3, 0.5, 0.7)
SIDE = 224


def class_map(scores: Array | Tensor, size: tuple[int, int]) -> FloatArray:
    """A map [h, w] min-max normalised and then resized bilinearly to ``size`` (H, W), float32 in [0, 1].

    Raises:
        DataError: not two-dimensional, or not finite.
    """
    stack = torch.as_tensor(as_numpy(scores)).float()
    if stack.ndim != 2 or not torch.isfinite(stack).all():
        msg = f"a class map is [h, w] and finite, this one is {list(stack.shape)}"
        raise DataError(msg)
    low = stack.min()
    stack = (stack - low) / (stack.max() - low + 1e-10)
    resized = functional.interpolate(stack[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    full: FloatArray = resized.numpy()
    return full


class BoxErrors:
    """Top-1, Top-5 and GT-known errors of a split at every threshold.

    Args:
        thresholds: [n] ascending, in [0, 1].
        component: which box stands for a map, see ``boxes``.
        iou: a box is right where its IoU exceeds this.
    """

    def __init__(self, thresholds: Array | Sequence[float], component: Component = "union", iou: float = 0.5) -> None:
        self.thresholds = np.asarray(thresholds, np.float32)
        self.component, self.iou = component, iou
        self.n_images = self.n_ranked = 0
        self.hits = np.zeros((3, len(self.thresholds)), np.int64)  # the true class anywhere, first, among five
        self.class_hits = np.zeros(2, np.int64)

    def update(
        self, scores: FloatArray, boxes: Array, rank: int | None = None, levels: NDArray[np.int32] | None = None
    ) -> None:
        """Add one image.

        Args:
            scores: map of the true class at the size of the image, see :func:`class_map`.
            boxes: [m, 4] true boxes of the class, m >= 1.
            rank: place of the true class among all classes by the classifier's score, 0 for the first.
            levels: of the scores at these thresholds, where they are known already.
        """
        levels = threshold_levels(scores, self.thresholds) if levels is None else levels
        right = best_iou(boxes_of_levels(levels, len(self.thresholds), self.component), boxes) > self.iou
        self.n_images += 1
        self.hits[0] += right
        if rank is not None:
            self.n_ranked += 1
            for row, k in enumerate((1, 5)):
                self.hits[row + 1] += right & (rank < k)
                self.class_hits[row] += rank < k

    def merge(self, other: BoxErrors) -> None:
        """Add what another one has counted."""
        self.n_images += other.n_images
        self.n_ranked += other.n_ranked
        self.hits += other.hits
        self.class_hits += other.class_hits

    def errors(self) -> dict[str, Curve]:
        """Error at each threshold, in [0, 1]: ``gt_known``, and ``top1``, ``top5`` where every image had a rank."""
        names = ("gt_known", "top1", "top5") if self.n_ranked == self.n_images else ("gt_known",)
        return {name: 1 - self.hits[row] / max(self.n_images, 1) for row, name in enumerate(names)}

    def result(self, threshold: float | None = None) -> dict[str, Any]:
        """Errors at one threshold (the nearest of the grid; None: where the GT-known error is least) and the curve."""
        errors = self.errors()
        if threshold is None:
            place = int(errors["gt_known"].argmin())
        else:
            place = int(np.abs(self.thresholds - threshold).argmin())
        return {
            "threshold": round(float(self.thresholds[place]), 6),
            **{name: float(curve[place]) for name, curve in errors.items()},
            "curve": {
                "thresholds": [round(float(value), 6) for value in self.thresholds],
                **{name: curve.tolist() for name, curve in errors.items()},
            },
        }

    def classification(self) -> dict[str, float] | None:
        """Share of images whose true class is not the first, or not among the first five; None without ranks."""
        if not self.n_images or self.n_ranked < self.n_images:
            return None
        return dict(zip(("top1", "top5"), (1 - self.class_hits / self.n_images).tolist(), strict=True))


class BoxAccuracy:
    """MaxBoxAcc (one box, around the largest outline) and MaxBoxAccV2 (the best of the boxes of all outlines)."""

    def __init__(self, thresholds: int | Array = 1000) -> None:
        limits = np.arange(0, 1, 1 / thresholds) if isinstance(thresholds, int) else np.asarray(thresholds, np.float64)
        self.thresholds = limits
        self.n_images = 0
        self.largest = np.zeros((len(DELTAS), len(limits)), np.int64)
        self.all = np.zeros_like(self.largest)

    def update(self, scores: FloatArray, boxes: Array, image_size: tuple[int, int]) -> None:
        """Add one image.

        Args:
            scores: map of the true class at 224x224, see :func:`class_map`.
            boxes: [m, 4] true boxes in pixels of the image.
            image_size: (H, W).
        """
        levels, n = outline_levels(scores, self.thresholds), len(self.thresholds)
        truth = inclusive(scaled_boxes(boxes, image_size))
        one = best_iou(published_boxes(boxes_of_levels(levels, n, "contour"), scores.shape), truth)
        outlines, places = contour_boxes(levels, n)
        several = np.zeros(n)
        np.maximum.at(several, places, best_iou(published_boxes(outlines, scores.shape), truth))
        for row, delta in enumerate(DELTAS):
            self.largest[row] += one >= delta
            self.all[row] += several >= delta
        self.n_images += 1

    def merge(self, other: BoxAccuracy) -> None:
        """Add what another one has counted."""
        self.n_images += other.n_images
        self.largest += other.largest
        self.all += other.all

    def result(self) -> dict[str, Any]:
        """``max_box_acc`` at IoU 0.5, and ``max_box_acc_v2`` by IoU and its mean, in [0, 1]."""
        best = self.all.max(axis=1) / max(self.n_images, 1)
        by_delta = {f"{delta}": float(value) for delta, value in zip(DELTAS, best, strict=True)}
        return {
            "max_box_acc": float(self.largest[DELTAS.index(0.5)].max() / max(self.n_images, 1)),
            "max_box_acc_v2": {**by_delta, "mean": float(best.mean())},
        }


def outline_levels(scores: FloatArray, thresholds: Array) -> NDArray[np.int32]:
    """Levels as wsolevaluation has them: scores in 256 steps, foreground above int(threshold * maximum)."""
    steps = (scores * 255).astype(np.uint8).astype(np.int64)
    return threshold_levels(steps, (np.asarray(thresholds) * steps.max(initial=0)).astype(np.int64), reached=False)


def scaled_boxes(boxes: Array, image_size: tuple[int, int], side: int = SIDE) -> Boxes:
    """Boxes [m, 4] of an image (H, W) on a grid of side x side, cut off to whole numbers, at most side - 1."""
    height, width = image_size
    ends = np.asarray(boxes, np.float64) * side / np.array([width, height, width, height])
    scaled: Boxes = np.minimum(ends.astype(np.int64), side - 1)
    return scaled


def inclusive(boxes: Array) -> Array:
    """Boxes whose last row and column belong to them, as half-open ones."""
    longer: Array = boxes + np.array([0, 0, 1, 1])
    return longer


def published_boxes(boxes: Boxes, size: Sequence[int]) -> Boxes:
    """Half-open boxes as wsolevaluation counts them: the end, cut to the frame, is a pixel of the box.

    Where nothing is foreground, it takes the first pixel for a box.
    """
    return inclusive(np.minimum(boxes, np.array([size[1], size[0]] * 2) - 1))


class PixelPrecision:
    """PxAP: area under precision over recall of all pixels of a split, from histograms of scores."""

    def __init__(self, interval: float = 0.001) -> None:
        # As wsolevaluation has them: the bins beyond 1 stay empty.
        self.edges = np.append(np.arange(0, 1, interval), [1.0, 2.0, 3.0])
        self.counts = np.zeros((2, len(self.edges) - 1), np.int64)

    def update(self, scores: FloatArray, mask: Array) -> None:
        """Add scores [H, W] in [0, 1] and a mask [H, W] of 1 (object), 0, and 255 (left out)."""
        for row, label in enumerate((0, 1)):
            values = scores[mask == label].astype(np.float64)
            places = np.searchsorted(self.edges, values, side="right") - 1
            self.counts[row] += np.bincount(places, minlength=self.counts.shape[1])

    def merge(self, other: PixelPrecision) -> None:
        """Add what another one has counted."""
        self.counts += other.counts

    def result(self) -> float | None:
        """In [0, 1]; None without an object pixel."""
        objects = self.counts[1].sum()
        if not objects:
            return None
        # From the highest threshold down, so that recall grows.
        hits = np.cumsum(self.counts[1][::-1])
        foreground = np.cumsum(self.counts.sum(0)[::-1])
        precision = np.divide(hits, foreground, out=np.zeros(len(hits)), where=foreground > 0)
        return float((precision[1:] * np.diff(hits / objects)).sum())


class IouCurve:
    """Mean over images of the IoU between {map >= t} and the object, at ``steps`` thresholds from 0 to 1."""

    def __init__(self, steps: int = 256) -> None:
        self.thresholds = np.linspace(0, 1, steps).astype(np.float32)
        self.total, self.n_images = np.zeros(steps), 0

    def update(self, scores: FloatArray, mask: Array) -> None:
        """Add scores [H, W] in [0, 1] and a mask as in :class:`PixelPrecision`; one without an object is left out."""
        if not (mask == 1).any():
            return
        levels, n = threshold_levels(scores, self.thresholds), len(self.thresholds)
        # At threshold i the pixels with a level above i are foreground: sums of the histogram's tail.
        foreground = [np.bincount(levels[mask == label], minlength=n + 1)[:0:-1].cumsum()[::-1] for label in (0, 1)]
        self.total += foreground[1] / (foreground[0] + (mask == 1).sum())
        self.n_images += 1

    def merge(self, other: IouCurve) -> None:
        """Add what another one has counted."""
        self.total += other.total
        self.n_images += other.n_images

    def result(self) -> dict[str, Any] | None:
        """``peak``, ``threshold`` and the curve; None without an image."""
        if not self.n_images:
            return None
        curve = self.total / self.n_images
        best = int(curve.argmax())
        return {
            "peak": float(curve[best]),
            "threshold": float(self.thresholds[best]),
            "curve": {"thresholds": [round(float(t), 6) for t in self.thresholds], "iou": curve.tolist()},
        }


def object_mask(mask: Array, label: int) -> NDArray[np.uint8]:
    """A label mask as 1 (the class), 0, and 255 where it is not known."""
    return np.where(mask == IGNORE_INDEX, IGNORE_INDEX, mask == label).astype(np.uint8)


def box_localization(
    maps: Sequence[Array | Tensor],
    boxes: Sequence[Array],
    *,
    image_sizes: Sequence[tuple[int, int]] | None = None,
    ranks: Sequence[int] | None = None,
    thresholds: Array | Sequence[float] | None = None,
    component: Component = "union",
    iou: float = 0.5,
    threshold: float | None = None,
) -> Mapping[str, Any]:
    """Localisation errors of a split.

    Args:
        maps: per image the map [h, w] of its true class, any scale.
        boxes: per image its true boxes [m, 4], half-open x0, y0, x1, y1 in pixels of the image.
        image_sizes: per image (H, W); None: those of the maps.
        ranks: per image the place of the true class among the classifier's scores, 0 for the first.
        thresholds: ascending, in [0, 1]; None: 0, 0.01, ..., 0.99.
        component: ``union``, ``largest`` or ``contour``, see ``boxes``.
        iou: a box is right where its IoU exceeds this.
        threshold: where to read the errors; None: where the GT-known error is least.

    Returns:
        ``n_images``, ``threshold``, ``gt_known`` (with ranks also ``top1`` and ``top5``): errors in [0, 1], and
        ``curve``: the same by threshold.

    Raises:
        DataError: lists of other lengths, a box that is none, or a map that is not finite.
    """
    limits = np.arange(100) / 100 if thresholds is None else thresholds
    errors = BoxErrors(limits, component, iou)
    sizes = [(int(scores.shape[0]), int(scores.shape[1])) for scores in maps] if image_sizes is None else image_sizes
    lengths = {len(maps), len(boxes), len(sizes), *([] if ranks is None else [len(ranks)])}
    if len(lengths) > 1:
        msg = f"{len(maps)} maps, {len(boxes)} lists of boxes and {len(sizes)} sizes (or ranks) do not fit"
        raise DataError(msg)
    for number, (scores, truth, size) in enumerate(zip(maps, boxes, sizes, strict=True)):
        known = np.asarray(truth).reshape(-1, 4) if np.size(truth) % 4 == 0 else np.empty((0, 4))
        if not len(known) or (known[:, 2:] <= known[:, :2]).any():
            msg = (
                f"image {number}: its true boxes are [m, 4] with x0 < x1 and y0 < y1, got {np.asarray(truth).tolist()}"
            )
            raise DataError(msg)
        errors.update(class_map(scores, size), known, None if ranks is None else ranks[number])
    return {"n_images": errors.n_images, **errors.result(threshold)}
