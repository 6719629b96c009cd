"""PartsWorld, the painter: a planned scene to pixels, masks and part maps.

Edges are anti-aliased by the signed distance itself (one pixel of coverage); masks are cut at distance 0 and
are not anti-aliased. Everything is float32 element by element, so that all machines paint the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagmask.data.partsworld import palette
from tagmask.data.partsworld.palette import Coat, Colour, mixed
from tagmask.data.partsworld.scene import (
    PAINT,
    Band,
    Blob,
    Draws,
    PlannedObject,
    Scene,
    SceneSettings,
    Split,
    plan_scene,
)
from tagmask.data.partsworld.shapes import HEAD_CENTRE, capsule, disc, ellipse, hump, step, union
from tagmask.types import Box, FloatArray, UInt8Array

PART_NAMES = ("none", "head", "body", "limb", "tail")
HEAD, BODY, LIMB, TAIL = 1, 2, 3, 4
MIN_VISIBLE = 20

HEAD_SCALE = 0.95
BODY_AXES = (0.37, 0.225)
_LIMBS = (((-0.21, 0.09), (-0.25, 0.33)), ((-0.02, 0.13), (-0.03, 0.35)), ((0.18, 0.09), (0.21, 0.33)))
_LIMB_RADIUS = 0.06
_TAIL = ((-0.27, -0.05), (-0.53, -0.21))
_TAIL_RADIUS = 0.055
_NECK = ((0.2, -0.06), (0.4, -0.13))
_NECK_RADIUS = 0.095
_REACH = 0.9

Canvas = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rendered:
    """One image: ``image`` uint8 [H, W, 3], ``mask`` uint8 [H, W] of labels 0..8, ``parts`` uint8 [H, W] of
    0 none, 1 head, 2 body, 3 limb, 4 tail; ``labels`` sorted; one box per visible object, back to front.
    """

    image: UInt8Array
    mask: UInt8Array
    parts: UInt8Array
    labels: tuple[int, ...]
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class _Layer:
    """One object's geometry in its window of the image: part distances in pixels, painted in order."""

    thing: PlannedObject
    rows: slice
    columns: slice
    u: FloatArray
    v: FloatArray
    distances: tuple[tuple[int, FloatArray], ...]

    def parts(self) -> UInt8Array:
        """Part index per pixel of the window."""
        index = np.zeros(self.u.shape, dtype=np.uint8)
        for part, distance in self.distances:
            index[distance < 0] = part
        return index


def render(settings: SceneSettings, split: Split, index: int) -> Rendered:
    """Plan and paint image ``index`` of a split: a pure function of its arguments.

    An object of which fewer than 20 pixels stay visible is left out: not painted, not tagged.
    """
    scene = plan_scene(settings, split, index)
    layers, mask, parts, boxes = _visible_layers(settings, scene)
    draws = Draws(settings.seed, split, index, PAINT)
    canvas = _background(settings.size, scene.background, draws)
    scale = settings.size / 160
    for band in scene.bands:
        _paint_band(canvas, band, draws, scale)
    for blob in scene.blobs:
        _paint_blob(canvas, blob, settings, scale)
    for layer in layers:
        _paint_object(canvas, layer, settings, scale)
    light = 1 + np.float32(draws.uniform(-0.12, 0.12))
    grain = (draws.grid(settings.size, settings.size) - np.float32(0.5)) * np.float32(14)
    image = np.clip(canvas * light + grain[..., None] + np.float32(0.5), 0, 255).astype(np.uint8)
    return Rendered(image, mask, parts, tuple(sorted({box.label for box in boxes})), boxes)


# -- geometry ------------------------------------------------------------------------------------------------


def _window(x: float, y: float, reach: float, size: int) -> tuple[slice, slice]:
    def cut(centre: float) -> slice:
        return slice(max(0, int(centre - reach)), max(0, min(size, int(centre + reach) + 2)))

    return cut(y), cut(x)


def _local(rows: slice, columns: slice, x: float, y: float, turn: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Coordinates of the window's pixel centres, in pixels, in a frame at (x, y) turned by ``turn``."""
    dx = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] + np.float32(0.5 - x)
    dy = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5 - y)
    cos, sin = np.float32(turn[0]), np.float32(turn[1])
    return dx * cos + dy * sin, dy * cos - dx * sin


