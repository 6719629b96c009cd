"""K-means: Euclidean, with careful seeding and several restarts; and by cosine, as LPCAM has it.

Lloyd, "Least squares quantization in PCM", 1982; Arthur & Vassilvitskii, "k-means++: The Advantages of Careful
Seeding", SODA 2007, with the best of several candidates at each seed, as scikit-learn does it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Vectors = NDArray[np.float64]
Labels = NDArray[np.int64]
Centre = Literal["raw_mean", "unit"]

EPS = 1e-8
#: Mean squared length of features that the published tolerance, 5, is right for: 2,048 channels of about 1.
_PUBLISHED_SQUARE = 2048.0
#: (sum of the centres' shifts)^2 below which unit centres count as still.
_UNIT_TOLERANCE = 1e-4


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
    # As scikit-learn: the best of a few draws, so that an unlucky one costs nothing.
    candidates = 2 + int(np.log(clusters))
    seeds = [int(rng.integers(len(points)))]
    nearest = _from(points, seeds[0])
    while len(seeds) < clusters and (total := float(nearest.sum())) > 0:
        draws = np.searchsorted(np.cumsum(nearest), rng.random(candidates) * total, side="right")
        indices = np.minimum(draws, len(points) - 1)
        after = np.stack([np.minimum(nearest, _from(points, index)) for index in indices], axis=1)
        winner = int(after.sum(0).argmin())
        if nearest[indices[winner]] == 0:  # rounding led to a vector that is a seed already
            indices[winner] = int(nearest.argmax())
            after[:, winner] = np.minimum(nearest, _from(points, indices[winner]))
        seeds.append(int(indices[winner]))
        nearest = after[:, winner]
    return points[seeds]


def _lloyd(points: Vectors, centres: Vectors, rounds: int, enough: float) -> tuple[Labels, float]:
    """Groups and the sum of squared distances."""
    labels = _distances(points, centres).argmin(1)
    for _ in range(rounds):
        means = _means(points, _without_empty(points, labels, centres), len(centres))
        step = float(((means - centres) ** 2).sum())
        before, centres = labels, means
        labels = _distances(points, centres).argmin(1)
        if step <= enough or np.array_equal(before, labels):
            break
    return labels, float(((points - centres[labels]) ** 2).sum())


def _without_empty(points: Vectors, labels: Labels, centres: Vectors) -> Labels:
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
    # A product with the membership matrix instead of ``np.add.at``, which goes point by point.
    members = np.zeros((count, len(points)))
    members[labels, np.arange(len(points))] = 1.0
    means: Vectors = (members @ points) / np.maximum(members.sum(1), 1.0)[:, None]
    return means


def unit(vectors: Tensor, dim: int = -1) -> Tensor:
    """Vectors divided by max(their length, 1e-8), as torch's cosine similarity does."""
    return functional.normalize(vectors, dim=dim, eps=EPS)


def cosine_kmeans(
    features: Tensor,
    clusters: int,
    rng: np.random.Generator,
    *,
    centre: Centre = "raw_mean",
    tolerance: float = 5.0,
    scale_tolerance: bool = True,
    max_iterations: int = 300,
) -> tuple[Tensor, Tensor]:
    """K-means that assigns by cosine, as the published LPCAM does (docs/methods/lpcam.md).

    Starts from distinct random features, gives an empty cluster one random feature, and stops when
    (sum over the centres of how far each moved)^2 < ``tolerance``, which is that of features with a mean squared length
    of 2,048: for others it is in proportion, so that features of any height are clustered alike.

    Args:
        features: float [n, D], n >= 1, not normalised.
        clusters: K >= 1; with fewer features than that there are as many clusters as features.
        rng: of the first centres and of what empty clusters take.
        centre: ``raw_mean`` (published): mean of the members as they are; ``unit``: their mean direction, length 1.
        tolerance: of the centres' moves, see above; unit centres use 1e-4 instead.
        scale_tolerance: False: ``tolerance`` as it stands, whatever the features' height, as published.
        max_iterations: at most so many assignments.

    Returns:
        centres float32 [min(K, n), D], cluster of each feature int64 [n].

    Raises:
        ValueError: no features, or fewer than one cluster.
    """
    if len(features) == 0 or clusters < 1:
        msg = f"cannot make {clusters} clusters of {len(features)} features"
        raise ValueError(msg)
    # Two copies of the features: directions decide who belongs to whom, the raw ones (``members``) make the centres,
    # whose length the selection of prototypes needs.
    points = features.detach().cpu().float().contiguous()
    directions = unit(points)
    members = (points if centre == "raw_mean" else directions).double()
    if scale_tolerance:
        # In features' units, small features (a linear bottleneck's, say) would stand still before they had moved.
        tolerance *= float(points.double().square().sum(dim=1).mean()) / _PUBLISHED_SQUARE
    still = tolerance if centre == "raw_mean" else _UNIT_TOLERANCE
    count = min(clusters, len(points))
    centres = members[torch.from_numpy(rng.choice(len(points), count, replace=False))]
    owner = torch.zeros(len(points), dtype=torch.int64)
    for _ in range(max_iterations):
        owner = _nearest(directions, unit(centres).float())
        means = _cluster_means(members, owner, count, rng)
        if centre == "unit":
            means = unit(means)
        shift = float((means - centres).norm(dim=1).sum())
        centres = means
        if shift**2 < still:
            break
    return centres.float(), owner


def _nearest(directions: Tensor, centres: Tensor) -> Tensor:
    """Index int64 [n] of the centre with the largest inner product, found by faiss."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # the order of sums, and so every bit, must not depend on the machine
    try:
        index = faiss.IndexFlatIP(centres.shape[1])
        index.add(np.ascontiguousarray(centres.numpy()))
        _, nearest = index.search(directions.numpy(), 1)
    finally:
        faiss.omp_set_num_threads(threads)
    return torch.from_numpy(nearest[:, 0]).clamp(min=0)  # faiss says -1 where features are not finite


def _cluster_means(members: Tensor, owner: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    sizes = torch.bincount(owner, minlength=count)
    sums = torch.zeros(count, members.shape[1], dtype=members.dtype).index_add_(0, owner, members)
    means = sums / sizes.clamp(min=1)[:, None]
    for empty in torch.nonzero(sizes == 0)[:, 0].tolist():
        means[empty] = members[int(rng.integers(len(members)))]
    return means
