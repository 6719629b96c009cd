"""Random walk of activation maps over a local stencil, and IRNet's instance of it.

Source: Ahn, Cho, Kwak, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations",
CVPR 2019 (IRNet), eq. 6 and 7; the published code is ``misc/indexing.propagate_to_edge`` of jiwoon-ahn/irn.

With W_ij = affinity ** beta (W_ii = 1, zero outside the stencil) and d_j = sum_i W_ij, the published code
builds the dense transition T = W / d and squares it log2(steps) times. By associativity the result is
``steps`` products of a vector with T, and because W is symmetric such a product is the row-stochastic average
P = diag(1/d) W: every step replaces a value by a weighted mean of its neighbours.

Deliberate deviation (same number, less work): P is similar to a symmetric matrix with its spectrum in
[-1, 1], so P**s is expanded in Chebyshev polynomials, x**s = sum_k c_k T_k(x). The c_k are binomial weights,
positive and of sum 1, and vanish beyond about 6.5 * sqrt(s) (Sachdeva and Vishnoi, "Faster Algorithms via
Approximation Theory", 2014, section 3): 256 steps cost 103 products. The cut leaves 1e-10.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tagmask.refine.paths import Offset, PathMaxima, Region, stencil_offsets

__all__ = ["chebyshev_of_power", "path_affinity", "random_walk", "stencil_offsets", "stencil_walk", "working_dtype"]
_TAIL = 1e-10


def path_affinity(edge: Tensor, radius: int) -> Tensor:
    """Affinity of each pixel with each half-plane neighbour: 1 - the strongest boundary on the path.

    Args:
        edge: [h, w] float, boundary probability in [0, 1].
        radius: pairs closer than this, in pixels of the grid.

    Returns:
        [len(stencil_offsets(radius)), h, w]; entry (i, y, x) belongs to the pair (y, x) and
        (y, x) + offset i; 0 where the partner lies outside the grid.
    """
    offsets = stencil_offsets(radius)
    height, width = edge.shape
    affinity = edge.new_zeros((len(offsets), height, width))
    maxima = PathMaxima(edge, radius)
    for plane, (dy, dx) in zip(affinity, offsets, strict=True):
        sources = Region(0, max(0, -dx), height - dy, width - abs(dx))
        if sources.height > 0 and sources.width > 0:
            sources.of(plane)[:] = 1 - maxima.of((dy, dx), sources)
    return affinity


def random_walk(maps: Tensor, edge: Tensor, *, radius: int = 5, beta: float = 10.0, steps: int = 256) -> Tensor:
    """Spread maps inside regions enclosed by boundaries (IRNet's propagation).

    Args:
        maps: [K, H, W] float, activation maps on the boundary map's grid, >= 0.
        edge: [H, W] float, boundary probability in [0, 1].
        radius: pairs closer than this are connected (grid pixels).
        beta: exponent on the path affinities.
        steps: length of the walk; the published code's ``exp_times`` is log2 of it.

    Returns:
        [K, H, W], same dtype and device; not normalised, between 0 and the maximum of the input.

    Raises:
        ValueError: shapes do not fit, radius < 2 or steps < 0.
    """
    if edge.shape != maps.shape[1:] or maps.ndim != 3:
        msg = f"maps [K, H, W] and edge [H, W] do not fit: {list(maps.shape)} and {list(edge.shape)}"
        raise ValueError(msg)
    dtype = maps.dtype
    maps, edge = maps.to(working_dtype(maps)), edge.to(working_dtype(maps))
    weights = path_affinity(edge, radius) ** beta
    return stencil_walk(maps * (1 - edge), weights, radius=radius, steps=steps).to(dtype)


def working_dtype(tensor: Tensor) -> torch.dtype:
    """float64 where the device has it: float32 rounding of 256 steps adds up to 5e-4 (94 x 125 grid)."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def stencil_walk(maps: Tensor, weights: Tensor, *, radius: int, steps: int) -> Tensor:
    """``steps`` row-normalised averaging steps over a symmetric local stencil.

    Args:
        maps: [K, h, w] float.
        weights: [len(stencil_offsets(radius)), h, w] float >= 0, weight between (y, x) and
            (y, x) + offset, 0 where the partner lies outside; a pixel's own weight is 1.
        radius: of the stencil.
        steps: length of the walk, >= 0.

    Returns:
        [K, h, w], same dtype and device, within the range of each input map. Constants are preserved.

    Raises:
        ValueError: negative steps.
    """
    if steps < 0:
        msg = f"steps must not be negative, got {steps}"
        raise ValueError(msg)
    if steps == 0 or maps.numel() == 0:
        return maps.clone()
    walk = _Stencil(weights.to(working_dtype(weights)), stencil_offsets(radius), maps.shape[0])
    walked = walk.power(maps, steps).to(maps.dtype)
    low = maps.amin(dim=(1, 2), keepdim=True)
    return torch.minimum(torch.maximum(walked, low), maps.amax(dim=(1, 2), keepdim=True))


def chebyshev_of_power(steps: int, tail: float = _TAIL) -> list[float]:
    """Coefficients c_0..c_n of x**steps = sum_k c_k T_k(x), cut where the rest sums to less than ``tail``."""
    kept: list[float] = []
    rest = 1.0
    total = 2**steps
    for k in range(steps + 1):
        if rest < tail:
            break
        c = 0.0
        if (steps - k) % 2 == 0:
            c = math.comb(steps, (steps - k) // 2) / total * (1 if k == 0 else 2)
        kept.append(c)
        rest -= c
    return kept


class _Stencil:
    """The row-stochastic stencil as planes over a flat padded grid, so that a neighbour is a slice."""

    def __init__(self, weights: Tensor, offsets: Sequence[Offset], n_maps: int) -> None:
        _, self.height, self.width = weights.shape
        pad = max(dx for _, dx in offsets)
        self.pitch = self.width + pad
        self.length = self.height * self.pitch
        self.margin = max(dy for dy, _ in offsets) * self.pitch + pad
        planes = weights.new_zeros((2 * len(offsets) + 1, self.length))
        planes[0].view(self.height, self.pitch)[:, : self.width] = 1
        self.shifts = [0]
        padded = torch.nn.functional.pad(weights, (0, pad)).flatten(1)
        for i, (dy, dx) in enumerate(offsets):
            shift = dy * self.pitch + dx
            planes[2 * i + 1] = padded[i]
            planes[2 * i + 2, shift:] = padded[i, : max(self.length - shift, 0)]
            self.shifts += [shift, -shift]
        # The margin columns have no weight at all; their sum 0 must not divide.
        planes /= planes.sum(dim=0).clamp(min=1)
        self.planes = planes
        self.n_maps = n_maps

    def buffer(self) -> Tensor:
        return self.planes.new_zeros((self.n_maps, self.length + 2 * self.margin))

    def inner(self, buffer: Tensor) -> Tensor:
        return buffer[:, self.margin : self.margin + self.length]

    def step(self, source: Tensor, out: Tensor) -> None:
        """``out`` [K, length] = P source, for a ``source`` buffer with margins."""
        torch.mul(self.inner(source), self.planes[0], out=out)
        for plane, shift in zip(self.planes[1:], self.shifts[1:], strict=True):
            start = self.margin + shift
            out.addcmul_(source[:, start : start + self.length], plane)

    def power(self, maps: Tensor, steps: int) -> Tensor:
        """P**steps applied to each map, by the Chebyshev recurrence T_k+1 = 2 P T_k - T_k-1."""
        coefficients = chebyshev_of_power(steps)
        before, now = self.buffer(), self.buffer()
        self.inner(before).view(-1, self.height, self.pitch)[:, :, : self.width] = maps
        total = self.inner(before) * coefficients[0]
        self.step(before, self.inner(now))
        product = torch.empty_like(total)
        for k, c in enumerate(coefficients[1:], start=1):
            if c:
                total.add_(self.inner(now), alpha=c)
            if k + 1 < len(coefficients):
                self.step(now, product)
                torch.sub(product.mul_(2), self.inner(before), out=self.inner(before))
                before, now = now, before
        return total.view(-1, self.height, self.pitch)[:, :, : self.width].contiguous()
