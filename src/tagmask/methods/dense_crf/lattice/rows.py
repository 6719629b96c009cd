"""Compiled arithmetic on rows of labels: weighted sums of rows, blurs, softmax.

The inner loops are written as vector instructions (LLVM splits them into what the processor has): sums whose length is
known only at run time are not turned into them reliably. All functions work on a range of rows of contiguous arrays,
release the interpreter's lock and write nothing outside their range, so any number of threads may call them at once.
Each sum has one order, whatever the ranges.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from tagmask.ops.compiling import compiled

Floats = NDArray[np.float32]
# Why not plain loops: numba's load and store the totals of a row at every entry and take twice as long (24 columns, one
# core); with a width fixed at compile time even longer. As vectors the totals stay in registers.
_BLOCK = 128  # rows whose energies stay in the cache until their softmax


def _bits_as_float(typing_context: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), codegen


def _all_lanes(builder: Any, value: Any, vector: Any) -> Any:
    """A vector of the same value throughout."""
    empty, zeros = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(builder.insert_element(empty, value, ir.IntType(32)(0)), empty, zeros)


def _vectors(width: int) -> list[tuple[int, Any]]:
    """Where vectors of 16, 8 or 4 floats begin that make up ``width``: powers of two stay in registers, 24 does not."""
    vectors, at = [], 0
    while at < width:
        lanes = next(lanes for lanes in (16, 8, 4) if lanes <= width - at)
        vectors.append((at, ir.VectorType(ir.FloatType(), lanes)))
        at += lanes
    return vectors


def _weighted_sum(typing_context: Any, width: Any, out: Any, at: Any, values: Any, column: Any, index: Any,
                  weights: Any, begin: Any, end: Any) -> Any:  # fmt: skip
    """out.flat[at:][:width] += sum over begin <= e < end of weights[e] * values[index[e], column:][:width]."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        kinds = signature.args
        _, out, at, values, column, index, weights, begin, end = arguments
        out, rows, index, weights = (
            context.make_array(kinds[i])(context, builder, array)
            for i, array in ((1, out), (3, values), (5, index), (6, weights))
        )
        stride, first = builder.extract_value(rows.shape, 1), builder.gep(rows.data, [column])

        def place(row: Any, offset: int, vector: Any) -> Any:
            return builder.bitcast(builder.gep(row, [stride.type(offset)]), vector.as_pointer())

        vectors = _vectors(kinds[0].literal_value)
        targets = [place(builder.gep(out.data, [at]), *each) for each in vectors]
        # On the stack in name only: LLVM moves what is loaded and stored by its name alone into registers.
        totals = [cast(Any, cgutils).alloca_once(builder, vector) for _, vector in vectors]
        for target, total in zip(targets, totals, strict=True):
            builder.store(builder.load(target, align=4), total)
        with cgutils.for_range_slice(builder, begin, end, begin.type(1)) as (e, _):
            row = builder.zext(builder.load(builder.gep(index.data, [e])), stride.type)
            source = builder.gep(first, [builder.mul(row, stride)])
            weight = builder.load(builder.gep(weights.data, [e]))
            for total, (offset, vector) in zip(totals, vectors, strict=True):
                # align=4: a row begins at any float; a load that trusts in a vector's own alignment would fault.
                source_values = builder.load(place(source, offset, vector), align=4)
                part = builder.fmul(_all_lanes(builder, weight, vector), source_values, flags=("contract",))
                builder.store(builder.fadd(builder.load(total), part, flags=("contract",)), total)
        for target, total in zip(targets, totals, strict=True):
            builder.store(builder.load(total), target, align=4)

    size = types.intp
    argument_types = (width, out, size, values, size, index, weights, size, size)
    return (types.void(*argument_types), codegen) if isinstance(width, types.IntegerLiteral) else None


