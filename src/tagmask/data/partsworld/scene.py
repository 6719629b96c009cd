"""PartsWorld, the plan of a scene: which objects, contexts and clutter an image holds and where. No pixels.

Every image is planned from ``(seed, split, index)`` alone, so any image can be made by itself and in any
order. Only PCG64's uniform doubles and the operations that IEEE 754 rounds correctly (+ - * / sqrt, floor,
comparisons) are used here and in the painter: the same numbers come out on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tagmask.data.partsworld.shapes import HEAD_CENTRE

T = TypeVar("T")
Probability = Annotated[float, Field(ge=0, le=1)]
Split = Literal["train", "val"]
SPLITS: tuple[Split, Split] = ("train", "val")

CLASS_NAMES = ("paddler", "grazer", "chugger", "starlet", "gemlet", "moonlet", "sunlet", "bloomlet")
CONTEXT_OF_LABEL = {1: "water", 2: "grass", 3: "rail"}
CONTEXT_FREE_LABELS = (4, 5, 6, 7, 8)
N_BACKGROUNDS = 8

_EXTRA_IS_CONTEXT_FREE = 0.9
_PLACEMENT_TRIES = 12
# Largest half-angle tangent of an object's tilt: tan(30 / 2 degrees), so that heads stay off the ground.
_TILT = 0.268
_OBJECTS, _CONTEXTS, _CLUTTER = 0, 1, 2
PAINT = 3


class SceneSettings(BaseModel):
    """Everything that decides what the images look like. Changing one knob leaves the draws of the others.

    ``sharing`` 0 makes every part unique to its class, 1 gives both classes of a pair the same body, limbs
    and tail; ``context`` is the chance of water, grass or rail in an image that holds its class,
    ``context_without`` the chance in one that does not; ``clutter`` scales the number of distractors;
    ``objects`` are the chances of 1, 2 and 3 objects; ``object_length`` is relative to ``size``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0, description="seed of the data, apart from the seed of a run")
    train: int = Field(default=600, ge=0, le=99_999, description="number of training images")
    val: int = Field(default=150, ge=0, le=99_999, description="number of validation images")
    size: int = Field(default=160, ge=32, le=1024, description="side of the square images in pixels")
    sharing: Probability = Field(default=1.0, description="how much of body, limbs and tail is shared")
    context: Probability = Field(default=0.88, description="chance of a class's own context")
    context_without: Probability = Field(default=0.4, description="chance of a context without its class")
    clutter: float = Field(default=1.0, ge=0, le=5, description="scale of the number of distractors")
    objects: tuple[Probability, Probability, Probability] = (0.45, 0.35, 0.2)
    object_length: tuple[float, float] = (0.44, 0.72)
    variant: Literal["multi", "single"] = "multi"

    @field_validator("objects")
    @classmethod
    def _sum_to_one(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(value) - 1) > 1e-6:
            msg = f"the chances of 1, 2 and 3 objects must sum to 1, {list(value)} sum to {sum(value):g}"
            raise ValueError(msg)
        return value

    @field_validator("object_length")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0.1 <= value[0] <= value[1] <= 1:
            msg = f"object_length must be (min, max) with 0.1 <= min <= max <= 1, not {list(value)}"
            raise ValueError(msg)
        return value


class Draws:
    """Random draws for one concern of one image, all made of uniform doubles."""

    def __init__(self, seed: int, split: Split, index: int, concern: int) -> None:
        entropy = np.random.SeedSequence((seed, SPLITS.index(split), index, concern))
        self._generator = np.random.Generator(np.random.PCG64(entropy))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """One number in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def grid(self, rows: int, columns: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """float32 [rows, columns] in [0, 1]."""
        return self._generator.random((rows, columns)).astype(np.float32)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices, all equally likely."""
        return choices[int(self.uniform() * len(choices))]

    def count(self, low: int, high: int, scale: float) -> int:
        """low..high (both included) times ``scale``, the fraction rounded up at random."""
        base = low + int(self.uniform() * (high - low + 1))
        return int(base * scale + self.uniform())

    def turn(self, half_tangent: float) -> tuple[float, float]:
        """(cos, sin) of an angle whose tan(angle / 2) is uniform in ± half_tangent; no libm needed."""
        t = self.uniform(-half_tangent, half_tangent)
        return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)

    def tint(self, amount: float) -> tuple[float, float, float]:
        """Offsets of R, G and B in ± amount."""
        return (
            self.uniform(-amount, amount),
            self.uniform(-amount, amount),
            self.uniform(-amount, amount),
        )


