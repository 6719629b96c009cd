"""What the compiled and the torch version of the permutohedral lattice share: scales, and keys of vertices.

Source: see :mod:`tagmask.methods.dense_crf.lattice.filter`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LARGEST = 1 << 62  # keys below it are exact


def scales(d: int) -> NDArray[np.float32]:
    """Factors of the features, float32 [d], so that one blur along each axis has the standard deviation 1."""
    spread = np.float32(np.sqrt(2 / 3) * (d + 1))
    return np.array([1 / np.sqrt((i + 2) * (i + 1)) for i in range(d)], np.float32) * spread


def key_strides(low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.int64]:
    """Factors of the coordinates in a vertex's 64-bit key, [d + 1], the last one zero.

    Each coordinate gets the room that points within low..high (float32 [d]) and the neighbours of their vertices need,
    so different vertices have different keys, and a neighbour's key is the key plus a constant. Kernels so narrow that
    62 bits do not suffice get arbitrary odd factors instead: then two of v vertices share a key with a probability of
    about v^2 / 2^65.
    """
    d = len(low)
    # Lifted coordinate i is a sum of the later features minus i times one: that bounds its range. Room for some steps
    # beyond is for the simplex's other vertices and their neighbours.
    reach = (high.astype(np.float64) - low) * scales(d)
    sizes = [int(reach[i:].sum() + i * (reach[i - 1] if i else 0)) + 10 * (d + 1) for i in range(d)]
    factors = [1]
    for size in sizes:
        factors.append(factors[-1] * size)
    # Products wrap modulo 2^64, where odd factors are invertible: no step along an axis leads back to the same key.
    if factors[-1] >= _LARGEST:
        factors = [(0x9E3779B97F4A7C15 * (i + 1) ** 5 % (1 << 62)) | 1 for i in range(d)]
    return np.array([*factors[:d], 0], np.int64)


def axis_steps(strides: NDArray[np.int64]) -> NDArray[np.int64]:
    """What one step along each axis adds to a key, [d + 1]: -1 to every coordinate, d more to the axis's own."""
    steps: NDArray[np.int64] = len(strides) * strides - strides.sum()
    return steps
