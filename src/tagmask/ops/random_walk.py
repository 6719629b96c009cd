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

from tagmask.ops.pixel_pairs import Offset, PathMaxima, Region, stencil_offsets

__all__ = ["chebyshev_of_power", "path_affinity", "random_walk", "stencil_offsets", "stencil_walk", "working_dtype"]
_TAIL = 1e-10


def path_affinity(edge: Tensor, radius: int) -> Tensor:
    """Affinity of each pixel with each half-plane neighbour: 1 - the strongest boundary on the path.

    Args:
        edge: [..., h, w] float, boundary probability in [0, 1].
        radius: pairs closer than this, in pixels of the grid.

    Returns:
        [..., len(stencil_offsets(radius)), h, w]; entry (i, y, x) belongs to the pair (y, x) and
        (y, x) + offset i; 0 where the partner lies outside the grid.
    """
    offsets = stencil_offsets(radius)
    *batch, height, width = edge.shape
    affinity = edge.new_zeros((*batch, len(offsets), height, width))
    maxima = PathMaxima(edge, radius)
    for i, (dy, dx) in enumerate(offsets):
        sources = Region(0, max(0, -dx), height - dy, width - abs(dx))
        if sources.height > 0 and sources.width > 0:
            sources.of(affinity[..., i, :, :])[:] = 1 - maxima.of((dy, dx), sources)
    return affinity


def random_walk(
    maps: Tensor, edge: Tensor, *, radius: int = 5, beta: float = 10.0, steps: int = 256, tolerance: float = 0.0
) -> Tensor:
    """Spread maps inside regions enclosed by boundaries (IRNet's propagation).

    Args:
        maps: [K, H, W] float, activation maps on the boundary map's grid, >= 0; or [B, K, H, W], images of one size.
        edge: [H, W] float, boundary probability in [0, 1]; or [B, H, W].
        radius: pairs closer than this are connected (grid pixels); it may exceed the grid.
        beta: exponent on the path affinities.
        steps: length of the walk; the published code's ``exp_times`` is log2 of it.
        tolerance: stop when what is left out weighs less than this (see :func:`stencil_walk`); 0: exact.

    Returns:
        same shape, dtype and device as ``maps``; not normalised, between 0 and the maximum of the input.

    Raises:
        ValueError: shapes do not fit, an empty grid, NaN or infinity, boundaries outside [0, 1], radius < 2, steps < 0
            or tolerance outside [0, 1).
    """
    if maps.ndim not in (3, 4) or (*maps.shape[:-3], *maps.shape[-2:]) != tuple(edge.shape):
        msg = (
            f"maps [K, H, W] and edge [H, W] (or [B, K, H, W] and [B, H, W]) do not fit: {list(maps.shape)} and "
            f"{list(edge.shape)}"
        )
        raise ValueError(msg)
    if not edge.numel() and maps.shape[0]:
        msg = f"the grid must have at least one cell, got maps {list(maps.shape)}"
        raise ValueError(msg)
    if not (torch.isfinite(maps).all() and ((edge >= 0) & (edge <= 1)).all()):
        msg = "maps must be finite and boundaries within 0..1, got NaN, infinity or a value outside"
        raise ValueError(msg)
    dtype = maps.dtype
    maps, edge = maps.to(working_dtype(maps)), edge.to(working_dtype(maps))
    weights = path_affinity(edge, radius) ** beta
    # A boundary keeps no score of its own, as in the published code; it would hand it to both sides.
    start = maps * (1 - edge).unsqueeze(-3)
    return stencil_walk(start, weights, radius=radius, steps=steps, tolerance=tolerance).to(dtype)


