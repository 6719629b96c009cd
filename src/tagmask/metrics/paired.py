"""Two predictions of the same images: is the difference in mIoU more than the choice of images?

Paired bootstrap (Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13): images are drawn with
replacement, the same for both, and the mIoU of each draw is computed from the summed counts of its images, as that of
the split is. The interval holds the uncertainty of the images, not that of seeds: for that, compare over several.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagmask.errors import DataError
from tagmask.metrics.counting import Void, divide
from tagmask.metrics.image_counts import ImageCounts
from tagmask.metrics.segmentation import Average

Floats = NDArray[np.float64]
_DRAWS_AT_ONCE = 64  # weights [64, N] at a time, however many draws there are


@dataclass(frozen=True)
class Interval:
    """A difference (second minus first) and its percentile interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, eq=False)
class PairedDifference:
    """The comparison of two predictions; all scores in [0, 1].

    ``miou`` of both, their ``difference``; ``iou`` float64 [2, n] of the classes, ``by_class`` an interval for each;
    ``images`` float64 [N, 2] the mean IoU of each image, ``ids`` in the same order; ``draws`` how often images were
    drawn, ``level`` of the intervals.
    """

    ids: tuple[str, ...]
    miou: tuple[float, float]
    iou: Floats
    difference: Interval
    by_class: tuple[Interval, ...]
    images: Floats
    draws: int
    level: float

    @property
    def image_differences(self) -> Floats:
        """Second minus first of each image, float64 [N]; NaN where all is void."""
        return self.images[:, 1] - self.images[:, 0]

    def order(self) -> NDArray[np.intp]:
        """Places of the images from the largest loss to the largest gain, those without a score left out."""
        differences = self.image_differences
        order = np.argsort(differences, kind="stable")
        return order[~np.isnan(differences[order])]


def paired_bootstrap(
    first: ImageCounts,
    second: ImageCounts,
    *,
    void: Void = "ignored",
    average: Average = "occurring",
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Compare two predictions of the same images.

    Args:
        first: counts of one prediction; the images are those that both have scored.
        second: counts of the other one.
        void: what becomes of void pixels.
        average: over which classes the mean goes, see :func:`tagmask.metrics.mean_iou`; decided in each draw.
        draws: how many bootstrap samples.
        level: of the percentile interval.
        seed: of the draws; the same seed draws the same images.

    Raises:
        DataError: not the same classes, or no image in common.
        ValueError: draws below 1, or a level outside (0, 1).
    """
    if draws < 1 or not 0 < level < 1:
        msg = f"draws must be at least 1 and the level in (0, 1), not {draws} and {level}"
        raise ValueError(msg)
    first, second = common_images(first, second)
    pair = _Areas.of(first, void), _Areas.of(second, void)
    iou, miou = zip(*(part.scores(np.ones((1, len(first))), average) for part in pair), strict=True)
    # The same images are drawn for both: what makes an image hard for both cancels in the difference, whose interval is
    # therefore narrower than those of the two scores suggest.
    means, classes = _bootstrap(pair, len(first), average, draws, np.random.default_rng(seed))
    tails = (50 * (1 - level), 100 - 50 * (1 - level))

    def interval(value: float, sample: Floats) -> Interval:
        # A draw without any image of a class says nothing about the class.
        known = sample[~np.isnan(sample)]
        if np.isnan(value) or not known.size:
            return Interval(float("nan"), float("nan"), float("nan"))
        low, high = np.percentile(known, tails)
        return Interval(float(value), float(low), float(high))

    return PairedDifference(
        ids=first.ids,
        miou=(float(miou[0][0]), float(miou[1][0])),
        iou=np.concatenate(iou),
        difference=interval(float(miou[1][0] - miou[0][0]), means),
        by_class=tuple(interval(*own) for own in zip((iou[1] - iou[0])[0], classes.T, strict=True)),
        images=np.stack([first.image_miou(void), second.image_miou(void)], axis=1),
        draws=draws,
        level=level,
    )


def common_images(first: ImageCounts, second: ImageCounts) -> tuple[ImageCounts, ImageCounts]:
    """Both for the images that both have scored, in the order of the first.

    Raises:
        DataError: other classes, or no image in common.
    """
    if first.n_classes != second.n_classes:
        msg = f"one has {first.n_classes} classes, the other {second.n_classes}: they are not of the same data"
        raise DataError(msg)
    places = {name: place for place, (name, scored) in enumerate(zip(second.ids, second.scored, strict=True)) if scored}
    common = [place for place, name in enumerate(first.ids) if first.scored[place] and name in places]
    if not common:
        msg = "no image was scored in both"
        raise DataError(msg)
    return first.take(common), second.take([places[first.ids[place]] for place in common])


@dataclass(frozen=True, eq=False)
class _Areas:
    """What IoUs are made of, float64 [N, n] so that draws are products of matrices; whole numbers stay exact."""

    hits: Floats
    union: Floats
    occurs: Floats

    @classmethod
    def of(cls, counts: ImageCounts, void: Void) -> _Areas:
        areas = counts.areas(void)
        return cls(areas.hits.astype(np.float64), areas.union.astype(np.float64), (areas.truth > 0).astype(np.float64))

    def scores(self, weights: Floats, average: Average) -> tuple[Floats, Floats]:
        """IoU [draws, n] and mIoU [draws] of images that count ``weights`` [draws, N] times; NaN for none."""
        hits, union = weights @ self.hits, weights @ self.union
        iou = divide(hits, union)
        counted = ~np.isnan(iou)
        if average == "occurring":
            counted &= weights @ self.occurs > 0
        return iou, divide(np.where(counted, iou, 0.0).sum(1), counted.sum(1))


def _bootstrap(
    pair: tuple[_Areas, _Areas], n_images: int, average: Average, draws: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Differences of mIoU [draws] and of class IoU [draws, n]."""
    means, classes = [], []
    for start in range(0, draws, _DRAWS_AT_ONCE):
        draw = rng.integers(0, n_images, (min(_DRAWS_AT_ONCE, draws - start), n_images))
        # How often each image is in each draw: the sums over a draw's images are then one product of matrices.
        cells = (np.arange(len(draw))[:, None] * n_images + draw).reshape(-1)
        weights = np.bincount(cells, minlength=draw.size).reshape(draw.shape).astype(np.float64)
        (iou_before, mean_before), (iou_after, mean_after) = (part.scores(weights, average) for part in pair)
        means.append(mean_after - mean_before)
        classes.append(iou_after - iou_before)
    return np.concatenate(means), np.concatenate(classes)
