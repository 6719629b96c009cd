"""Scores by the size of the object: what one class covers of one image in the ground truth.

The object is all pixels of a foreground class in an image (masks of classes know no instances), its size their share of
the image's counted pixels. Objects are put into groups of fixed shares, and into the quarters of the split's own
sizes. In a group, hits and unions of a class are added up over its objects; the score is the mean over the classes that
have an object in the group. What is marked as a class in images without it belongs to no group (the split's mIoU
counts it), so these scores are a little higher than that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.metrics.counting import Void, divide
from tagmask.metrics.image_counts import ImageAreas, ImageCounts

SHARES = (0.01, 0.05, 0.2)
GROUPS = ("below 1 %", "1 to 5 %", "5 to 20 %", "from 20 %")
QUARTERS = ("smallest quarter", "second quarter", "third quarter", "largest quarter")


def object_shares(areas: ImageAreas) -> NDArray[np.float64]:
    """Share of its image that each object covers, float64 [N, n - 1]; NaN where the class is not in the image."""
    objects = areas.truth[:, 1:]
    # A class that an image does not have is no object of size 0.
    return np.where(objects > 0, divide(objects, areas.truth.sum(1, keepdims=True)), np.nan)


def by_object_size(counts: ImageCounts, void: Void = "ignored") -> dict[str, Any]:
    """Scores of small and large objects, JSON-ready.

    Returns:
        ``shares``: name of each fixed group -> scores; ``quarters``: the same for quarters of the objects by
        size; ``quarter_bounds``: the three shares between these, empty without an object. The scores: ``objects`` (how
        many), ``miou`` and ``recall``, means over classes in [0, 1], ``None`` where the group is empty.
    """
    areas = counts.areas(void)
    shares = object_shares(areas)
    known = ~np.isnan(shares)
    bounds = [float(bound) for bound in np.quantile(shares[known], (0.25, 0.5, 0.75))] if known.any() else []
    return {
        "shares": dict(zip(GROUPS, _groups(areas, shares, SHARES), strict=True)),
        "quarters": dict(zip(QUARTERS, _groups(areas, shares, bounds or SHARES), strict=True)),
        "quarter_bounds": bounds,
    }


def _groups(areas: ImageAreas, shares: NDArray[np.float64], bounds: Any) -> list[dict[str, Any]]:
    """Scores between neighbouring bounds; a share on a bound belongs to the larger ones."""
    place = np.searchsorted(np.asarray(bounds, np.float64), shares, side="right")
    place[np.isnan(shares)] = -1
    scores = []
    for group in range(len(bounds) + 1):
        inside = place == group
        hits, union, truth = (
            np.where(inside, part[:, 1:], 0).sum(0) for part in (areas.hits, areas.union, areas.truth)
        )
        present = truth > 0
        scores.append(
            {
                "objects": int(inside.sum()),
                "miou": float((hits[present] / union[present]).mean()) if present.any() else None,
                "recall": float((hits[present] / truth[present]).mean()) if present.any() else None,
            }
        )
    return scores