@dataclass(frozen=True, slots=True)
class PlannedObject:
    """One object; lengths and positions in pixels, ``turn`` = (cos, sin), ``facing`` -1 or 1."""

    label: int
    x: float
    y: float
    length: float
    turn: tuple[float, float]
    facing: int
    stretch: float
    grain: float
    tint: tuple[float, float, float]

    def head_centre(self) -> tuple[float, float]:
        """Where its head is, in pixels."""
        along, down = HEAD_CENTRE[0] * self.length * self.facing, HEAD_CENTRE[1] * self.length
        cos, sin = self.turn
        return self.x + along * cos - down * sin, self.y + along * sin + down * cos


@dataclass(frozen=True, slots=True)
class Blob:
    """A distractor: an ellipse in the body texture of class ``label``, or a stone when label is 0."""

    label: int
    x: float
    y: float
    radii: tuple[float, float]
    turn: tuple[float, float]
    grain: float
    tint: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Band:
    """A context painted as a band of half-width ``half`` through (x, y)."""

    name: str
    x: float
    y: float
    turn: tuple[float, float]
    half: float


@dataclass(frozen=True, slots=True)
class Scene:
    """All that an image holds; objects from back to front."""

    objects: tuple[PlannedObject, ...]
    bands: tuple[Band, ...]
    blobs: tuple[Blob, ...]
    background: int

    @property
    def contexts(self) -> frozenset[str]:
        """Names of the contexts that are painted."""
        return frozenset(band.name for band in self.bands)


def plan_scene(settings: SceneSettings, split: Split, index: int) -> Scene:
    """Plan image ``index`` of a split; the first object's class cycles with the index."""
    draws = Draws(settings.seed, split, index, _OBJECTS)
    labels = _labels(settings, draws, index)
    objects: list[PlannedObject] = []
    for label in labels:
        objects.append(_place(settings, draws, label, objects))
    objects.sort(key=lambda _: draws.uniform())  # who is in front has nothing to do with the class

    contexts = Draws(settings.seed, split, index, _CONTEXTS)
    background = int(contexts.uniform() * N_BACKGROUNDS)
    bands = _bands(settings, contexts, objects)
    blobs = _blobs(settings, Draws(settings.seed, split, index, _CLUTTER), objects)
    return Scene(tuple(objects), bands, blobs, background)


def _labels(settings: SceneSettings, draws: Draws, index: int) -> list[int]:
    labels = [index % len(CLASS_NAMES) + 1]
    number = draws.uniform()
    one, two, _ = settings.objects
    extra = int(number >= one) + int(number >= one + two) if settings.variant == "multi" else 0
    for _ in range(extra):
        free = draws.chance(_EXTRA_IS_CONTEXT_FREE)
        labels.append(draws.pick(CONTEXT_FREE_LABELS if free else tuple(CONTEXT_OF_LABEL)))
    return labels


