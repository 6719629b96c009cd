"""Prototypes of a class in feature space: LPCAM's clustering and selection (docs/methods/lpcam.md).

Chen and Sun, "Extracting Class Activation Maps from Non-Discriminative Features as well", CVPR 2023. Clusters are
assigned by cosine, but a centre is the arithmetic mean of its raw members: the selection uses the centre's length.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from tagmask.ops.kmeans import unit

Keep = Literal["above", "between"]
Posterior = Literal["classes", "centres"]


def split_positions(mask: Tensor, size: tuple[int, int], threshold: float) -> tuple[Tensor, Tensor]:
    """Which cells of a feature grid are the class and which are its context.

    Args:
        mask: float [H, W] activation map of the class, divided by its maximum.
        size: (h, w) of the feature grid.
        threshold: tau. A cell exactly at it belongs to neither, as in the published code; NaN neither.

    Returns:
        bool [h, w] foreground, bool [h, w] context; the mask is resized by torch's nearest.
    """
    # Nearest (floor), as published: tau compares values of the map itself, not averages over a cell.
    resized = functional.interpolate(mask[None, None], size=size, mode="nearest")[0, 0]
    return resized > threshold, resized < threshold


def prototype_scores(
    centers: Tensor, class_weights: Tensor, class_index: int, *, posterior: Posterior = "classes"
) -> Tensor:
    """How surely each centre [K, D] is the class, float [K] in [0, 1].

    ``classes`` is the classifier's own posterior of a centre, the softmax over classes, which the published code
    uses; ``centres`` is the softmax over centres that the paper prints (Eq. 3), which sums to one over the K.
    """
    # Thresholds near 0.9 and 0.5 make sense for a softmax over classes only: of twelve centres that share a sum of one,
    # at most one could pass.
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
    """The centres that stand for a class, or for its context (Eq. 3 and 4 of the paper).

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
    return centers[keep_mask(scores, threshold, keep)]


def keep_mask(scores: Tensor, threshold: float | tuple[float, float], keep: Keep) -> Tensor:
    """Which scores [K] pass, bool [K]: see :func:`select_prototypes`."""
    if keep == "above" and not isinstance(threshold, tuple):
        return scores > threshold
    if keep == "between" and isinstance(threshold, tuple):
        return (scores > threshold[0]) & (scores < threshold[1])
    msg = f"keep={keep!r} takes {'one threshold' if keep == 'above' else '(low, high)'}, not {threshold!r}"
    raise ValueError(msg)


def class_vector(class_prototypes: Tensor, context_prototypes: Tensor) -> Tensor:
    """The one vector [D] that all prototypes of a class come down to (docs/methods/lpcam.md).

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
