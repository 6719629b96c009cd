"""SCG: self-correlation of features, and maps made of it. The direct ancestor of SSA.

Pan et al., "Unveiling the Potential of Structure Preserving for Weakly Supervised Object Localization" (SPA),
CVPR 2021, as in its published code (docs/methods/scg.md).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional


def self_correlation(
    features: Tensor, *, order: int = 2, first_threshold: float = 0.1, second_threshold: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Which positions look alike, directly and through others.

    SCG of SPA (Pan et al., CVPR 2021; docs/methods/scg.md).

    Args:
        features: [D, h, w] float; a position of zeros is alike to nothing.
        order: 2, or more: how many steps the second matrix goes.
        first_threshold: cosines below are 0.
        second_threshold: entries of the second matrix below this / n are 0.

    Returns:
        The first-order and the second-order correlation, [n, n] each with n = h * w, >= 0; column p describes
        position p. The published settings are (0.1, 0.5) on CUB and (0.2, 0.2) on ILSVRC.

    Raises:
        ValueError: order below 2.
    """
    if order < 2:
        msg = f"order {order}: the second matrix takes at least 2"
        raise ValueError(msg)
    unit = functional.normalize(features.flatten(1), dim=0)
    similar = functional.relu(unit.T @ unit)
    similar = torch.where(similar < first_threshold, torch.zeros_like(similar), similar)
    first = similar / (similar.sum(0) + 1e-5)
    # A position is alike to itself anyway; with the diagonal, two steps would mostly be one step and a rest.
    step = similar.fill_diagonal_(0)
    step = step / (step.sum(0) + 1e-5)
    second = step
    for _ in range(order - 1):
        second = second @ step
        second = second / (second.sum(0) + 1e-10)
    second = torch.where(second < second_threshold / len(second), torch.zeros_like(second), second)
    return first, second


def combined_correlation(stages: Iterable[tuple[Tensor, Tensor]], *, second_weight: float = 2.0) -> Tensor:
    """One matrix [n, n] of the (first, second) order matrices of several stages.

    Per stage max(first, second_weight * second) with columns that sum to 1, added over the stages. The published
    weights are 2 on CUB and 1 on ILSVRC.
    """
    merged = [torch.maximum(first, second_weight * second) for first, second in stages]
    return torch.stack([matrix / (matrix.sum(0) + 1e-10) for matrix in merged]).sum(0)


def correlated_map(seed: Tensor, correlation: Tensor, *, foreground: float = 0.1, background: float = 0.05) -> Tensor:
    """A map made anew from the positions that look like its foreground, minus those like its background.

    Args:
        seed: [h, w] float in [0, 1]; foreground are values >= ``foreground``, background values <= ``background``.
        correlation: [n, n], n = h * w, see :func:`combined_correlation`.
        foreground: see ``seed``.
        background: see ``seed``.

    Returns:
        [h, w] float in [0, 1].
    """
    values = seed.flatten()
    alike = _columns(correlation[:, values >= foreground]) - _columns(correlation[:, values <= background])
    return stretched(functional.relu(alike), 0).view_as(seed)


def _columns(similarity: Tensor) -> Tensor:
    """Sum over columns [n, m] of which each counts from 0 to 1, itself from 0 to 1; zeros without columns."""
    if similarity.shape[1] == 0:
        return similarity.new_zeros(similarity.shape[0])
    return stretched(stretched(similarity, 0).sum(1), 0)


def stretched(values: Tensor, dim: int) -> Tensor:
    """Min-max normalised along one dimension: in [0, 1], zeros where all are the same."""
    low = values.amin(dim, keepdim=True)
    return (values - low) / (values.amax(dim, keepdim=True) - low + 1e-10)
