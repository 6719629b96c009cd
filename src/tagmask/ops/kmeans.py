"""Euclidean K-means with careful seeding and several restarts.

Lloyd, "Least squares quantization in PCM", 1982; Arthur & Vassilvitskii, "k-means++: The Advantages of Careful
Seeding", SODA 2007, with the best of several candidates at each seed, as scikit-learn does it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]
Labels = NDArray[np.int64]


def kmeans(
    vectors: NDArray[np.floating],
    clusters: int,
    rng: np.random.Generator,
    *,
    restarts: int = 10,
    rounds: int = 300,
    tolerance: float = 1e-4,
) -> tuple[Labels, Vectors]:
    """Group vectors so that the squared distances to their group's mean are small in sum; the best of all restarts.

    Args:
        vectors: [n, D] finite, n >= 1.
        clusters: groups to look for. Where fewer vectors differ, each of those gets a group.
        rng: decides the seeds.
        restarts: how often to start anew.
        rounds: most rounds of a start.
        tolerance: stop when the centres' squared moves sum to less than this part of the vectors' mean variance.

    Returns:
        int64 [n] group of each vector, 0 .. k - 1 with none empty; float64 [k, D] means, k <= ``clusters``.

    Raises:
        ValueError: no vector, or no cluster asked for.
    """
    points = np.asarray(vectors, dtype=np.float64)
    if len(points) == 0 or clusters < 1:
        msg = f"cannot make {clusters} groups of {len(points)} vectors"
        raise ValueError(msg)
    points = points - points.mean(0)  # distances by products lose digits far from the origin
    enough = tolerance * float(points.var(0).mean())
    best: tuple[float, Labels] | None = None
    for _ in range(restarts):
        labels, cost = _lloyd(points, _seeds(points, clusters, rng), rounds, enough)
        if best is None or cost < best[0]:
            best = cost, labels
    assert best is not None
    labels = np.unique(best[1], return_inverse=True)[1].reshape(-1).astype(np.int64)
    return labels, _means(np.asarray(vectors, dtype=np.float64), labels, int(labels.max()) + 1)


def _distances(points: Vectors, centres: Vectors) -> Vectors:
    """Squared distances [n, k]."""
    squares: Vectors = (points**2).sum(1)[:, None] + (centres**2).sum(1) - 2 * points @ centres.T
    return squares.clip(min=0.0)


def _from(points: Vectors, index: int) -> Vectors:
    """Squared distances [n] from one of the points; exactly 0 for its equals."""
    return np.asarray(((points - points[index]) ** 2).sum(1))


def _seeds(points: Vectors, clusters: int, rng: np.random.Generator) -> Vectors:
    """Each next seed is drawn with a chance that grows with its squared distance to those before."""
    candidates = 2 + int(np.log(clusters))
    chosen = [int(rng.integers(len(points)))]
    nearest = _from(points, chosen[0])
    while len(chosen) < clusters and (total := float(nearest.sum())) > 0:
        draws = np.searchsorted(np.cumsum(nearest), rng.random(candidates) * total, side="right")
        drawn = np.minimum(draws, len(points) - 1)
        after = np.stack([np.minimum(nearest, _from(points, index)) for index in drawn], axis=1)
        winner = int(after.sum(0).argmin())
        if nearest[drawn[winner]] == 0:  # rounding led to a vector that is a seed already
            drawn[winner] = int(nearest.argmax())
            after[:, winner] = np.minimum(nearest, _from(points, drawn[winner]))
        chosen.append(int(drawn[winner]))
        nearest = after[:, winner]
    return points[chosen]


def _lloyd(points: Vectors, centres: Vectors, rounds: int, enough: float) -> tuple[Labels, float]:
    """Groups and the sum of squared distances."""
    labels = _distances(points, centres).argmin(1)
    for _ in range(rounds):
        moved = _means(points, _filled(points, labels, centres), len(centres))
        step = float(((moved - centres) ** 2).sum())
        before, centres = labels, moved
        labels = _distances(points, centres).argmin(1)
        if step <= enough or np.array_equal(before, labels):
            break
    return labels, float(((points - centres[labels]) ** 2).sum())


def _filled(points: Vectors, labels: Labels, centres: Vectors) -> Labels:
    """A group that lost all its vectors takes the one farthest from its centre among groups that can spare one."""
    counts = np.bincount(labels, minlength=len(centres))
    if counts.all():
        return labels
    labels = labels.copy()
    order = np.argsort(-((points - centres[labels]) ** 2).sum(1), kind="stable")
    for empty in np.flatnonzero(counts == 0):
        spare = next((int(index) for index in order if counts[labels[index]] > 1), None)
        if spare is None:
            break
        counts[labels[spare]] -= 1
        labels[spare], counts[empty] = empty, 1
    return labels


def _means(points: Vectors, labels: Labels, count: int) -> Vectors:
    members = np.zeros((count, len(points)))
    members[labels, np.arange(len(points))] = 1.0
    means: Vectors = (members @ points) / np.maximum(members.sum(1), 1.0)[:, None]
    return means
