"""Gaussian filtering in few dimensions by the permutohedral lattice, compiled.

Source: Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010,
in the form of lucasb-eyer/pydensecrf (methods.md 10.1): d + 1 vertices per point, one pass [1/2 1 1/2] along each
of d + 1 axes, result divided by 1 + 2^-d. Which lattice points exist decides the result, so the arithmetic that
places points (float32, rounding half up) follows that code.

Every step gathers: a lattice point sums over the list of its pixels, a blur reads neighbours by index, a pixel
sums over its vertices. Nothing is written by two threads, and each sum has one order, so results agree to the bit
whatever the number of threads. Labels are contiguous (a row per point, padded to 4), which the compiler turns into
vector instructions. The kernels run without the interpreter's lock on ranges of rows and know no threads
themselves, so any number of Python threads may call them at once.

Compiled once per machine; the result is kept beside this file or in the user's cache directory, or in memory when
neither can be written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
Floats = NDArray[np.float32]
Run = Callable[[Callable[[int, int], None], int], None]  # run(work(start, stop), n): all of 0..n


def _compiled(function: F) -> F:
    """Machine code that releases the interpreter's lock; without a place for a cache, compiled in memory."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # no directory can be written
        return cast(F, numba.njit(**options)(function))


def _bits_as_float(typing_context: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), codegen


_float_of_bits: Any = cast(Any, intrinsic)(_bits_as_float)


@_compiled
def _place(feature: Floats, scale: Floats, rem0: NDArray[Any], rank: NDArray[Any], bary: Floats) -> None:
    """Simplex around one point: its remainder-0 vertex, the order of its coordinates, barycentric weights."""
    d = feature.size
    elevated = bary[d + 2 :]
    total = np.float32(0)
    for j in range(d, 0, -1):
        part = feature[j - 1] * scale[j - 1]
        elevated[j] = total - np.float32(j) * part
        total += part
    elevated[0] = total
    down = np.float32(1) / np.float32(d + 1)
    excess: Any = 0
    for i in range(d + 1):
        nearest = np.int32(np.floor(elevated[i] * down + np.float32(0.5)))
        rem0[i] = nearest * (d + 1)
        excess += nearest
        rank[i] = 0
    for i in range(d):
        here = elevated[i] - np.float32(rem0[i])
        for j in range(i + 1, d + 1):
            if here < elevated[j] - np.float32(rem0[j]):
                rank[i] += 1
            else:
                rank[j] += 1
    for i in range(d + 1):
        rank[i] += excess
        if rank[i] < 0:
            rank[i] += d + 1
            rem0[i] += d + 1
        elif rank[i] > d:
            rank[i] -= d + 1
            rem0[i] -= d + 1
    bary[: d + 2] = 0
    for i in range(d + 1):
        v = (elevated[i] - np.float32(rem0[i])) * down
        bary[d - rank[i]] += v
        bary[d + 1 - rank[i]] -= v
    bary[0] += np.float32(1) + bary[d + 1]


@_compiled
def _slot(table: NDArray[Any], keys: NDArray[Any], key: NDArray[Any]) -> Any:
    """Where ``key`` is in the hash table, or the free slot where it belongs."""
    h = np.uint64(0)
    for i in range(key.size):
        h = (h ^ np.uint64(np.int64(key[i]))) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
    mask = np.uint64(table.size - 1)
    slot = h & mask
    while table[slot] >= 0:
        same = True
        for i in range(key.size):
            if keys[table[slot], i] != key[i]:
                same = False
                break
        if same:
            break
        slot = (slot + np.uint64(1)) & mask
    return np.int64(slot)


