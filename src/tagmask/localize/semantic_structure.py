"""The semantic structure of an image: which positions look alike, and maps averaged over those that do.

The semantic structure module of SSA (Sun & Li, "SSA: Semantic Structure Aware Inference for Weakly Pixel-Wise Dense
Predictions without Cost", arXiv 2021), equations 2-6 (methods.md 5.1). With unit features F of n = h * w positions:

    S' = F'F - I        N = tanh(S') * S' (element-wise)        S1 = N / column sums                  (one block)
    S2 = relu(S1'S1 - I) / column sums                                                                (two blocks)
    S3 = relu(S2'S2 - I) / column sums                                                                (three blocks)

Maps C [K, n] are polished as C S: each position gets a weighted average of the map over positions that look like it.
``semantic_structure`` returns S for inspection; ``polish`` never builds S2 or S3 (methods.md 5.3): N >= 0 and the
columns of S1 sum to one, so that relu(. - I) does nothing but set the diagonal to zero, and products with S1'S1 are
two products with N of K + 1 rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Norm = Literal["channel_l2", "spatial_l2", "spatial_sqrt"]
Blocks = Literal[1, 2, 3]
Epsilon = Literal["identity"] | float

TINY = 1e-10
#: Entries of N that are held at once; where n * n is more, N is made anew, some rows at a time, for every product.
HELD = 2**25


def semantic_structure(
    features: Tensor,
    *,
    blocks: Blocks = 2,
    norm: Norm = "channel_l2",
    epsilon: Epsilon = "identity",
    clip: bool = False,
) -> Tensor:
    """The structure matrix S itself, by definition, at O(n^3): for inspection and tests (methods.md 5.1).

    Args:
        features: [D, h, w] float.
        blocks: number of self-affinity blocks.
        norm: see :func:`normalize_features`.
        epsilon: what is subtracted from the Gram matrix: the identity, or this number everywhere.
        clip: set negative similarities to 0. Without, they count like positive ones, for tanh(x) x is even.

    Returns:
        [n, n] of the features' dtype, n = h * w, >= 0; columns sum to 1, or to 0 where nothing is alike.
    """
    affinity = Affinity(features, norm, epsilon, clip=clip).rows(0, features.shape[1] * features.shape[2])
    structure = affinity / (affinity.sum(0) + TINY)
    for _ in range(blocks - 1):
        product = structure.T @ structure
        # At most 1 by definition; subtracting 1 would leave rounding noise.
        product.fill_diagonal_(0)
        structure = product / (product.sum(0) + TINY)
    return structure


def polish(
    maps: Tensor,
    features: Tensor,
    *,
    blocks: Blocks = 2,
    norm: Norm = "channel_l2",
    epsilon: Epsilon = "identity",
    clip: bool = False,
) -> Tensor:
    """Maps times ``semantic_structure(features, ...)`` in O(K n^2 + D n^2), equal to float precision.

    Three blocks need the diagonal of a fourth power, and with it one n x n x n product, made some rows at a time.

    Args:
        maps: [K, h, w] float, >= 0, not normalised.
        features: [D, h, w] float of the same positions.
        blocks: number of self-affinity blocks.
        norm: see :func:`normalize_features`.
        epsilon: what is subtracted from the Gram matrix: the identity, or this number everywhere.
        clip: set negative similarities to 0.

    Returns:
        [K, h, w] of the features' dtype, >= 0, at most the maximum of each map; 0 where nothing is alike.

    Raises:
        ValueError: maps and features differ in size.
    """
    if maps.shape[-2:] != features.shape[-2:]:
        msg = f"maps are {tuple(maps.shape[-2:])}, features {tuple(features.shape[-2:])}"
        raise ValueError(msg)
    affinity = Affinity(features, norm, epsilon, clip=clip)
    # The last row gives the column sums, which normalise at the end.
    rows = torch.cat([maps.flatten(1).to(features.dtype), features.new_ones(1, affinity.positions)])
    sums, squares = affinity.sums()
    inverse = 1 / (sums + TINY)
    if blocks == 1:
        averaged = affinity.times(rows[:-1]) * inverse
        return averaged.view_as(maps)
    lost = squares * inverse**2
    result = _squared(rows, affinity, inverse, lost)
    if blocks == 3:
        again = _inverse(result[-1], lost, affinity.positions)
        norms = _squared_columns(affinity, inverse, lost) * again**2
        result = _squared(_squared(rows * again, affinity, inverse, lost), affinity, inverse, lost) * again
        result, lost = result - rows * norms, norms
    averaged = result[:-1].clamp(min=0) * _inverse(result[-1], lost, affinity.positions)
    return averaged.view_as(maps)


def normalize_features(features: Tensor, norm: Norm) -> Tensor:
    """Features [D, n] before the Gram matrix.

    ``channel_l2``: each position's vector has unit length, so that the Gram matrix is the cosine. ``spatial_l2``: each
    channel has unit length over positions. ``spatial_sqrt``: equation 2 as printed, each channel divided by the
    square root of its sum over positions; it is meant for features >= 0, so negative ones are set to 0.
    """
    if norm == "spatial_sqrt":
        positive = functional.relu(features)
        return positive / (positive.sum(1, keepdim=True).sqrt() + TINY)
    lengths: Tensor = torch.linalg.vector_norm(features, dim=0 if norm == "channel_l2" else 1, keepdim=True)
    return features / (lengths + TINY)


class Affinity:
    """N = tanh(S') * S' of one view at one stage: [n, n], symmetric, >= 0, held only where it is small enough.

    Under autocast the Gram matrix is made at half precision, like the features were; the rest never is, because it
    takes differences of near equal numbers.
    """

    def __init__(self, features: Tensor, norm: Norm, epsilon: Epsilon, *, clip: bool) -> None:
        self.unit = normalize_features(features.flatten(1), norm)
        self.epsilon, self.clip = epsilon, clip
        # Cosine has a diagonal of 1 up to rounding, and 0 where all features are 0: without self-similarity it is 0.
        self.empty_diagonal = norm == "channel_l2" and epsilon == "identity"
        self.positions = self.unit.shape[1]
        self.step = max(1, HELD // max(1, self.positions))
        self.held = self._gated(self._gram(), 0) if self.step >= self.positions else None

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of N."""
        return self._gated((self.unit[:, start:stop].T @ self.unit).to(self.unit.dtype), start)

    def _gram(self) -> Tensor:
        """The whole Gram matrix; what lies under its diagonal is copied, not computed."""
        unit, size = self.unit, self.positions
        gram = unit.new_empty(size, size)
        step = max(1, -(-size // 4))
        for start in range(0, size, step):
            stop = min(start + step, size)
            gram[start:stop, start:] = unit[:, start:stop].T @ unit[:, start:]
            gram[stop:, start:stop] = gram[start:stop, stop:].T
        return gram

    def _gated(self, similar: Tensor, start: int) -> Tensor:
        """Equations 3 and 4 on rows of the Gram matrix, of which ``start`` is the first; they are overwritten."""
        diagonal = similar.diagonal(start)
        if self.empty_diagonal:
            diagonal.zero_()
        elif self.epsilon == "identity":
            diagonal.sub_(1)
        else:
            similar.sub_(self.epsilon)
        if self.clip:
            similar.clamp_(min=0)
        return torch.tanh(similar).mul_(similar)

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """N, some rows at a time, with where they are."""
        if self.held is not None:
            yield slice(0, self.positions), self.held
            return
        for start in range(0, self.positions, self.step):
            stop = min(start + self.step, self.positions)
            yield slice(start, stop), self.rows(start, stop)

    def times(self, rows: Tensor) -> Tensor:
        """Product of rows [K, n] with N."""
        products = []
        for _, part in self.parts():
            with torch.autocast(part.device.type, enabled=False):
                products.append(rows @ part.T)  # N is symmetric: its rows are its columns
        return torch.cat(products, dim=1)

    def sums(self) -> tuple[Tensor, Tensor]:
        """Of each column of N the sum and the sum of squares, [n] each."""
        found = [(part.sum(1), torch.linalg.vecdot(part, part)) for _, part in self.parts()]
        return torch.cat([one for one, _ in found]), torch.cat([other for _, other in found])


def _squared(rows: Tensor, affinity: Affinity, inverse: Tensor, lost: Tensor) -> Tensor:
    """Rows [K, n] times relu(S1'S1 - I); ``lost`` [n] is the diagonal of S1'S1."""
    return affinity.times(affinity.times(rows * inverse)) * inverse - rows * lost


def _squared_columns(affinity: Affinity, inverse: Tensor, lost: Tensor) -> Tensor:
    """Sum of squares of each column of relu(S1'S1 - I), [n]: the n^3 of three blocks."""
    found = []
    for where, part in affinity.parts():
        product = affinity.times(part) * inverse * inverse[where, None]
        # Without what was on the diagonal, which is ``lost`` exactly.
        found.append((torch.linalg.vecdot(product, product) - lost[where] ** 2).clamp(min=0))
    return torch.cat(found)


def _inverse(sums: Tensor, lost: Tensor, positions: int) -> Tensor:
    """1 / column sums; 0 where the sum is nothing but rounding of what was subtracted from it, or is zero."""
    noise = 16 * torch.finfo(sums.dtype).eps * max(1.0, positions**0.5) * lost
    return torch.where(sums > noise, 1 / (sums.clamp(min=0) + TINY), torch.zeros_like(sums))
