"""Which tags of an image are likely to be wrong: a classifier that has not seen them, held against them.

Sources: Alain and Bengio, "Understanding intermediate layers using linear classifier probes", ICLR workshop 2017
(logistic regression on frozen features); Northcutt, Jiang and Chuang, "Confident learning", JAIR 2021 (a label is held
against the average confidence of its class, out of fold).

Deviation: every class is a question of its own, with an average confidence for yes and one for no, since an image has
any number of tags. The doubt is the distance to that average; no number of label errors is estimated.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

FOLDS = 5
#: Of the squared weights, on features of variance 1 / D: the best of 3e-3, 1e-3, 3e-4, 1e-4 (benchmarks/tag_doubts.py).
PENALTY = 3e-4
_UPDATES = 60


def fit_probe(features: Tensor, tags: Tensor, *, penalty: float = PENALTY) -> tuple[Tensor, Tensor]:
    """Logistic regression of each class, by L-BFGS.

    Args:
        features: float32 [N, D].
        tags: bool [N, C].
        penalty: of half the squared weights, beside the mean cross entropy of the N rows.

    Returns:
        Weights [D, C] and biases [C].
    """
    targets = tags.float()
    weights = torch.zeros(features.shape[1], tags.shape[1], requires_grad=True)
    bias = torch.zeros(tags.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=_UPDATES, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = features @ weights + bias
        total = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
        total = total + penalty / 2 * weights.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach(), bias.detach()


def out_of_fold_probabilities(
    features: Tensor, tags: Tensor, *, folds: int = FOLDS, seed: int = 0, penalty: float = PENALTY
) -> Tensor:
    """Probability [N, C] of each tag by a probe that was fitted without the image.

    Args:
        features: float32 [N, D], finite.
        tags: bool [N, C].
        folds: parts of which each is left out once, drawn by ``seed``; at most N.
        seed: of the parts.
        penalty: see :func:`fit_probe`.

    Raises:
        ValueError: shapes that do not fit, or fewer than two rows.
    """
    n_images = len(features)
    if features.ndim != 2 or tags.ndim != 2 or len(tags) != n_images or n_images < 2:
        msg = f"features {tuple(features.shape)} and tags {tuple(tags.shape)} must be [N, D] and [N, C], N at least 2"
        raise ValueError(msg)
    folds = min(folds, n_images)
    order = torch.randperm(n_images, generator=torch.Generator().manual_seed(seed))
    fold = torch.empty(n_images, dtype=torch.long)
    fold[order] = torch.arange(n_images) % folds
    logits = torch.empty(tags.shape, dtype=torch.float32)
    for part in range(folds):
        inside, outside = fold != part, fold == part
        mean, deviation = features[inside].mean(0), features[inside].std(0, correction=0)
        scaled = (features - mean) / (deviation + 1e-6) / features.shape[1] ** 0.5
        weights, bias = fit_probe(scaled[inside], tags[inside], penalty=penalty)
        logits[outside] = scaled[outside] @ weights + bias
    return logits.sigmoid()


def tag_doubts(probabilities: Tensor, tags: Tensor) -> Tensor:
    """How far each tag, given or missing, stands apart from what is usual for its class: [N, C] in [-1, 1].

    A given tag is doubted by the mean probability of the class's images minus that of this one, a missing tag by its
    probability minus the mean of the images without the class.

    Args:
        probabilities: [N, C] out of fold.
        tags: bool [N, C]; True where the tag is given.
    """
    given = tags.float()
    usual_yes = (probabilities * given).sum(0) / given.sum(0).clamp(min=1)
    usual_no = (probabilities * (1 - given)).sum(0) / (1 - given).sum(0).clamp(min=1)
    return torch.where(tags, usual_yes - probabilities, probabilities - usual_no)