@_compiled
def _build(features: Floats, scale: Floats) -> tuple[NDArray[Any], Floats, NDArray[Any]]:
    """Vertices [n, d + 1] and weights of every point, and for each axis the two neighbours of every vertex."""
    n, d = features.shape
    keys = np.empty((n * (d + 1), d), np.int32)
    table = np.full(1 << 14, -1, np.int32)
    vertices, weights = np.empty((n, d + 1), np.uint32), np.empty((n, d + 1), np.float32)
    rem0, rank, bary = np.empty(d + 1, np.int32), np.empty(d + 1, np.int32), np.empty(2 * d + 3, np.float32)
    key = np.empty(d, np.int32)
    m = 0
    for p in range(n):
        _place(features[p], scale, rem0, rank, bary)
        for remainder in range(d + 1):
            for i in range(d):
                key[i] = rem0[i] + remainder - (d + 1 if rank[i] > d - remainder else 0)
            slot = _slot(table, keys, key)
            if table[slot] < 0:
                table[slot] = m
                keys[m] = key
                m += 1
                if 2 * m > table.size:
                    table = np.full(2 * table.size, -1, np.int32)
                    for other in range(m):
                        table[_slot(table, keys, keys[other])] = other
                    slot = _slot(table, keys, key)
            vertices[p, remainder] = table[slot]
            weights[p, remainder] = bary[remainder]
    neighbours = np.empty((d + 1, m, 2), np.uint32)
    for axis in range(d + 1):
        for v in range(m):
            for side in range(2):
                step = 1 - 2 * side
                for i in range(d):
                    key[i] = keys[v, i] - step
                if axis < d:
                    key[axis] = keys[v, axis] + step * d
                found = table[_slot(table, keys, key)]
                neighbours[axis, v, side] = found if found >= 0 else m  # row m stays zero
    return vertices, weights, neighbours


@_compiled
def _by_vertex(vertices: NDArray[Any], m: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The entries of ``vertices`` sorted by vertex: where each one's begin [m + 1], and their flat positions."""
    flat = vertices.ravel()
    starts = np.zeros(m + 1, np.int64)
    for v in flat:
        starts[v + 1] += 1
    for v in range(m):
        starts[v + 1] += starts[v]
    following, entries = starts[:-1].copy(), np.empty(flat.size, np.uint32)
    for e in range(flat.size):
        entries[following[flat[e]]] = e
        following[flat[e]] += 1
    return starts, entries


@_compiled
def _splat(
    values: Floats, starts: NDArray[Any], points: NDArray[Any], weights: Floats, out: Floats, start: int, stop: int
) -> None:
    for v in range(start, stop):
        for b in range(0, values.shape[1], 4):
            a0 = a1 = a2 = a3 = np.float32(0)
            for e in range(starts[v], starts[v + 1]):
                p, w = points[e], weights[e]
                a0 += w * values[p, b]
                a1 += w * values[p, b + 1]
                a2 += w * values[p, b + 2]
                a3 += w * values[p, b + 3]
            out[v, b], out[v, b + 1], out[v, b + 2], out[v, b + 3] = a0, a1, a2, a3


@_compiled
def _blur(values: Floats, neighbours: NDArray[Any], out: Floats, start: int, stop: int) -> None:
    half = np.float32(0.5)
    for v in range(start, stop):
        one, other = neighbours[v, 0], neighbours[v, 1]
        for c in range(values.shape[1]):
            out[v, c] = values[v, c] + half * (values[one, c] + values[other, c])


@_compiled
def _slice(values: Floats, vertices: NDArray[Any], weights: Floats, out: Floats, start: int, stop: int) -> None:
    for p in range(start, stop):
        for b in range(0, values.shape[1], 4):
            a0, a1, a2, a3 = out[p - start, b], out[p - start, b + 1], out[p - start, b + 2], out[p - start, b + 3]
            for k in range(vertices.shape[1]):
                v, w = vertices[p, k], weights[p, k]
                a0 += w * values[v, b]
                a1 += w * values[v, b + 1]
                a2 += w * values[v, b + 2]
                a3 += w * values[v, b + 3]
            q = p - start
            out[q, b], out[q, b + 1], out[q, b + 2], out[q, b + 3] = a0, a1, a2, a3


@_compiled
def _exp(values: Floats) -> None:
    """exp of values <= 0 in place, relative error below 1e-6; the library's own is not vectorised."""
    for i in range(values.size):
        x = max(values[i], np.float32(-87))
        n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
        r = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)
        y = np.float32(1.9875691500e-4)
        y = y * r + np.float32(1.3981999507e-3)
        y = y * r + np.float32(8.3334519073e-3)
        y = y * r + np.float32(4.1665795894e-2)
        y = y * r + np.float32(1.6666665459e-1)
        y = y * r + np.float32(5.0000001201e-1)
        y = y * r * r + r + np.float32(1)
        values[i] = y * _float_of_bits((np.int32(n) + np.int32(127)) << np.int32(23))


