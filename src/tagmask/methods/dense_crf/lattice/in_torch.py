"""The permutohedral lattice in torch operations, for devices other than the CPU.

Source: see ``filter``, with which it agrees but for the order of sums: points are placed by
the same float32 arithmetic, so the same vertices exist. Keys are sorted and searched instead of hashed.

On a GPU sums are added in no fixed order, unless ``torch.use_deterministic_algorithms(True)`` is set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tagmask.methods.dense_crf.lattice.geometry import axis_steps, key_strides, scales


@dataclass(frozen=True)
class TorchLattice:
    """A Gaussian filter over n points, nu_i sum_j k(i, j) nu_j q_j.

    k = exp(-|f_i - f_j|^2 / 2), the point itself included; nu = 1 / sqrt(row sum + 1e-20).
    """

    vertices: Tensor  # int64 [d + 1, n]
    weights: Tensor  # float32 [d + 1, n]
    neighbours: Tensor  # int64 [d + 1, 2, m]; m where there is none
    nu: Tensor  # float32 [n]

    @classmethod
    def of(cls, features: Tensor) -> TorchLattice:
        """The filter over ``features``, float32 [n, d], d >= 1, finite."""
        low, high = (bound.cpu().numpy() for bound in (features.amin(dim=0), features.amax(dim=0)))
        strides = torch.from_numpy(key_strides(low, high)).to(features.device)
        keys, weights = _place(features.T.contiguous(), strides)
        # A hash table cannot be filled by many threads of a GPU in torch operations; sorting can.
        vertex_keys, vertices = torch.unique(keys, return_inverse=True)
        m, neighbours = len(vertex_keys), []
        for step in axis_steps(strides.cpu().numpy()).tolist():
            for sign in (1, -1):
                neighbour_keys = vertex_keys + sign * step
                place = torch.searchsorted(vertex_keys, neighbour_keys).clamp(max=m - 1)
                neighbours.append(torch.where(vertex_keys[place] == neighbour_keys, place, m))
        pairs = torch.stack(neighbours).view(len(strides), 2, m)
        nu = torch.ones(len(features), device=features.device)
        lattice = cls(vertices, weights, pairs, nu)
        sums = lattice(nu[:, None])[:, 0]
        return cls(vertices, weights, pairs, (sums + 1e-20).rsqrt())

    def __call__(self, values: Tensor) -> Tensor:
        """Filter float32 [n, c]."""
        d1, m = len(self.vertices), self.neighbours.shape[2]
        scaled = values * self.nu[:, None]
        on = values.new_zeros(m + 1, values.shape[1])
        for vertices, weights in zip(self.vertices, self.weights, strict=True):
            on.index_add_(0, vertices, scaled * weights[:, None])
        for one, other in self.neighbours:
            # Both reads are made before the sum is written: the pass is not in place.
            on[:m] += (on[one] + on[other]).mul_(0.5)
        out = torch.zeros_like(values)
        for vertices, weights in zip(self.vertices, self.weights, strict=True):
            out.addcmul_(on[vertices], weights[:, None])
        return out.mul_(self.nu[:, None] / (1 + 2.0 ** (1 - d1)))


def _place(features: Tensor, strides: Tensor) -> tuple[Tensor, Tensor]:
    """Keys int64 and barycentric weights float32 of the vertices of points [d, n], both [d + 1, n]."""
    d, n = features.shape
    total, elevated = torch.zeros_like(features[0]), []
    for j, scale in reversed(list(enumerate(scales(d).tolist(), start=1))):
        part = features[j - 1] * scale
        elevated.append(total - j * part)
        total = total + part
    high = torch.stack([total, *reversed(elevated)])
    down = 1 / torch.tensor(d + 1, dtype=torch.float32, device=features.device)
    nearest = (high * down + 0.5).floor()
    off = high - nearest * (d + 1)
    rank = nearest.sum(dim=0).long().repeat(d + 1, 1)
    for i in range(d):
        for j in range(i + 1, d + 1):
            # As in ``build._place``: equal remainders must be ranked as there, or other vertices exist.
            less = off[i] < off[j]
            rank[i] += less
            rank[j] += ~less
    shift = (d + 1) * ((rank < 0).long() - (rank > d).long())
    rank, first = rank + shift, nearest.long() * (d + 1) + shift
    ordered = torch.zeros_like(high).scatter_(0, rank, (high - first) * down)
    steps = torch.zeros_like(first).scatter_(0, rank, strides[:, None].expand(-1, n))
    weights = torch.cat([ordered[d:] + (1 - ordered[:1]), ordered[:-1].flip(0) - ordered[1:].flip(0)])
    changes = strides.sum() - (d + 1) * steps[1:].flip(0)
    return torch.cat([(first * strides[:, None]).sum(dim=0, keepdim=True), changes]).cumsum(dim=0), weights
