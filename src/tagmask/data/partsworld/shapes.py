"""PartsWorld, shapes and patterns: signed distances and two-tone patterns on coordinate arrays.

Shapes take float32 coordinates u (along the object, head at +u) and v (down) in units of the object's length
and return signed distances in the same units, negative inside. Patterns take coordinates in pixels of a
160-pixel image and return float32 in [0, 1]. Only correctly rounded operations, see partsworld_scene.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tagmask.types import FloatArray

Shape = Callable[[FloatArray, FloatArray], FloatArray]
Pattern = Callable[[FloatArray, FloatArray], FloatArray]
Point = tuple[float, float]

HEAD_CENTRE = (0.49, -0.16)


def _f(value: float) -> np.float32:
    return np.float32(value)


def norm(u: FloatArray, v: FloatArray) -> FloatArray:
    """Length of the vector (u, v)."""
    length: FloatArray = np.sqrt(u * u + v * v)
    return length


def union(*distances: FloatArray) -> FloatArray:
    """Distance to the nearest of several shapes."""
    nearest: FloatArray = np.minimum.reduce(distances)
    return nearest


def ellipse(u: FloatArray, v: FloatArray, a: float, b: float) -> FloatArray:
    """Distance to an ellipse at the origin, exact on its outline, near enough beside it."""
    p, q = u * _f(1 / a), v * _f(1 / b)
    r = norm(p, q)
    gradient = norm(p * _f(1 / a), q * _f(1 / b))
    distance: FloatArray = np.divide(r * (r - _f(1)), np.maximum(gradient, _f(1e-3)))
    return distance


def disc(u: FloatArray, v: FloatArray, centre: Point, radius: float) -> FloatArray:
    """Distance to a disc."""
    p, q = u - _f(centre[0]), v - _f(centre[1])
    return norm(p, q) - _f(radius)


def capsule(u: FloatArray, v: FloatArray, start: Point, end: Point, radius: float) -> FloatArray:
    """Distance to a line segment with round ends."""
    along = _f(end[0] - start[0]), _f(end[1] - start[1])
    p, q = u - _f(start[0]), v - _f(start[1])
    length = along[0] * along[0] + along[1] * along[1]
    t: FloatArray = np.clip(np.divide(p * along[0] + q * along[1], length), _f(0), _f(1))
    p, q = p - t * along[0], q - t * along[1]
    return norm(p, q) - _f(radius)


def polygon(u: FloatArray, v: FloatArray, points: Sequence[Point]) -> FloatArray:
    """Distance to a polygon, convex or not, given by its corners in order."""
    nearest = np.full_like(u, 1e6)
    inside = np.zeros(u.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True):
        nearest = union(nearest, capsule(u, v, (ax, ay), (bx, by), 0.0))
        if ay != by:
            crossing = _f(ax) + (v - _f(ay)) * _f((bx - ax) / (by - ay))
            inside ^= ((v < _f(ay)) != (v < _f(by))) & (u < crossing)
    return np.where(inside, -nearest, nearest)


# Directions in steps of 36 degrees, written out so that no machine's libm rounds them its own way.
_TENTHS: tuple[Point, ...] = (
    (0.0, -1.0), (0.5878, -0.8090), (0.9511, -0.3090), (0.9511, 0.3090), (0.5878, 0.8090),
    (0.0, 1.0), (-0.5878, 0.8090), (-0.9511, 0.3090), (-0.9511, -0.3090), (-0.5878, -0.8090),
)  # fmt: skip


def _round_with_bill(u: FloatArray, v: FloatArray) -> FloatArray:
    return union(disc(u, v, (0, 0), 0.185), capsule(u, v, (0.1, 0.05), (0.26, 0.07), 0.045))


def _horned(u: FloatArray, v: FloatArray) -> FloatArray:
    horns = union(
        polygon(u, v, ((-0.15, -0.08), (-0.13, -0.29), (0.0, -0.14))),
        polygon(u, v, ((0.15, -0.08), (0.15, -0.29), (0.01, -0.14))),
    )
    return union(disc(u, v, (0, 0), 0.18), horns)


def _cab(u: FloatArray, v: FloatArray) -> FloatArray:
    cab = polygon(u, v, ((-0.16, -0.16), (0.18, -0.16), (0.18, 0.17), (-0.16, 0.17)))
    return union(cab, polygon(u, v, ((0.05, -0.28), (0.14, -0.28), (0.14, -0.1), (0.05, -0.1))))


def _star(u: FloatArray, v: FloatArray) -> FloatArray:
    radii = (0.25, 0.125) * 5
    corners = [(x * r, y * r) for (x, y), r in zip(_TENTHS, radii, strict=True)]
    return polygon(u, v, corners) - _f(0.015)


def _gem(u: FloatArray, v: FloatArray) -> FloatArray:
    return polygon(u, v, ((-0.2, -0.07), (-0.11, -0.2), (0.11, -0.2), (0.2, -0.07), (0.0, 0.24)))


def _crescent(u: FloatArray, v: FloatArray) -> FloatArray:
    return np.maximum(disc(u, v, (0, 0), 0.23), -disc(u, v, (0.16, -0.03), 0.15))


def _sun(u: FloatArray, v: FloatArray) -> FloatArray:
    square = np.maximum(np.abs(u), np.abs(v)) - _f(0.165)
    tilted = (np.abs(u) + np.abs(v)) * _f(0.7071) - _f(0.165)
    return union(square, tilted)


def _flower(u: FloatArray, v: FloatArray) -> FloatArray:
    petals = [disc(u, v, (x * 0.13, y * 0.13), 0.095) for x, y in _TENTHS[::2]]
    return union(disc(u, v, (0, 0), 0.1), *petals)


HEAD_SHAPES: tuple[Shape, ...] = (
    _round_with_bill, _horned, _cab, _star, _gem, _crescent, _sun, _flower,
)  # fmt: skip


def hump(x: FloatArray) -> FloatArray:
    """A smooth wave of period 1 between 0 (at whole numbers) and 1, without a sine."""
    t = x - np.floor(x)
    t = _f(4) * t * (_f(1) - t)
    return t * t * (_f(3) - _f(2) * t)


def step(x: FloatArray, low: float, high: float) -> FloatArray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t: FloatArray = np.clip((x - _f(low)) * _f(1 / (high - low)), _f(0), _f(1))
    return t * t * (_f(3) - _f(2) * t)


def stripes(p: FloatArray, q: FloatArray) -> FloatArray:
    """Bars across the body."""
    return hump(p / _f(8.5))


def dots(p: FloatArray, q: FloatArray) -> FloatArray:
    """Round spots on a lattice whose rows are shifted."""
    row = np.floor(q / _f(8))
    x = p / _f(9) + row * _f(0.5)
    x = (x - np.floor(x) - _f(0.5)) * _f(9)
    y = (q / _f(8) - row - _f(0.5)) * _f(8)
    return step(norm(x, y), 3.4, 1.8)


def zigzag(p: FloatArray, q: FloatArray) -> FloatArray:
    """Bent bars."""
    t = q / _f(11)
    return hump((p + np.abs(t - np.floor(t) - _f(0.5)) * _f(10)) / _f(8))


def checks(p: FloatArray, q: FloatArray) -> FloatArray:
    """A soft chequerboard."""
    a, b = hump(p / _f(13)), hump(q / _f(13))
    return a + b - _f(2) * a * b


def bars(p: FloatArray, q: FloatArray) -> FloatArray:
    """Lengthwise bars."""
    return hump(q / _f(7))


def lattice(p: FloatArray, q: FloatArray) -> FloatArray:
    """Crossing lines."""
    return np.maximum(step(hump((p + q) / _f(13)), 0.6, 0.95), step(hump((p - q) / _f(13)), 0.6, 0.95))


def scales(p: FloatArray, q: FloatArray) -> FloatArray:
    """Overlapping arcs."""
    t = p / _f(10)
    t = t - np.floor(t) - _f(0.5)
    return hump(q / _f(8) + t * t * _f(2.4))


def weave(p: FloatArray, q: FloatArray) -> FloatArray:
    """Short dashes, turned by rows."""
    return hump(p / _f(12)) * hump(q / _f(6))
