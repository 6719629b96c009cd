"""PartsWorld, what the classes look like: colours, which class shares which body, head markings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tagmask.data.partsworld.shapes import (
    HEAD_SHAPES,
    Pattern,
    Shape,
    bars,
    checks,
    disc,
    dots,
    hump,
    lattice,
    norm,
    polygon,
    scales,
    step,
    stripes,
    union,
    weave,
    zigzag,
)
from tagmask.types import FloatArray

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Coat:
    """A two-tone texture: pattern 0 shows ``ground``, 1 shows ``mark``."""

    ground: Colour
    mark: Colour
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Head:
    """The unique part: its outline, its markings (0..1 on head coordinates) and their colour."""

    shape: Shape
    markings: Callable[[FloatArray, FloatArray], FloatArray]
    mark: Colour


# The four coats that classes share in pairs, and the one each class would wear with nothing shared.
CORAL = Coat((233, 96, 72), (196, 60, 52), stripes)
AMBER = Coat((243, 184, 62), (214, 140, 34), dots)
VIOLET = Coat((156, 110, 212), (116, 74, 178), zigzag)
TEAL = Coat((58, 192, 184), (28, 148, 150), checks)
ROSE = Coat((238, 128, 170), (204, 84, 134), scales)
LIME = Coat((184, 208, 74), (142, 168, 40), lattice)
COCOA = Coat((160, 106, 72), (122, 76, 50), weave)
INDIGO = Coat((88, 108, 196), (58, 74, 160), bars)

SHARED_COATS = (CORAL, AMBER, VIOLET, CORAL, AMBER, VIOLET, TEAL, TEAL)
OWN_COATS = (CORAL, AMBER, VIOLET, ROSE, LIME, COCOA, TEAL, INDIGO)

_WARM_LIMB = Coat((178, 92, 52), (140, 66, 38), bars)
_COOL_LIMB = Coat((92, 90, 166), (64, 64, 134), bars)
SHARED_LIMBS = tuple(_WARM_LIMB if coat in (CORAL, AMBER) else _COOL_LIMB for coat in SHARED_COATS)
OWN_LIMBS = tuple(
    Coat(tuple(0.7 * c for c in coat.mark), tuple(0.5 * c for c in coat.mark), bars)  # type: ignore[arg-type]
    for coat in OWN_COATS
)


def _rings(u: FloatArray, v: FloatArray) -> FloatArray:
    return step(hump(norm(u, v) / np.float32(0.1)), 0.5, 0.8)


def _spots(u: FloatArray, v: FloatArray) -> FloatArray:
    places = ((0.08, 0.09), (-0.09, 0.05), (-0.02, -0.09), (0.13, -0.2), (-0.12, -0.2))
    return step(union(*(disc(u, v, place, 0.055) for place in places)), 0.012, -0.012)


def _windows(u: FloatArray, v: FloatArray) -> FloatArray:
    across = np.abs(np.abs(u - np.float32(0.01)) - np.float32(0.085))
    pane = np.maximum(across, np.abs(v - np.float32(0.02)))
    return step(pane, 0.062, 0.038)


def _inner_star(u: FloatArray, v: FloatArray) -> FloatArray:
    return step(HEAD_SHAPES[3](u * np.float32(1.75), v * np.float32(1.75)), 0.015, -0.015)


def _facets(u: FloatArray, v: FloatArray) -> FloatArray:
    middle = polygon(u, v, ((-0.1, -0.06), (0.1, -0.06), (0.0, 0.2)))
    rim = np.minimum(
        polygon(u, v, ((-0.2, -0.07), (-0.11, -0.2), (-0.1, -0.06))),
        polygon(u, v, ((0.2, -0.07), (0.11, -0.2), (0.1, -0.06))),
    )
    return step(np.minimum(middle, rim), 0.012, -0.012)


def _craters(u: FloatArray, v: FloatArray) -> FloatArray:
    places = ((-0.13, -0.09, 0.05), (-0.14, 0.05, 0.06), (0.03, 0.16, 0.05), (0.04, -0.2, 0.045))
    return step(union(*(disc(u, v, (x, y), radius) for x, y, radius in places)), 0.012, -0.012)


def _core(u: FloatArray, v: FloatArray) -> FloatArray:
    r = norm(u, v)
    return np.maximum(step(r, 0.1, 0.08), step(r, 0.15, 0.165))


def _petals(u: FloatArray, v: FloatArray) -> FloatArray:
    r = norm(u, v)
    return step(np.abs(r - np.float32(0.12)), 0.05, 0.038)


HEADS = tuple(
    Head(shape, markings, mark)
    for shape, (markings, mark) in zip(
        HEAD_SHAPES,
        (
            (_rings, (250, 246, 232)),
            (_spots, (92, 54, 34)),
            (_windows, (255, 226, 112)),
            (_inner_star, (58, 34, 74)),
            (_facets, (96, 196, 240)),
            (_craters, (232, 234, 248)),
            (_core, (255, 160, 44)),
            (_petals, (250, 134, 190)),
        ),
        strict=True,
    )
)
EYE_WHITE: Colour = (252, 252, 250)
EYE_DARK: Colour = (32, 30, 40)
OUTLINE: Colour = (52, 40, 48)


def mixed(a: Colour, b: Colour, weight: float) -> Colour:
    """``a`` at weight 0, ``b`` at weight 1."""
    return (
        a[0] + weight * (b[0] - a[0]),
        a[1] + weight * (b[1] - a[1]),
        a[2] + weight * (b[2] - a[2]),
    )


# Backgrounds: light tone, dark tone, kind of pattern. Pale and muted, so that objects stand out.
BACKGROUNDS: tuple[tuple[Colour, Colour, str], ...] = (
    ((226, 210, 178), (198, 178, 142), "plain"),
    ((196, 166, 142), (160, 130, 110), "planks"),
    ((150, 156, 164), (116, 122, 132), "tiles"),
    ((200, 200, 196), (172, 172, 170), "cobbles"),
    ((236, 238, 242), (208, 214, 222), "plain"),
    ((140, 118, 98), (104, 86, 72), "cobbles"),
    ((176, 178, 158), (142, 146, 126), "planks"),
    ((190, 178, 194), (156, 146, 162), "tiles"),
)
WATER: tuple[Colour, Colour, Colour] = ((70, 132, 178), (48, 100, 150), (196, 222, 238))
GRASS: tuple[Colour, Colour, Colour] = ((110, 158, 78), (66, 116, 52), (158, 190, 108))
BALLAST: tuple[Colour, Colour] = ((150, 142, 134), (104, 98, 94))
SLEEPER: Colour = (96, 70, 54)
STEEL: Colour = (208, 212, 220)
