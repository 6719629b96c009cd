"""Prototypes of a class in feature space: LPCAM's clustering and selection (methods.md 6.1-6.3).

Chen and Sun, "Extracting Class Activation Maps from Non-Discriminative Features as well", CVPR 2023. Clusters are
assigned by cosine, but a centre is the arithmetic mean of its raw members: the selection uses the centre's length.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Keep = Literal["above", "between"]
Posterior = Literal["classes", "centres"]
Centre = Literal["raw_mean", "unit"]
#: (sum of the centres' shifts)^2 below which unit centres count as still.
_UNIT_TOLERANCE = 1e-4
EPS = 1e-8


def unit(vectors: Tensor, dim: int = -1) -> Tensor:
    """Vectors divided by max(their length, 1e-8), as torch's cosine similarity does."""
    return functional.normalize(vectors, dim=dim, eps=EPS)


def split_positions(mask: Tensor, size: tuple[int, int], threshold: float) -> tuple[Tensor, Tensor]:
    """Which cells of a feature grid are the class and which are its context.

    Args:
        mask: float [H, W] activation map of the class, divided by its maximum.
        size: (h, w) of the feature grid.
        threshold: tau. A cell exactly at it belongs to neither (methods.md 6.1; NaN neither).

    Returns:
        bool [h, w] foreground, bool [h, w] context; the mask is resized by torch's nearest.
    """
    resized = functional.interpolate(mask[None, None], size=size, mode="nearest")[0, 0]
    return resized > threshold, resized < threshold


def cosine_kmeans(
    features: Tensor,
    clusters: int,
    rng: np.random.Generator,
    *,
    centre: Centre = "raw_mean",
    tolerance: float = 5.0,
    max_iterations: int = 300,
) -> tuple[Tensor, Tensor]:
    """K-means that assigns by cosine (methods.md 6.2).

    Starts from distinct random features, gives an empty cluster one random feature, and stops when
    (sum over the centres of how far each moved)^2 < ``tolerance``.

    Args:
        features: float [n, D], n >= 1, not normalised.
        clusters: K >= 1; with fewer features than that there are as many clusters as features.
        rng: of the first centres and of what empty clusters take.
        centre: ``raw_mean`` (published): mean of the members as they are; ``unit``: their mean direction, length 1.
        tolerance: in the features' own unit, squared; unit centres use 1e-4 instead.
        max_iterations: at most so many assignments.

    Returns:
        centres float32 [min(K, n), D], cluster of each feature int64 [n].

    Raises:
        ValueError: no features, or fewer than one cluster.
    """
    if len(features) == 0 or clusters < 1:
        msg = f"cannot make {clusters} clusters of {len(features)} features"
        raise ValueError(msg)
    points = features.detach().cpu().float().contiguous()
    directions = unit(points)
    members = (points if centre == "raw_mean" else directions).double()
    still = tolerance if centre == "raw_mean" else _UNIT_TOLERANCE
    count = min(clusters, len(points))
    centres = members[torch.from_numpy(rng.choice(len(points), count, replace=False))]
    owner = torch.zeros(len(points), dtype=torch.int64)
    for _ in range(max_iterations):
        owner = _nearest(directions, unit(centres).float())
        moved = _means(members, owner, count, rng)
        if centre == "unit":
            moved = unit(moved)
        shift = float((moved - centres).norm(dim=1).sum())
        centres = moved
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
        _, found = index.search(directions.numpy(), 1)
    finally:
        faiss.omp_set_num_threads(threads)
    return torch.from_numpy(found[:, 0]).clamp(min=0)  # faiss says -1 where features are not finite


def _means(members: Tensor, owner: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    sizes = torch.bincount(owner, minlength=count)
    sums = torch.zeros(count, members.shape[1], dtype=members.dtype).index_add_(0, owner, members)
    means = sums / sizes.clamp(min=1)[:, None]
    for empty in torch.nonzero(sizes == 0)[:, 0].tolist():
        means[empty] = members[int(rng.integers(len(members)))]
    return means


def prototype_scores(
    centers: Tensor, class_weights: Tensor, class_index: int, *, posterior: Posterior = "classes"
) -> Tensor:
    """How surely each centre [K, D] is the class, float [K] in [0, 1] (methods.md 6.3).

    ``classes`` is the classifier's own posterior of a centre, the softmax over classes, which the published code
    uses; ``centres`` is the softmax over centres that the paper prints (Eq. 3), which sums to one over the K.
    """
    logits = centers.float() @ class_weights.float().T
    return logits.softmax(dim=1)[:, class_index] if posterior == "classes" else logits[:, class_index].softmax(dim=0)


def select_prototypes(
    centers: Tensor,
    class_weights: Tensor,
    class_index: int,
    *,
    threshold: float | tuple[float, float],
    keep: Keep,
    posterior: Posterior = "classes",
) -> Tensor:
    """The centres that stand for a class, or for its context (methods.md 6.3).

    Args:
        centers: float [K, D] raw-mean centres.
        class_weights: float [C, D] of the classifier, foreground classes only.
        class_index: c in 0..C-1.
        threshold: a number for ``above``, (low, high) for ``between``; both strict.
        keep: ``above`` keeps class prototypes, ``between`` context prototypes, which the classifier half believes.
        posterior: see :func:`prototype_scores`.

    Returns:
        float [K', D], 0 <= K' <= K, in the order of ``centers``.

    Raises:
        ValueError: the threshold does not fit ``keep``.
    """
    scores = prototype_scores(centers, class_weights, class_index, posterior=posterior)
    return centers[kept(scores, threshold, keep)]


def kept(scores: Tensor, threshold: float | tuple[float, float], keep: Keep) -> Tensor:
    """Which scores [K] pass, bool [K]: see :func:`select_prototypes`."""
    if keep == "above" and not isinstance(threshold, tuple):
        return scores > threshold
    if keep == "between" and isinstance(threshold, tuple):
        return (scores > threshold[0]) & (scores < threshold[1])
    msg = f"keep={keep!r} takes {'one threshold' if keep == 'above' else '(low, high)'}, not {threshold!r}"
    raise ValueError(msg)


def class_vector(class_prototypes: Tensor, context_prototypes: Tensor) -> Tensor:
    """The one vector [D] that all prototypes of a class come down to (methods.md 6.4).

    The mean cosine to [K1, D] prototypes is linear in the unit feature, so FG - BG is the inner product with the
    mean of the unit class prototypes minus the mean of the unit context prototypes [K2, D]; K2 may be 0.

    Raises:
        ValueError: no class prototype.
    """
    if len(class_prototypes) == 0:
        msg = "a class without prototypes has no map"
        raise ValueError(msg)
    vector = unit(class_prototypes).mean(dim=0)
    return vector - unit(context_prototypes).mean(dim=0) if len(context_prototypes) else vector