def _layer(thing: PlannedObject, size: int) -> _Layer:
    rows, columns = _window(thing.x, thing.y, _REACH * thing.length, size)
    along, down = _local(rows, columns, thing.x, thing.y, thing.turn)
    length = np.float32(thing.length)
    u, v = along * np.float32(thing.facing) / length, down / length
    radius = BODY_AXES[1] * thing.stretch
    limbs = [capsule(u, v, start, end, _LIMB_RADIUS) for start, end in _LIMBS]
    shape = palette.HEADS[thing.label - 1].shape
    distances = (
        (TAIL, capsule(u, v, *_TAIL, _TAIL_RADIUS) * length),
        (LIMB, union(*limbs) * length),
        (BODY, union(ellipse(u, v, BODY_AXES[0], radius), capsule(u, v, *_NECK, _NECK_RADIUS)) * length),
        (HEAD, shape(*_head_frame(u, v)) * np.float32(HEAD_SCALE * thing.length)),
    )
    return _Layer(thing, rows, columns, u, v, distances)


def _head_frame(u: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
    scale = np.float32(HEAD_SCALE)
    return (u - np.float32(HEAD_CENTRE[0])) / scale, (v - np.float32(HEAD_CENTRE[1])) / scale


def _visible_layers(
    settings: SceneSettings, scene: Scene
) -> tuple[list[_Layer], UInt8Array, UInt8Array, tuple[Box, ...]]:
    """From front to back keep what is visible; give masks, parts and tight boxes of what is kept."""
    size = settings.size
    mask = np.zeros((size, size), dtype=np.uint8)
    parts = np.zeros((size, size), dtype=np.uint8)
    layers: list[_Layer] = []
    boxes: list[Box] = []
    for thing in reversed(scene.objects):
        layer = _layer(thing, size)
        own = layer.parts()
        window = mask[layer.rows, layer.columns]
        seen = (own > 0) & (window == 0)
        if int(np.count_nonzero(seen)) < MIN_VISIBLE:
            continue
        window[seen] = thing.label
        parts[layer.rows, layer.columns][seen] = own[seen]
        ys, xs = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        top, left = layer.rows.start, layer.columns.start
        boxes.append(
            Box(
                label=thing.label,
                x0=left + int(xs[0]),
                y0=top + int(ys[0]),
                x1=left + int(xs[-1]) + 1,
                y1=top + int(ys[-1]) + 1,
            )
        )
        layers.append(layer)
    return layers[::-1], mask, parts, tuple(boxes[::-1])


# -- paint ---------------------------------------------------------------------------------------------------


def _over(canvas: Canvas, colour: FloatArray | Colour, cover: FloatArray) -> None:
    """Paint ``colour`` ([h, w, 3] or one colour) over the canvas with coverage [h, w]."""
    paint = np.asarray(colour, dtype=np.float32)
    canvas += cover[..., None] * (paint - canvas)


def _cover(distance: FloatArray) -> FloatArray:
    """Coverage of a pixel by a shape whose edge is ``distance`` pixels away."""
    cover: FloatArray = np.clip(np.float32(0.5) - distance, 0, 1)
    return cover


def _two_tone(ground: Colour, mark: Colour, weight: FloatArray, tint: Colour) -> FloatArray:
    low, high = np.asarray(ground, dtype=np.float32), np.asarray(mark, dtype=np.float32)
    return low + np.asarray(tint, dtype=np.float32) + weight[..., None] * (high - low)


def _coat(shared: Coat, own: Coat, sharing: float, p: FloatArray, q: FloatArray, tint: Colour) -> FloatArray:
    """The texture between a class's own coat (sharing 0) and the one of its pair (sharing 1)."""
    weight = shared.pattern(p, q)
    if sharing < 1 and own is not shared:
        weight = weight * np.float32(sharing) + own.pattern(p, q) * np.float32(1 - sharing)
    ground, mark = mixed(own.ground, shared.ground, sharing), mixed(own.mark, shared.mark, sharing)
    return _two_tone(ground, mark, weight, tint)


def _paint_object(canvas: Canvas, layer: _Layer, settings: SceneSettings, scale: float) -> None:
    thing, view = layer.thing, canvas[layer.rows, layer.columns]
    which = thing.label - 1
    pixels = np.float32(thing.length / scale * thing.grain)
    p, q = layer.u * pixels, layer.v * pixels
    shade = np.clip(np.float32(1.06) - layer.v * np.float32(0.45), 0.8, 1.18)[..., None]
    coat = _coat(palette.SHARED_COATS[which], palette.OWN_COATS[which], settings.sharing, p, q, thing.tint) * shade
    limb = _coat(palette.SHARED_LIMBS[which], palette.OWN_LIMBS[which], settings.sharing, p, q, thing.tint) * shade
    paints = {TAIL: coat, LIMB: limb, BODY: coat, HEAD: _head_paint(layer, settings) * shade}
    outline = np.full_like(layer.u, 1e6)
    for part, distance in layer.distances:
        _over(view, paints[part], _cover(distance))
        outline = np.minimum(outline, distance)
    _paint_eye(view, layer)
    _outline(view, outline, 0.6)


def _head_paint(layer: _Layer, settings: SceneSettings) -> FloatArray:
    """Markings in the class's colour on the ground colour of its body."""
    which = layer.thing.label - 1
    head = palette.HEADS[which]
    u, v = _head_frame(layer.u, layer.v)
    shared, own = palette.SHARED_COATS[which], palette.OWN_COATS[which]
    ground = mixed(own.ground, shared.ground, settings.sharing)
    return _two_tone(ground, head.mark, head.markings(u, v), layer.thing.tint)


def _paint_eye(view: Canvas, layer: _Layer) -> None:
    at = (HEAD_CENTRE[0] + 0.03, HEAD_CENTRE[1] - 0.04)
    length = np.float32(layer.thing.length)
    _over(view, palette.EYE_WHITE, _cover(disc(layer.u, layer.v, at, 0.042) * length))
    pupil = (at[0] + 0.012, at[1])
    _over(view, palette.EYE_DARK, _cover(disc(layer.u, layer.v, pupil, 0.024) * length))


def _outline(view: Canvas, distance: FloatArray, strength: float) -> None:
    """A thin dark line just inside the edge."""
    line = np.clip(np.float32(1.4) - np.abs(distance + np.float32(0.7)), 0, 1) * np.float32(strength)
    _over(view, palette.OUTLINE, line)


def _paint_blob(canvas: Canvas, blob: Blob, settings: SceneSettings, scale: float) -> None:
    rows, columns = _window(blob.x, blob.y, max(blob.radii) + 2, settings.size)
    p, q = _local(rows, columns, blob.x, blob.y, blob.turn)
    distance = ellipse(p, q, *blob.radii)
    view = canvas[rows, columns]
    shade = np.clip(np.float32(1.05) - q / np.float32(blob.radii[1]) * np.float32(0.13), 0.8, 1.18)[..., None]
    if blob.label:
        which, grain = blob.label - 1, np.float32(blob.grain / scale)
        coat = _coat(
            palette.SHARED_COATS[which],
            palette.OWN_COATS[which],
            settings.sharing,
            p * grain,
            q * grain,
            blob.tint,
        )
        _over(view, coat * shade, _cover(distance))
        _outline(view, distance, 0.6)
    else:
        stone = np.asarray((152, 150, 146), dtype=np.float32) + np.asarray(blob.tint, dtype=np.float32)
        _over(view, stone * shade, _cover(distance))
        _outline(view, distance, 0.35)


# -- grounds -------------------------------------------------------------------------------------------------


def _noise(size: int, cell_x: int, cell_y: int, draws: Draws) -> FloatArray:
    """Value noise, float32 [size, size] in [0, 1], smooth over cells of the given size."""
    rows, columns = size // cell_y + 2, size // cell_x + 2
    grid = draws.grid(rows, columns)
    y = np.arange(size, dtype=np.float32) / np.float32(cell_y)
    x = np.arange(size, dtype=np.float32) / np.float32(cell_x)
    top, left = y.astype(np.int64), x.astype(np.int64)
    fy = step(y - top.astype(np.float32), 0, 1)[:, None]
    fx = step(x - left.astype(np.float32), 0, 1)[None, :]
    lines = grid[:, left] + fx * (grid[:, left + 1] - grid[:, left])
    return lines[top] + fy * (lines[top + 1] - lines[top])


def _background(size: int, which: int, draws: Draws) -> Canvas:
    light, dark, kind = palette.BACKGROUNDS[which]
    unit = max(1, size // 160)
    weight = (
        np.float32(0.5) * _noise(size, 40 * unit, 40 * unit, draws)
        + np.float32(0.3) * _noise(size, 11 * unit, 11 * unit, draws)
        + np.float32(0.2) * _noise(size, 4 * unit, 4 * unit, draws)
    )
    rows, columns = slice(0, size), slice(0, size)
    middle = draws.uniform(0, size), draws.uniform(0, size)
    p, q = _local(rows, columns, *middle, draws.turn(0.25))
    p, q = p / np.float32(size / 160), q / np.float32(size / 160)
    if kind == "planks":
        weight = weight * np.float32(0.6) + step(hump(q / np.float32(22)), 0.25, 0.0) * np.float32(0.7)
    elif kind == "tiles":
        seam = np.minimum(hump(q / np.float32(26)), hump(p / np.float32(26)))
        weight = weight * np.float32(0.6) + step(seam, 0.2, 0.0) * np.float32(0.7)
    elif kind == "cobbles":
        row = np.floor(q / np.float32(13))
        weight = weight * np.float32(0.6) + np.float32(0.5) * step(
            np.minimum(hump(q / np.float32(13)), hump(p / np.float32(17) + row * np.float32(0.5))), 0.6, 0.0
        )
    return _two_tone(light, dark, weight, draws.tint(12))


def _paint_band(canvas: Canvas, band: Band, draws: Draws, scale: float) -> None:
    size = canvas.shape[0]
    p, q = _local(slice(0, size), slice(0, size), band.x, band.y, band.turn)
    unit = max(1, size // 160)
    if band.name == "rail":
        _paint_rail(canvas, band, p, q, _noise(size, 3 * unit, 3 * unit, draws), scale)
        return
    wobble = (_noise(size, 24 * unit, 24 * unit, draws) - np.float32(0.5)) * np.float32(14 * scale)
    cover = _cover(np.abs(q + wobble) - np.float32(band.half))
    if band.name == "water":
        light, dark, glint = palette.WATER
        swell = _noise(size, 30 * unit, 8 * unit, draws)
        lines = step(hump(q / np.float32(9 * scale) + swell * np.float32(1.8)), 0.75, 1.0)
        lines = lines * step(_noise(size, 14 * unit, 6 * unit, draws), 0.35, 0.75)
    else:
        light, dark, glint = palette.GRASS
        swell = _noise(size, 3 * unit, 10 * unit, draws)
        lines = step(_noise(size, 2 * unit, 7 * unit, draws), 0.62, 0.95)
    ground = _two_tone(light, dark, swell, draws.tint(10))
    ground += (lines * np.float32(0.7))[..., None] * (np.asarray(glint, dtype=np.float32) - ground)
    _over(canvas, ground, cover)


def _paint_rail(canvas: Canvas, band: Band, p: FloatArray, q: FloatArray, noise: FloatArray, scale: float) -> None:
    """Ballast, sleepers across, two rails along."""
    half = np.float32(band.half)
    _over(canvas, _two_tone(*palette.BALLAST, noise, (0, 0, 0)), _cover(np.abs(q) - half))
    across = np.abs(p - np.floor(p / np.float32(15 * scale)) * np.float32(15 * scale) - np.float32(7.5 * scale))
    sleeper = np.maximum(across - np.float32(3.2 * scale), np.abs(q) - half * np.float32(0.82))
    _over(canvas, palette.SLEEPER, _cover(sleeper))
    rail = np.abs(np.abs(q) - half * np.float32(0.55)) - np.float32(1.5 * scale)
    _over(canvas, mixed(palette.STEEL, palette.BALLAST[1], 0.6), _cover(rail - np.float32(1)))
    _over(canvas, palette.STEEL, _cover(rail))