def _place(settings: SceneSettings, draws: Draws, label: int, others: Sequence[PlannedObject]) -> PlannedObject:
    """Of a few random places take the one that hides least, so that occlusion stays partial."""
    length = draws.uniform(*settings.object_length) * settings.size
    best: tuple[float, PlannedObject] | None = None
    for _ in range(_PLACEMENT_TRIES if others else 1):
        facing = draws.pick((-1, 1))
        # Tail and head may leave the image by a little.
        margins = (0.5 * length, 0.63 * length)[::facing]
        candidate = PlannedObject(
            label=label,
            x=draws.uniform(margins[0], settings.size - margins[1]),
            y=draws.uniform(0.45 * length, settings.size - 0.4 * length),
            length=length,
            turn=draws.turn(_TILT),
            facing=facing,
            stretch=draws.uniform(0.92, 1.08),
            grain=draws.uniform(0.85, 1.2),
            tint=draws.tint(9),
        )
        cost = sum(_overlap(candidate, other) for other in others)
        if best is None or cost < best[0]:
            best = (cost, candidate)
    if best is None:  # pragma: no cover - the loop above runs at least once
        msg = "no placement was tried"
        raise AssertionError(msg)
    return best[1]


def _overlap(one: PlannedObject, two: PlannedObject) -> float:
    """How much two objects are in each other's way: discs over bodies, and twice over heads."""
    cost = _disc_overlap((one.x, one.y), 0.32 * one.length, (two.x, two.y), 0.32 * two.length)
    heads = (one.head_centre(), 0.2 * one.length), (two.head_centre(), 0.2 * two.length)
    cost += 2 * _disc_overlap(*heads[0], (two.x, two.y), 0.32 * two.length)
    cost += 2 * _disc_overlap(*heads[1], (one.x, one.y), 0.32 * one.length)
    return cost + 2 * _disc_overlap(*heads[0], *heads[1])


def _disc_overlap(a: tuple[float, float], ra: float, b: tuple[float, float], rb: float) -> float:
    distance = math.sqrt((a[0] - b[0]) * (a[0] - b[0]) + (a[1] - b[1]) * (a[1] - b[1]))
    return max(0.0, ra + rb - distance) / min(ra, rb)


def _bands(settings: SceneSettings, draws: Draws, objects: Sequence[PlannedObject]) -> tuple[Band, ...]:
    """Contexts of absent classes first, those of present classes over them and under their object."""
    own: list[Band] = []
    other: list[Band] = []
    for label, name in CONTEXT_OF_LABEL.items():
        owner = next((thing for thing in objects if thing.label == label), None)
        present = draws.chance(settings.context if owner else settings.context_without)
        x = draws.uniform(0.1, 0.9) * settings.size
        y = draws.uniform(0.1, 0.9) * settings.size
        width = draws.uniform(0.13, 0.16) if name == "rail" else draws.uniform(0.18, 0.32)
        turn = draws.turn(0.25)
        if present and owner:
            below = y / settings.size * 0.2 * owner.length
            own.append(Band(name, owner.x, owner.y + below, turn, width * settings.size))
        elif present:
            other.append(Band(name, x, y, turn, width * settings.size))
    return (*other, *own)


def _blobs(settings: SceneSettings, draws: Draws, objects: Sequence[PlannedObject]) -> tuple[Blob, ...]:
    """Stones first, then 1-3 blobs in body textures, which keep off the middle of the objects."""
    stones = [_blob(settings, draws, 0) for _ in range(draws.count(2, 5, settings.clutter))]
    blobs = []
    for _ in range(draws.count(1, 3, settings.clutter)):
        label = 1 + int(draws.uniform() * len(CLASS_NAMES))
        tries = [_blob(settings, draws, label) for _ in range(4)]
        costs = [
            sum(
                _disc_overlap((blob.x, blob.y), max(blob.radii), (thing.x, thing.y), 0.45 * thing.length)
                for thing in objects
            )
            for blob in tries
        ]
        blobs.append(tries[costs.index(min(costs))])
    return (*stones, *blobs)


def _blob(settings: SceneSettings, draws: Draws, label: int) -> Blob:
    low, high = (0.07, 0.14) if label else (0.03, 0.09)
    radius = draws.uniform(low, high) * settings.size
    return Blob(
        label=label,
        x=draws.uniform(0, settings.size),
        y=draws.uniform(0, settings.size),
        radii=(radius, radius * draws.uniform(0.6, 0.95)),
        turn=draws.turn(1.0),
        grain=draws.uniform(0.85, 1.2),
        tint=draws.tint(9 if label else 14),
    )