def working_dtype(tensor: Tensor) -> torch.dtype:
    """float64 where the device has it: float32 rounding of 256 steps adds up to 5e-4 (94 x 125 grid)."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def stencil_walk(maps: Tensor, weights: Tensor, *, radius: int, steps: int, tolerance: float = 0.0) -> Tensor:
    """``steps`` row-normalised averaging steps over a symmetric local stencil.

    Args:
        maps: [K, h, w] float, or [B, K, h, w].
        weights: [len(stencil_offsets(radius)), h, w] (or [B, ...]) float >= 0, weight between (y, x) and
            (y, x) + offset, 0 where the partner lies outside; a pixel's own weight is 1.
        radius: of the stencil.
        steps: length of the walk, >= 0.
        tolerance: polynomials that together weigh less are left out. Each is a map as large as the input at most, in
            the mean square weighted by the pixels' degrees, so the error in that norm is below tolerance * input. 256
            steps take 103 products exactly, 62 at 1e-3, 46 at 1e-2.

    Returns:
        same shape, dtype and device as ``maps``, within the range of each input map. Constants are preserved.

    Raises:
        ValueError: negative steps, or tolerance outside [0, 1).
    """
    if steps < 0 or not 0 <= tolerance < 1:
        msg = f"steps must not be negative and tolerance within 0..1, got {steps} and {tolerance}"
        raise ValueError(msg)
    if steps == 0 or maps.numel() == 0:
        return maps.clone()
    walk = _Stencil(weights.to(working_dtype(weights)), stencil_offsets(radius), maps.shape[-3])
    walked = walk.power(maps, chebyshev_of_power(steps, max(tolerance, _TAIL))).to(maps.dtype)
    # An average cannot leave the range; what the cut of the series and rounding add to it is taken off.
    low = maps.amin(dim=(-2, -1), keepdim=True)
    return torch.minimum(torch.maximum(walked, low), maps.amax(dim=(-2, -1), keepdim=True))


def chebyshev_of_power(steps: int, tail: float = _TAIL) -> list[float]:
    """Coefficients c_0..c_n of x**steps = sum_k c_k T_k(x), cut where the rest sums to less than ``tail``."""
    coefficients: list[float] = []
    rest = 1.0
    total = 2**steps
    for k in range(steps + 1):
        if rest < tail:
            break
        c = 0.0
        if (steps - k) % 2 == 0:
            # The chance that ``steps`` tosses of a coin end |heads - tails| = k. Whole numbers are divided once: for
            # 4,096 steps neither the count nor 2^steps fits into a float.
            c = math.comb(steps, (steps - k) // 2) / total * (1 if k == 0 else 2)
        coefficients.append(c)
        rest -= c
    return coefficients


class _Stencil:
    """The row-stochastic stencil as planes over a flat padded grid, so that a neighbour is a slice."""

    def __init__(self, weights: Tensor, offsets: Sequence[Offset], n_maps: int) -> None:
        *self.batch, _, self.height, self.width = weights.shape
        pad = max(dx for _, dx in offsets)
        self.pitch = self.width + pad
        self.length = self.height * self.pitch
        self.margin = max(dy for dy, _ in offsets) * self.pitch + pad
        # Each row is followed by ``pad`` cells of weight 0, so that a step beyond its end lands there and not in the
        # next row: a neighbour is then one shift of the flat grid, with no border to treat.
        planes = weights.new_zeros((2 * len(offsets) + 1, *self.batch, 1, self.length))
        self.grid(planes[0])[:] = 1
        self.shifts = [0]
        padded = torch.nn.functional.pad(weights, (0, pad)).flatten(-2).unsqueeze(-2)
        for i, (dy, dx) in enumerate(offsets):
            shift = dy * self.pitch + dx
            planes[2 * i + 1] = padded[..., i, :, :]
            # The same pair seen from the partner: W is symmetric, the stencil holds each pair once.
            planes[2 * i + 2, ..., shift:] = padded[..., i, :, : max(self.length - shift, 0)]
            self.shifts += [shift, -shift]
        # The margin columns have no weight at all; their sum 0 must not divide.
        planes /= planes.sum(dim=0).clamp(min=1)
        self.planes = planes
        self.n_maps = n_maps

    def buffer(self) -> Tensor:
        return self.planes.new_zeros((*self.batch, self.n_maps, self.length + 2 * self.margin))

    def inner(self, buffer: Tensor) -> Tensor:
        return buffer[..., self.margin : self.margin + self.length]

    def grid(self, flat: Tensor) -> Tensor:
        return flat.view(*flat.shape[:-1], self.height, self.pitch)[..., : self.width]

    def step(self, source: Tensor, out: Tensor) -> None:
        """``out`` [..., K, length] = P source, for a ``source`` buffer with margins."""
        torch.mul(self.inner(source), self.planes[0], out=out)
        for plane, shift in zip(self.planes[1:], self.shifts[1:], strict=True):
            start = self.margin + shift
            out.addcmul_(source[..., start : start + self.length], plane)

    def power(self, maps: Tensor, coefficients: Sequence[float]) -> Tensor:
        """sum_k c_k T_k(P) applied to each map, by the Chebyshev recurrence T_k+1 = 2 P T_k - T_k-1."""
        before, now = self.buffer(), self.buffer()
        self.grid(self.inner(before))[:] = maps
        total = self.inner(before) * coefficients[0]
        self.step(before, self.inner(now))
        product = torch.empty_like(total)
        for k, c in enumerate(coefficients[1:], start=1):
            if c:
                total.add_(self.inner(now), alpha=c)
            if k + 1 < len(coefficients):
                self.step(now, product)
                # In the buffer of T_k-1, which is not needed again; only its inside is written, so its margins stay 0.
                torch.sub(product.mul_(2), self.inner(before), out=self.inner(before))
                before, now = now, before
        return self.grid(total).contiguous()
