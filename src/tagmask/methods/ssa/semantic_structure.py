"""The semantic structure of an image: which positions look alike, and maps averaged over those that do.

The semantic structure module of SSA (Sun & Li, "SSA: Semantic Structure Aware Inference for Weakly Pixel-Wise Dense
Predictions without Cost", arXiv 2021), equations 2-6. With unit features F of n = h * w positions:

    S' = F'F - I        N = tanh(S') * S' (element-wise)        S1 = N / column sums                  (one block)
    S2 = relu(S1'S1 - I) / column sums                                                                (two blocks)
    S3 = relu(S2'S2 - I) / column sums                                                                (three blocks)

Maps C [K, n] are polished as C S: each position gets a weighted average of the map over positions that look like it.
``semantic_structure`` returns S for inspection; ``polish`` never builds S2 or S3 (docs/methods/ssa.md): N >= 0 and the
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
    """The structure matrix S itself, by definition, at O(n^3): for inspection and tests (equations 2-6).

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
    # Columns, not rows, and maps from the left: each position then gets an average. Rows would spread its value, and
    # maps would grow where many are alike.
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

    Three blocks do need one n x n x n product: two blocks on relu(S1'S1 - I) in the place of N.

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
    affinity: Symmetric = Affinity(features, norm, epsilon, clip=clip)
    if blocks == 3:
        affinity = Squared(affinity)
    # The last row gives the column sums, which normalise at the end.
    rows = torch.cat([maps.flatten(1).to(features.dtype), features.new_ones(1, affinity.positions)])
    sums, squares = affinity.sums()
    inverse = 1 / (sums + TINY)
    if blocks == 1:
        averaged = affinity.times(rows[:-1]) * inverse
        return averaged.view_as(maps)
    lost = squares * inverse**2  # the diagonal of S1'S1
    result = affinity.times(affinity.times(rows * inverse)) * inverse - rows * lost
    # What is left of a column may be nothing but rounding of what was subtracted from it.
    noise = 16 * torch.finfo(lost.dtype).eps * max(1.0, affinity.positions**0.5) * lost
    total = torch.where(result[-1] > noise, result[-1], torch.inf)
    averaged = result[:-1].clamp(min=0) / (total + TINY)
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


class Symmetric:
    """A symmetric matrix [n, n], >= 0, made some rows at a time, and held only where it is small enough."""

    positions: int
    dense: Tensor | None = None

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop``."""
        raise NotImplementedError

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """The matrix, some rows at a time, with where they are."""
        if self.dense is not None:
            yield slice(0, self.positions), self.dense
            return
        step = rows_at_once(self.positions)
        for start in range(0, self.positions, step):
            stop = min(start + step, self.positions)
            yield slice(start, stop), self.rows(start, stop)

    def times(self, rows: Tensor) -> Tensor:
        """Product of rows [K, n] with the matrix, never at half precision."""
        products = []
        for _, part in self.parts():
            with torch.autocast(part.device.type, enabled=False):
                products.append(rows @ part.T)  # its rows are its columns
        return torch.cat(products, dim=1)

    def sums(self) -> tuple[Tensor, Tensor]:
        """Of each column the sum and the sum of squares, [n] each."""
        pairs = [(part.sum(1), torch.linalg.vecdot(part, part)) for _, part in self.parts()]
        return torch.cat([one for one, _ in pairs]), torch.cat([other for _, other in pairs])


def rows_at_once(positions: int) -> int:
    """How many rows of an n x n matrix are held at once."""
    return max(1, HELD // max(1, positions))


class Affinity(Symmetric):
    """N = tanh(S') * S' of one view at one stage.

    Under autocast the Gram matrix is made at half precision, like the features were; the rest never is, because it
    takes differences of near equal numbers.
    """

    def __init__(self, features: Tensor, norm: Norm, epsilon: Epsilon, *, clip: bool) -> None:
        self.dtype, device = features.dtype, features.device.type
        self.unit = normalize_features(features.flatten(1), norm)
        if torch.is_autocast_enabled(device) and self.dtype != torch.float64:
            self.unit = self.unit.to(torch.get_autocast_dtype(device))
        self.epsilon, self.clip = epsilon, clip
        # Cosine has a diagonal of 1 up to rounding, and 0 where all features are 0: without self-similarity it is 0.
        self.empty_diagonal = norm == "channel_l2" and epsilon == "identity"
        self.positions = self.unit.shape[1]
        if rows_at_once(self.positions) >= self.positions:
            self.dense = self._gated(self._gram(), 0)

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of N."""
        return self._gated((self.unit[:, start:stop].T @ self.unit).to(self.dtype), start)

    def _gram(self) -> Tensor:
        """The whole Gram matrix; what lies under its diagonal is copied, not computed."""
        unit, size = self.unit, self.positions
        # In four bands from the diagonal on, which is five eighths of the products.
        gram = unit.new_empty(size, size)
        step = max(1, -(-size // 4))
        for start in range(0, size, step):
            stop = min(start + step, size)
            gram[start:stop, start:] = unit[:, start:stop].T @ unit[:, start:]
            gram[stop:, start:stop] = gram[start:stop, stop:].T
        return gram.to(self.dtype)

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
        # tanh(x) x is even: opposite features count as alike ones. After a ReLU none are opposite; signed stages
        # (MobileNet's linear bottlenecks) need ``clip``.
        return torch.tanh(similar).mul_(similar)


class Squared(Symmetric):
    """relu(S1'S1 - I) with S1 = N / column sums: N >= 0, so that the ReLU only empties the diagonal."""

    def __init__(self, affinity: Symmetric) -> None:
        self.affinity, self.positions = affinity, affinity.positions
        self.inverse = 1 / (affinity.sums()[0] + TINY)
        if affinity.dense is not None:
            self.dense = self.rows(0, self.positions)

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop``."""
        dense = self.affinity.dense
        part = self.affinity.rows(start, stop) if dense is None else dense[start:stop]
        product = self.affinity.times(part) * self.inverse
        product = product * self.inverse[start:stop, None]
        product.diagonal(start).zero_()
        return product
