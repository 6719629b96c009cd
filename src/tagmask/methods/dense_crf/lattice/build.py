"""Compiled building of the permutohedral lattice: where points lie, which vertices exist, who is whose neighbour.

Source: see ``filter``. Which lattice points exist decides the result, so the arithmetic that
places points is float32 without fused operations, rounding half up, as in the code the results are compared with.

A vertex is known by one 64-bit key, sum of coordinate * stride: that of a neighbour is the key plus a constant.
Vertices are numbered by their first appearance. Ranges of points are placed independently, each with a hash table of
its own; joining the tables in order gives the numbers that one range would have given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.ops.compiling import compiled_as_written

Floats = NDArray[np.float32]
_LANES = 128  # points placed together
_SPREAD = np.int64(-7046029254386353131)  # 0x9E3779B97F4A7C15: multiplicative hashing


@compiled_as_written
def _place(features: Floats, scale: Floats, strides: NDArray[Any], first: int, count: int, elevated: Floats,
           rem0: NDArray[Any], rank: NDArray[Any], ordered: Floats, steps: NDArray[Any], keys: NDArray[Any],
           weights: Floats) -> None:  # fmt: skip
    """Simplices around points first..first + count: keys [d + 1, lanes] and barycentric weights [d + 1, lanes]."""
    d = features.shape[0]
    full, down = np.int32(d + 1), np.float32(1) / np.float32(d + 1)
    # Points in the inner loops, coordinates in the outer ones: the compiler then works on several points at once; the
    # few coordinates of one point would not fill a vector. First the features are lifted onto the plane of R^(d + 1)
    # whose coordinates sum to zero.
    elevated[0, :count] = 0
    for j in range(d, 0, -1):
        for p in range(count):
            part = features[j - 1, first + p] * scale[j - 1]
            elevated[j, p] = elevated[0, p] - np.float32(j) * part
            elevated[0, p] += part
    # The nearest lattice point of remainder 0: each coordinate rounded to a multiple of d + 1. Rounded coordinates need
    # not sum to zero; ``excess`` counts the steps that they are off.
    excess = rank[d + 1]
    excess[:count] = 0
    for i in range(d + 1):
        for p in range(count):
            nearest = np.int32(np.floor(elevated[i, p] * down + np.float32(0.5)))
            rem0[i, p] = nearest * full
            excess[p] += nearest
            ordered[i, p] = elevated[i, p] - np.float32(nearest * full)
    for i in range(d + 1):
        # The rank of a coordinate is how many others lie further above their rounded value. Counted by comparing pairs:
        # no branches, as a sort of each point would have.
        rank[i, :count] = excess[:count]
    for i in range(d):
        for j in range(i + 1, d + 1):
            for p in range(count):
                less = np.int32(ordered[i, p] < ordered[j, p])
                rank[i, p] += less
                rank[j, p] += np.int32(1) - less
    keys[0, :count] = 0
    for i in range(d + 1):
        stride = strides[i]
        for p in range(count):
            # Ranks outside 0..d, because of the excess, are wrapped around; their coordinates move by a whole step,
            # after which the coordinates sum to zero.
            shift = full * (np.int32(rank[i, p] < 0) - np.int32(rank[i, p] > d))
            rank[i, p] += shift
            rem0[i, p] += shift
            elevated[i, p] = (elevated[i, p] - np.float32(rem0[i, p])) * down
            keys[0, p] += np.int64(rem0[i, p]) * stride
        for p in range(count):
            # Written to the place of their rank, remainders are sorted. Neighbours' differences are the barycentric
            # weights, and the strides in this order lead from vertex to vertex.
            ordered[rank[i, p], p] = elevated[i, p]
            steps[rank[i, p], p] = stride
    whole = strides.sum()
    for k in range(1, d + 1):
        for p in range(count):
            # From one vertex of the simplex to the next: 1 more in every coordinate, d + 1 less in one of them,
            # by descending rank.
            keys[k, p] = keys[k - 1, p] + whole - np.int64(full) * steps[d + 1 - k, p]
            weights[k, p] = ordered[d - k, p] - ordered[d + 1 - k, p]
    for p in range(count):
        weights[0, p] = ordered[d, p] + (np.float32(1) - ordered[0, p])


@compiled_as_written
def _bits(size: Any) -> Any:
    """The k of 2^k."""
    bits = 0
    while (1 << bits) < size:
        bits += 1
    return bits


@compiled_as_written
def _slot(table: NDArray[Any], shift: Any, key: Any) -> Any:
    """Where ``key`` is in a hash table [2^k, 2] of keys and vertices (-1: free), or the free slot for it."""
    # The highest bits of the product depend on all bits of the key; the lowest, which a mask would take, do not.
    slot = np.int64(np.uint64(key * _SPREAD) >> shift)
    while table[slot, 1] >= 0 and table[slot, 0] != key:
        slot = (slot + 1) & (len(table) - 1)
    return slot


@compiled_as_written
def _empty_table(bits: Any) -> Any:
    table = np.empty((1 << bits, 2), np.int64)
    for slot in range(len(table)):
        table[slot, 1] = -1
    return table


@compiled_as_written
def _number(table: NDArray[Any], shift: Any, vertex_keys: NDArray[Any], m: Any, key: Any) -> Any:
    """The vertex of ``key``; a new one is m."""
    slot = _slot(table, shift, key)
    if table[slot, 1] < 0:
        table[slot, 0], table[slot, 1] = key, m
        vertex_keys[m] = key
        return m
    return table[slot, 1]


@compiled_as_written
def _grown(vertex_keys: NDArray[Any], m: Any, bits: Any) -> Any:
    """A table of 2^bits slots with the first m known keys."""
    table, shift = _empty_table(bits), np.uint64(64 - bits)
    for v in range(m):
        slot = _slot(table, shift, vertex_keys[v])
        table[slot, 0], table[slot, 1] = vertex_keys[v], v
    return table


@compiled_as_written
def place_points(
    features: Floats, scale: Floats, strides: NDArray[Any], start: int, stop: int, vertices: NDArray[Any],
    weights: Floats
) -> Any:  # fmt: skip
    """Vertices and weights of points start..stop, numbered among themselves.

    Args:
        features: [d, n].
        scale: [d].
        strides: int64 [d + 1], the last 0.
        start: first point.
        stop: behind the last.
        vertices: uint32 [n, d + 1], rows start..stop are written.
        weights: [n, d + 1], likewise.

    Returns:
        Hash table and keys, both int64.
    """
    d = features.shape[0]
    bits = 14
    table, shift = _empty_table(bits), np.uint64(64 - bits)
    vertex_keys = np.empty(1 << (bits - 1), np.int64)
    elevated, ordered = np.empty((d + 1, _LANES), np.float32), np.empty((d + 1, _LANES), np.float32)
    rem0, rank = np.empty((d + 1, _LANES), np.int32), np.empty((d + 2, _LANES), np.int32)
    steps, keys = np.empty((d + 1, _LANES), np.int64), np.empty((d + 1, _LANES), np.int64)
    lane_weights = np.empty((d + 1, _LANES), np.float32)
    m: Any = 0
    for first in range(start, stop, _LANES):
        count = min(_LANES, stop - first)
        # At most half full, even if every vertex of these points is new: linear probing gets slow beyond that.
        if 2 * (m + count * (d + 1)) > len(table):
            bits += 2
            table, shift = _grown(vertex_keys, m, bits), np.uint64(64 - bits)
            wider = np.empty(1 << (bits - 1), np.int64)
            wider[:m] = vertex_keys[:m]
            vertex_keys = wider
        _place(features, scale, strides, first, count, elevated, rem0, rank, ordered, steps, keys, lane_weights)
        for k in range(d + 1):
            # Neighbouring pixels of like colour fall into one simplex, so most look-ups ask for the key before.
            before, v = keys[k, 0] + 1, np.int64(0)
            for p in range(count):
                if keys[k, p] != before:
                    before = keys[k, p]
                    v = _number(table, shift, vertex_keys, m, before)
                    m += np.int64(v == m)
                vertices[first + p, k] = v
                weights[first + p, k] = lane_weights[k, p]
    return table, vertex_keys[:m].copy()


@compiled_as_written
def join(table: NDArray[Any], vertex_keys: NDArray[Any], more: NDArray[Any]) -> Any:
    """Add the keys ``more``: the table and keys of both, and the numbers of ``more`` among them (uint32)."""
    m: Any = len(vertex_keys)
    both = np.empty(m + len(more), np.int64)
    both[:m] = vertex_keys
    bits = _bits(len(table))
    if 2 * len(both) > len(table):
        bits = _bits(2 * len(both))
        table = _grown(both, m, bits)
    shift = np.uint64(64 - bits)
    numbers = np.empty(len(more), np.uint32)
    for i in range(len(more)):
        v = _number(table, shift, both, m, more[i])
        m += np.int64(v == m)
        numbers[i] = v
    return table, both[:m].copy(), numbers


@compiled_as_written
def find_neighbours(
    table: NDArray[Any], vertex_keys: NDArray[Any], step: Any, offset: int, out: NDArray[Any], start: int, stop: int
) -> None:
    """Neighbours along one axis of vertices start..stop, and what they are to their neighbours.

    Args:
        table: of all vertices.
        vertex_keys: their keys.
        step: what a step along the axis adds to the key.
        offset: number of the first vertex in ``out``.
        out: uint32 [.., 2], full of the number that stands for a neighbour that is not there.
        start: first vertex.
        stop: behind the last.
    """
    shift = np.uint64(64 - _bits(len(table)))
    for v in range(start, stop):
        # Looked up in one direction only: whose neighbour is above has it below. Ranges run in several threads, but
        # each place of ``out`` has one writer, for a vertex is above one other at most.
        other = table[_slot(table, shift, vertex_keys[v] + step), 1]
        if other >= 0:
            out[offset + v, 0] = offset + other
            out[offset + other, 1] = offset + v


@compiled_as_written
def count_entries(
    local: NDArray[Any], numbers: NDArray[Any], counts: NDArray[Any], start: int, stop: int
) -> None:  # fmt: skip
    """Renumber the vertices of points start..stop and count how many entries [n, d + 1] each vertex has there."""
    for p in range(start, stop):
        for k in range(local.shape[1]):
            v = numbers[local[p, k]]
            local[p, k] = v
            counts[v] += 1


@compiled_as_written
def sort_entries(local: NDArray[Any], barycentric: Floats, following: NDArray[Any], points: NDArray[Any],
                 sorted_: Floats, start: int, stop: int) -> None:  # fmt: skip
    """Points and weights of points start..stop to their places in the lists of their vertices (``following``)."""
    for p in range(start, stop):
        for k in range(local.shape[1]):
            e = following[local[p, k]]
            following[local[p, k]] = e + 1
            points[e], sorted_[e] = p, barycentric[p, k]


@compiled_as_written
def sum_entries(starts: NDArray[Any], weights: Floats, out: Floats, start: int, stop: int) -> None:
    """out[v] = sum of the weights of vertex v, start <= v < stop."""
    for v in range(start, stop):
        total = np.float32(0)
        for e in range(starts[v], starts[v + 1]):
            total += weights[e]
        out[v] = total


@compiled_as_written
def blur_sums(sums: Floats, neighbours: NDArray[Any], out: Floats, start: int, stop: int) -> None:
    """:func:`tagmask.methods.dense_crf.lattice.rows.blur` of one number per vertex."""
    half = np.float32(0.5)
    for v in range(start, stop):
        out[v] = sums[v] + half * (sums[neighbours[v, 0]] + sums[neighbours[v, 1]])


@compiled_as_written
def normalise_points(
    sums: Floats, factor: Any, compat: Any, local: NDArray[Any], barycentric: Floats, nu: Floats, offset: int,
    column: int, vertices: NDArray[Any], weights: Floats, start: int, stop: int
) -> None:  # fmt: skip
    """nu = 1 / sqrt(row sum + 1e-20) of points start..stop, their vertices and final weights from ``column`` on."""
    for p in range(start, stop):
        total = np.float32(0)
        for k in range(local.shape[1]):
            total += sums[local[p, k]] * barycentric[p, k]
        nu[p] = np.float32(1) / np.sqrt(total * factor + np.float32(1e-20))
        for k in range(local.shape[1]):
            vertices[p, column + k] = offset + local[p, k]
            # All constant factors in one number: a round of mean field then costs one product per entry.
            weights[p, column + k] = barycentric[p, k] * (factor * nu[p] * compat)


@compiled_as_written
def normalise_entries(points: NDArray[Any], weights: Floats, nu: Floats, start: int, stop: int) -> None:
    """Multiply entries start..stop by nu of their points."""
    for e in range(start, stop):
        weights[e] *= nu[points[e]]
