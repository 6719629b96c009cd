"""Gaussian filtering in few dimensions by the permutohedral lattice, compiled.

Source: Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010,
in the form of lucasb-eyer/pydensecrf: d + 1 vertices per point, one pass [1/2 1 1/2] along each
of d + 1 axes, result divided by 1 + 2^-d.

Several filters over the same points are one lattice: their vertices stand one behind the other, so a step is one call
for all. Every step gathers: a vertex sums over the list of its pixels, a blur reads neighbours by index, a pixel sums
over its vertices. Nothing is written by two threads, and each sum has one order, so results agree to the bit whatever
the number of threads. Labels are contiguous (a row per point, padded to 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.methods.dense_crf.lattice import build as lattice_build
from tagmask.methods.dense_crf.lattice import rows as lattice_rows
from tagmask.methods.dense_crf.lattice.geometry import axis_steps, key_strides, scales

Floats = NDArray[np.float32]
Numbers = NDArray[np.uint32]
Work = Callable[[int, int], Any]
_ALIGN = 1024  # ranges of points begin at its multiples, so that vertices are numbered alike whatever the ranges


class Team:
    """Threads that share a range of rows: the caller and ``threads`` - 1 others."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def run(self, work: Work, edges: Sequence[int]) -> list[Any]:
        """work(start, stop) for each two neighbours of ``edges``; what they return, in order."""
        if self._pool is None:
            return [work(*both) for both in pairwise(edges)]
        others = [self._pool.submit(work, *both) for both in pairwise(edges[1:])]
        return [work(edges[0], edges[1]), *(other.result() for other in others)]

    def split(self, n: int, align: int = 1) -> list[int]:
        """Edges of at most as many ranges as there are threads, at multiples of ``align``; none is empty."""
        units = -(-n // align)
        return sorted({min(n, units * i // self.threads * align) for i in range(self.threads + 1)})

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()


@dataclass
class _Kernel:
    """One filter while it is built; vertices are numbered from 0."""

    local: Numbers  # [n, d + 1]
    barycentric: Floats  # [n, d + 1]
    table: NDArray[np.int64]
    vertex_keys: NDArray[np.int64]
    steps: NDArray[np.int64]  # [d + 1]
    numbers: list[Numbers]  # of the vertices of each range of points

    @classmethod
    def placed(cls, features: Floats, team: Team) -> _Kernel:
        n, d = features.shape
        planes = np.ascontiguousarray(features.T, np.float32)
        scale, strides = scales(d), key_strides(planes.min(axis=1), planes.max(axis=1))
        local, barycentric = np.empty((n, d + 1), np.uint32), np.empty((n, d + 1), np.float32)

        def place(start: int, stop: int) -> Any:
            return lattice_build.place_points(planes, scale, strides, start, stop, local, barycentric)

        (table, vertex_keys), *others = team.run(place, team.split(n, _ALIGN))
        numbers = [np.arange(len(vertex_keys), dtype=np.uint32)]
        for _, more in others:
            table, vertex_keys, added = lattice_build.join(table, vertex_keys, more)
            numbers.append(added)
        return cls(local, barycentric, table, vertex_keys, axis_steps(strides), numbers)


@dataclass(frozen=True)
class Lattice:
    """Sum of Gaussian filters over the same n points, each w * nu_i sum_j k(i, j) nu_j q_j.

    k = exp(-|f_i - f_j|^2 / 2), the point itself included; nu = 1 / sqrt(row sum + 1e-20).
    """

    vertices: Numbers  # [n, e]; e is the sum of d + 1 over the filters
    weights: Floats  # [n, e]; with the normalisation, the factor of the slice and w
    neighbours: list[Numbers]  # one [.., 2] per pass, of the vertices that take part: the first ones
    begins: list[int]  # the filters' first vertices, and the number of all; most dimensions first
    order: list[int]  # which of the given filters each is
    starts: NDArray[np.int64]  # [m + 1]; entries of vertex v are starts[v]..starts[v + 1]
    points: Numbers  # [n e]
    splat_weights: Floats  # [n e]; with the normalisation

    @classmethod
    def of(cls, features: Sequence[Floats], compat: Sequence[float], team: Team) -> Lattice:
        """The sum of ``compat[i]`` times the filter over ``features[i]``, float32 [n, d], d >= 1, finite."""
        # Most dimensions, so most passes, first: filters with fewer join in the last passes, and each pass is over the
        # vertices from 0 to some number, without a list of who takes part.
        order = sorted(range(len(features)), key=lambda i: -features[i].shape[1])
        kernels = [_Kernel.placed(features[i], team) for i in order]
        n, each = len(features[0]), sum(kernel.local.shape[1] for kernel in kernels)
        begins = [0, *np.cumsum([len(kernel.vertex_keys) for kernel in kernels]).tolist()]
        m, passes = begins[-1], kernels[0].local.shape[1]
        sizes = [begins[sum(k.local.shape[1] >= passes - i for k in kernels)] for i in range(passes)]
        neighbours = [np.full((size, 2), m, np.uint32) for size in sizes]
        numbers, weights = np.empty((2, n, each), np.uint32), np.empty((2, n, each), np.float32)
        starts = np.zeros(m + 1, np.int64)
        lattice = cls(numbers[0], weights[0], neighbours, begins, order, starts, numbers[1].ravel(), weights[1].ravel())
        column = 0
        for begin, i, kernel in zip(begins, order, kernels, strict=False):
            lattice._add(kernel, begin, column, compat[i], team)
            column += kernel.local.shape[1]
        return lattice

    def _add(self, kernel: _Kernel, begin: int, column: int, compat: float, team: Team) -> None:
        """Fill in the part of one filter: vertices from ``begin``, entries from ``column`` on."""
        (n, d1), m = kernel.local.shape, len(kernel.vertex_keys)
        edges, own = team.split(n, _ALIGN), team.split(m)
        pairs = self.neighbours[len(self.neighbours) - d1 :]

        def link(start: int, stop: int) -> None:
            for step, out in zip(kernel.steps, pairs, strict=True):
                lattice_build.find_neighbours(kernel.table, kernel.vertex_keys, step, begin, out, start, stop)

        team.run(link, own)
        counts = np.zeros((team.threads, m), np.int64)

        def count(start: int, stop: int) -> None:
            part = edges.index(start)
            lattice_build.count_entries(kernel.local, kernel.numbers[part], counts[part], start, stop)

        team.run(count, edges)
        starts = self.starts[begin : begin + m + 1]
        np.cumsum(counts.sum(axis=0), out=starts[1:])
        starts[1:] += starts[0]
        # Where each range of points begins to write in each vertex's list. Lists so keep the order of the points, and
        # sums their order, whatever the number of ranges.
        counts = np.cumsum(counts, axis=0) - counts + starts[:-1]

        def sort(start: int, stop: int) -> None:
            part = edges.index(start)
            lattice_build.sort_entries(
                kernel.local, kernel.barycentric, counts[part], self.points, self.splat_weights, start, stop
            )

        team.run(sort, edges)
        self._normalise(kernel, begin, column, compat, team)

    def _normalise(self, kernel: _Kernel, begin: int, column: int, compat: float, team: Team) -> None:
        """Weights with the normalisation, from the filter of ones."""
        (n, d1), m = kernel.local.shape, len(kernel.vertex_keys)
        starts, own = self.starts[begin : begin + m + 1], team.split(m)
        # The last number stays 0: it is the neighbour of vertices that have none.
        sums, after = np.zeros((2, self.begins[-1] + 1), np.float32)
        team.run(lambda a, b: lattice_build.sum_entries(starts, self.splat_weights, sums[begin:], a, b), own)
        for pairs in self.neighbours[len(self.neighbours) - d1 :]:

            def step(a: int, b: int, pairs: Numbers = pairs, source: Floats = sums, target: Floats = after) -> None:
                lattice_build.blur_sums(source, pairs, target, begin + a, begin + b)

            team.run(step, own)
            sums, after = after, sums
        nu, factor = np.empty(n, np.float32), np.float32(1 / (1 + 2.0 ** (1 - d1)))
        team.run(lambda a, b: lattice_build.normalise_points(
            sums[begin:], factor, np.float32(compat), kernel.local, kernel.barycentric, nu, begin, column,
            self.vertices, self.weights, a, b), team.split(n))  # fmt: skip
        first, last = int(starts[0]), int(starts[-1])
        edges = [first + edge for edge in team.split(last - first)]
        team.run(lambda a, b: lattice_build.normalise_entries(self.points, self.splat_weights, nu, a, b), edges)

    def buffers(self, width: int) -> list[Floats]:
        """Two [m + 1, width] for :meth:`blurred`, the last row zero."""
        pair = [np.empty((self.begins[-1] + 1, width), np.float32) for _ in range(2)]
        for rows in pair:
            rows[-1] = 0
        return pair

    def blurred(self, values: Floats, buffers: list[Floats], team: Team) -> Floats:
        """Values of points [n, c], c a multiple of 4, on the lattice and blurred: [m + 1, c], one of the buffers."""
        # Ranges of as many entries, not of as many vertices: a plain patch of an image puts thousands of pixels on one.
        edges = np.searchsorted(self.starts, [self.starts[-1] * i // team.threads for i in range(team.threads + 1)])
        edges[-1] = self.begins[-1]
        # A filter with fewer passes joins late: it waits in the buffer that its first pass reads.
        sizes = [len(pairs) for pairs in self.neighbours]
        late = [sizes.index(next(s for s in sizes if s > begin)) % 2 for begin in self.begins[:-1]]

        def splat(start: int, stop: int) -> None:
            for begin, end, side in zip(self.begins, self.begins[1:], late, strict=False):
                a, b = max(start, begin), min(stop, end)
                if a < b:
                    lattice_rows.splat(values, self.starts, self.points, self.splat_weights, buffers[side], a, b)

        team.run(splat, edges.tolist())
        now, after = buffers
        for pairs in self.neighbours:

            def step(a: int, b: int, pairs: Numbers = pairs, source: Floats = now, target: Floats = after) -> None:
                lattice_rows.blur(source, pairs, target, a, b)

            team.run(step, team.split(len(pairs)))
            now, after = after, now
        return now

    def mix(self, blurred: Floats, matrices: Sequence[Floats | None], team: Team) -> None:
        """Multiply the rows of each filter by its matrix [c, c], in place; None: leave them."""
        for i, begin, end in zip(self.order, self.begins, self.begins[1:], strict=False):
            if (matrix := matrices[i]) is not None:
                rows = blurred[begin:end]

                def mix(a: int, b: int, matrix: Floats = matrix, rows: Floats = rows) -> None:
                    lattice_rows.mix(rows, matrix, a, b)

                team.run(mix, team.split(end - begin))

    def update(self, blurred: Floats, negative: Floats, out: Floats, team: Team) -> None:
        """Softmax of ``negative`` [n, c] plus the filtered values, into ``out`` [n, c]."""
        each = self.vertices.shape[1]
        vertices, weights = self.vertices.ravel(), self.weights.ravel()
        team.run(
            lambda a, b: lattice_rows.update(blurred, vertices, weights, each, negative, out, a, b),
            team.split(len(out)),
        )