def _halves_added(typing_context: Any, width: Any, out: Any, values: Any, column: Any, v: Any, one: Any,
                  other: Any) -> Any:  # fmt: skip
    """out[v, column:][:width] = values[v, ...] + (values[one, ...] + values[other, ...]) / 2."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        kinds = signature.args
        _, out, values, column, *numbers = arguments
        out, rows = (context.make_array(kinds[i])(context, builder, array) for i, array in ((1, out), (2, values)))
        stride = builder.extract_value(rows.shape, 1)
        places = [builder.add(builder.mul(number, stride), column) for number in numbers]
        for offset, vector in _vectors(kinds[0].literal_value):

            def row(data: Any, place: Any, offset: int = offset, vector: Any = vector) -> Any:
                start = builder.gep(data, [builder.add(place, stride.type(offset))])
                return builder.bitcast(start, vector.as_pointer())

            here, one, other = (builder.load(row(rows.data, place), align=4) for place in places)
            half = ir.Constant(vector, [0.5] * vector.count)
            total = builder.fadd(here, builder.fmul(half, builder.fadd(one, other)), flags=("contract",))
            builder.store(total, row(out.data, places[0]), align=4)

    size = types.intp
    argument_types = (width, out, values, size, size, size, size)
    return (types.void(*argument_types), codegen) if isinstance(width, types.IntegerLiteral) else None


# prefer_literal: the width must be known when machine code is made, and None (above) says that it is not.
_blur_row: Any = cast(Any, intrinsic)(prefer_literal=True)(_halves_added)
_float_of_bits: Any = cast(Any, intrinsic)(_bits_as_float)
_add: Any = cast(Any, intrinsic)(prefer_literal=True)(_weighted_sum)


@compiled
def splat(
    values: Floats, starts: NDArray[Any], points: NDArray[Any], weights: Floats, out: Floats, start: int, stop: int
) -> None:
    """Rows start..stop of ``out``: row v is the sum of weights[e] * values[points[e]], starts[v] <= e < starts[v + 1].

    The columns (a multiple of 4) are taken by the widest vectors that fit.
    """
    width = values.shape[1]
    out[start:stop] = 0
    column = 0
    # 24 columns, 16 and 8 floats, are the 21 labels of VOC with their padding: one pass over the entries does for all.
    while column < width:
        if width - column >= 24:
            for v in range(start, stop):
                _add(24, out, v * width + column, values, column, points, weights, starts[v], starts[v + 1])
            column += 24
        elif width - column >= 8:
            for v in range(start, stop):
                _add(8, out, v * width + column, values, column, points, weights, starts[v], starts[v + 1])
            column += 8
        else:
            for v in range(start, stop):
                _add(4, out, v * width + column, values, column, points, weights, starts[v], starts[v + 1])
            column += 4


@compiled
def blur(values: Floats, neighbours: NDArray[Any], out: Floats, start: int, stop: int) -> None:
    """Rows start..stop of ``out``: the row of ``values`` and half of those of its two neighbours [m, 2].

    The columns (a multiple of 4) are taken by the widest vectors that fit.
    """
    width = values.shape[1]
    column = 0
    while column < width:
        if width - column >= 24:
            for v in range(start, stop):
                _blur_row(24, out, values, column, v, neighbours[v, 0], neighbours[v, 1])
            column += 24
        elif width - column >= 8:
            for v in range(start, stop):
                _blur_row(8, out, values, column, v, neighbours[v, 0], neighbours[v, 1])
            column += 8
        else:
            for v in range(start, stop):
                _blur_row(4, out, values, column, v, neighbours[v, 0], neighbours[v, 1])
            column += 4


@compiled
def slice_rows(
    values: Floats, vertices: NDArray[Any], weights: Floats, each: int, out: Floats, start: int, stop: int
) -> None:
    """Add to row i of ``out`` what point start + i has: the sum over its ``each`` vertices of weight * values."""
    width = values.shape[1]
    column = 0
    while column < width:
        if width - column >= 24:
            for p in range(start, stop):
                at = (p - start) * width + column
                _add(24, out, at, values, column, vertices, weights, p * each, (p + 1) * each)
            column += 24
        elif width - column >= 8:
            for p in range(start, stop):
                at = (p - start) * width + column
                _add(8, out, at, values, column, vertices, weights, p * each, (p + 1) * each)
            column += 8
        else:
            for p in range(start, stop):
                at = (p - start) * width + column
                _add(4, out, at, values, column, vertices, weights, p * each, (p + 1) * each)
            column += 4


@compiled
def _exp(values: Floats) -> None:
    """exp of values <= 0 in place, relative error below 1e-6; the library's own is not vectorised."""
    for i in range(values.size):
        # e^-60 is lost beside the largest label's 1 in float32, and below -87 the exponent bits would run over. Then
        # exp(x) = 2^n exp(r) with |r| <= ln(2) / 2: ln 2 is subtracted in two parts, so that r is exact; the polynomial
        # is that of the Cephes library's expf, and 2^n is made of its bits.
        x = max(values[i], np.float32(-60))
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


@compiled
def _softmax(energy: Floats, out: Floats) -> None:
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


@compiled
def update(values: Floats, vertices: NDArray[Any], weights: Floats, each: int, negative: Floats, out: Floats,
           start: int, stop: int) -> None:  # fmt: skip
    """Rows start..stop of ``out``: softmax of ``negative`` plus what :func:`slice_rows` adds to it."""
    energy = np.empty((_BLOCK, negative.shape[1]), np.float32)
    for first in range(start, stop, _BLOCK):
        last = min(first + _BLOCK, stop)
        energy[: last - first] = negative[first:last]
        # The energies of all pixels are never in memory at once: each block is made, turned into probabilities and
        # forgotten.
        slice_rows(values, vertices, weights, each, energy, first, last)
        _softmax(energy[: last - first], out[first:last])


@compiled
def start(unary: Floats, fill: Any, negative: Floats, q: Floats, start: int, stop: int) -> None:
    """Rows start..stop of -unary (planes [C, n]), filled up with ``fill``, and of their softmax."""
    energy = np.empty((_BLOCK, negative.shape[1]), np.float32)
    for first in range(start, stop, _BLOCK):
        last = min(first + _BLOCK, stop)
        energy[:] = fill
        for c in range(len(unary)):
            for p in range(first, last):
                energy[p - first, c] = -unary[c, p]
        negative[first:last] = energy[: last - first]
        _softmax(energy[: last - first], q[first:last])


@compiled
def planes(rows: Floats, out: Floats, start: int, stop: int) -> None:
    """Columns start..stop of ``out`` [C, n]: the first C columns of these rows."""
    for first in range(start, stop, _BLOCK):
        last = min(first + _BLOCK, stop)
        for c in range(len(out)):
            for p in range(first, last):
                out[c, p] = rows[p, c]


@compiled
def mix(rows: Floats, matrix: Floats, start: int, stop: int) -> None:
    """Rows start..stop times ``matrix`` [c, c], in place."""
    new = np.empty(rows.shape[1], np.float32)
    for v in range(start, stop):
        new[:] = 0
        for c in range(len(matrix)):
            for k in range(rows.shape[1]):
                new[k] += rows[v, c] * matrix[c, k]
        rows[v] = new