@_compiled
def softmax_rows(energy: Floats, out: Floats) -> None:
    """Softmax of every row of ``energy`` [n, c] (overwritten) into ``out`` [n, c]."""
    n, width = energy.shape
    for i in range(n):
        top = energy[i, 0]
        for c in range(1, width):
            top = max(top, energy[i, c])
        for c in range(width):
            energy[i, c] -= top
    _exp(energy.ravel())
    for i in range(n):
        total = np.float32(0)
        for c in range(width):
            total += energy[i, c]
        total = np.float32(1) / total
        for c in range(width):
            out[i, c] = energy[i, c] * total


@dataclass(frozen=True)
class Lattice:
    """A Gaussian filter over n points with symmetric normalisation: nu_i sum_j k(i, j) nu_j q_j."""

    vertices: NDArray[np.uint32]  # [n, d + 1]
    weights: Floats  # [n, d + 1]; with the normalisation and the factor of the slice
    neighbours: NDArray[np.uint32]  # [d + 1, m, 2]
    starts: NDArray[np.int64]  # [m + 1]
    points: NDArray[np.uint32]  # [n (d + 1)]
    splat_weights: Floats  # [n (d + 1)]; with the normalisation

    @classmethod
    def of(cls, features: Floats) -> Lattice:
        """The filter exp(-|f_i - f_j|^2 / 2), the point itself included, with nu = 1 / sqrt(row sum + 1e-20).

        Args:
            features: float32 [n, d], d >= 1, finite.
        """
        d = features.shape[1]
        spread = np.float32(np.sqrt(2 / 3) * (d + 1))
        scale = np.array([1 / np.sqrt((i + 2) * (i + 1)) for i in range(d)], np.float32) * spread
        vertices, weights, neighbours = _build(np.ascontiguousarray(features, np.float32), scale)
        starts, entries = _by_vertex(vertices, neighbours.shape[1])
        points = entries // np.uint32(d + 1)
        factor = np.float32(1 / (1 + 2.0**-d))
        plain = cls(vertices, weights * factor, neighbours, starts, points, weights.ravel()[entries])
        ones = np.zeros((len(features), 4), np.float32)
        ones[:, 0] = 1
        sums = np.zeros_like(ones)
        plain.slice(plain.blurred(ones, one_thread), sums, 0, len(sums))
        nu = 1 / np.sqrt(sums[:, 0] + np.float32(1e-20))
        return cls(vertices, plain.weights * nu[:, None], neighbours, starts, points, plain.splat_weights * nu[points])

    def blurred(self, values: Floats, run: Run) -> Floats:
        """Values of points [n, c], c a multiple of 4, on the lattice and blurred: [m + 1, c], the last row zero."""
        m = self.neighbours.shape[1]
        now: Floats = np.empty((m + 1, values.shape[1]), np.float32)
        after = np.empty_like(now)
        now[m] = after[m] = 0
        run(lambda a, b: _splat(values, self.starts, self.points, self.splat_weights, now, a, b), m)
        for axis in self.neighbours:
            source, target = now, after
            run(lambda a, b, s=source, t=target, x=axis: _blur(s, x, t, a, b), m)  # type: ignore[misc]
            now, after = after, now
        return now

    def slice(self, values: Floats, out: Floats, start: int, stop: int) -> None:
        """Add the filtered values of points start..stop to the rows of ``out``."""
        _slice(values, self.vertices, self.weights, out, start, stop)


def one_thread(work: Callable[[int, int], None], n: int) -> None:
    """Do all of it here."""
    work(0, n)
