"""The formulas that several papers share, in float64 and as plainly as they are printed; nothing of tagmask is used."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


def drawn(seed: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Array:
    """Uniform float64 numbers."""
    return np.random.default_rng(seed).uniform(low, high, shape)


def close(result: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """Same shape, and equal up to ``tolerance`` times the largest expected value (at least 1)."""
    first = result.detach().numpy() if isinstance(result, Tensor) else np.asarray(result)
    second = np.asarray(expected)
    assert first.shape == second.shape, f"shapes {first.shape} and {second.shape}"
    scale = max(1.0, float(np.abs(second).max(initial=0.0)))
    np.testing.assert_allclose(first.astype(np.float64), second.astype(np.float64), rtol=0, atol=tolerance * scale)


def softmax(values: Array, axis: int) -> Array:
    """exp(v) / sum of exp(v)."""
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def sigmoid(values: Array) -> Array:
    """1 / (1 + exp(-v))."""
    return 1 / (1 + np.exp(-values))


def soft_margin(logits: Array, tags: Array) -> float:
    """Multi-label soft margin [B, C]: mean over the classes, then over the images."""
    total = 0.0
    for row, own in zip(logits, tags, strict=True):
        terms = [y * math.log(1 / (1 + math.exp(-z))) + (1 - y) * math.log(1 / (1 + math.exp(z)))
                 for z, y in zip(row, own, strict=True)]  # fmt: skip
        total -= sum(terms) / len(terms)
    return total / len(logits)


def bilinear(maps: Array, size: tuple[int, int], *, corners: bool = False) -> Array:
    """Maps [K, h, w] at another size, value by value; half-pixel centres, or the corners' centres on each other."""
    _, height, width = maps.shape
    result = np.zeros((len(maps), *size))

    def source(place: int, small: int, large: int) -> tuple[int, int, float]:
        if corners:
            at = place * (small - 1) / (large - 1) if large > 1 else 0.0
        else:
            at = max(0.0, (place + 0.5) * small / large - 0.5)
        first = min(math.floor(at), small - 1)
        return first, min(first + 1, small - 1), at - first

    for i in range(size[0]):
        y0, y1, dy = source(i, height, size[0])
        for j in range(size[1]):
            x0, x1, dx = source(j, width, size[1])
            top = maps[:, y0, x0] * (1 - dx) + maps[:, y0, x1] * dx
            bottom = maps[:, y1, x0] * (1 - dx) + maps[:, y1, x1] * dx
            result[:, i, j] = top * (1 - dy) + bottom * dy
    return result


def pair_offsets(radius: int) -> list[tuple[int, int]]:
    """IRNet's half-plane: to the right in the same row, then row by row downwards, closer than the radius."""
    row = [(0, dx) for dx in range(1, radius)]
    for dy in range(1, radius):
        row += [(dy, dx) for dx in range(-radius + 1, radius) if math.hypot(dy, dx) < radius]
    return row


def path(offset: tuple[int, int]) -> list[tuple[int, int]]:
    """All points of the bounding box of 0 and ``offset`` whose distance to the line through both is below 1."""
    dy, dx = offset
    length = math.hypot(dy, dx)
    points = []
    for y in range(min(0, dy), max(0, dy) + 1):
        for x in range(min(0, dx), max(0, dx) + 1):
            if abs(dy * x - dx * y) / length < 1 - 1e-12:
                points.append((y, x))
    return points


def numeric_gradient(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Array:
    """Central differences of a scalar function, entry by entry, float64."""
    gradient = np.zeros(at.numel())
    flat = at.detach().double().flatten()
    for i in range(flat.numel()):
        shifted = [flat.clone(), flat.clone()]
        shifted[0][i] += step
        shifted[1][i] -= step
        high, low = (float(function(values.view(at.shape))) for values in shifted)
        gradient[i] = (high - low) / (2 * step)
    return gradient.reshape(at.shape)


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Array:
    """The same by autograd."""
    leaf = at.detach().clone().requires_grad_(True)
    (result,) = torch.autograd.grad(function(leaf), leaf)
    return result.numpy()


def transition(size: tuple[int, int], weight: Callable[[int, int, int, int], float], radius: int) -> Array:
    """The dense T of a random walk: W with 1 on its diagonal, both directions of every pair, columns that sum to 1."""
    height, width = size
    matrix = np.eye(height * width)
    for y in range(height):
        for x in range(width):
            for dy, dx in pair_offsets(radius):
                v, u = y + dy, x + dx
                if v < height and 0 <= u < width:
                    value = weight(y, x, v, u)
                    matrix[y * width + x, v * width + u] = value
                    matrix[v * width + u, y * width + x] = value
    return matrix / matrix.sum(axis=0, keepdims=True)


def walked(maps: Array, matrix: Array, steps: int) -> Array:
    """Row vectors times the matrix's power."""
    return (maps.reshape(len(maps), -1) @ np.linalg.matrix_power(matrix, steps)).reshape(maps.shape)
