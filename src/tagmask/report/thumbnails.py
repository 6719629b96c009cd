"""Small pictures for the page, as data URIs: photographs (JPEG), masks and heat maps (palette PNG with alpha)."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from tagmask.ops.transforms import colour_view
from tagmask.storage.images import read_image
from tagmask.storage.pictures import voc_palette
from tagmask.types import BACKGROUND, FloatArray, PixelValues, UInt8Array

# "inferno" (van der Walt and Smith, 2015), every tenth: perceptually even, readable for the colour-blind.
_INFERNO = (
    (0, 0, 4), (22, 11, 57), (66, 10, 104), (106, 23, 110), (147, 38, 103), (188, 55, 84),
    (221, 81, 58), (243, 120, 25), (252, 165, 10), (246, 215, 70), (252, 255, 164),
)  # fmt: skip
_HEAT_LEVELS = 64


def heat_palette(levels: int = _HEAT_LEVELS) -> list[int]:
    """The heat colours as a flat list of 3 * levels values, coldest first."""
    anchors = np.array(_INFERNO, dtype=np.float64)
    at = np.linspace(0, len(anchors) - 1, levels)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return [int(value) for value in np.stack(channels, axis=1).round().reshape(-1)]


def data_uri(content: bytes, kind: str) -> str:
    """``data:image/KIND;base64,...``"""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def fit(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) scaled down, never up, so that the longer side is at most ``side``; at least 1 px."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def photo_uri(path: Path, side: int, pixels: PixelValues | None = None) -> tuple[str, int, int]:
    """A photograph as a JPEG data URI, upright, RGB, and its thumbnail width and height; ``pixels``: how it is read.

    Raises:
        UnreadableImageError: not an image, or broken.
    """
    # A photograph of 48 megapixels is decoded at a part of its size: at four times the thumbnail's nothing is lost.
    image = Image.fromarray(colour_view(read_image(path, max_side=4 * side, pixels=pixels)))
    small = image.resize(fit(image.width, image.height, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, format="JPEG", quality=82, optimize=True)
    return data_uri(stream.getvalue(), "jpeg"), small.width, small.height


def mask_uri(mask: UInt8Array, width: int, height: int) -> str:
    """Labels uint8 [H, W] as a PNG in VOC colours, background see-through, void (255) pale."""
    image = Image.fromarray(mask)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.NEAREST)
    image.putpalette(voc_palette())
    alpha = bytearray(b"\xff" * 256)
    alpha[BACKGROUND] = 0
    return _png(image, bytes(alpha))


def heat_uri(heat: FloatArray, side: int | None = None) -> str:
    """One map float32 [h, w] in [0, 1] as a small PNG in heat colours; the browser enlarges it smoothly.

    A map whose longer side is more than ``side`` is made smaller first.
    The coldest colours are see-through, so that the photograph stays in sight where nothing is active.
    """
    levels = (np.nan_to_num(heat).clip(0, 1) * (_HEAT_LEVELS - 1)).round().astype(np.uint8)
    image = Image.fromarray(levels)
    if side is not None:
        image = image.resize(fit(image.width, image.height, side), Image.Resampling.BILINEAR)
    image.putpalette(heat_palette())
    ramp = np.linspace(0, 1, _HEAT_LEVELS)
    alpha = (255 * (0.45 + 0.55 * np.minimum(ramp / 0.4, 1))).round().astype(np.uint8)
    return _png(image, alpha.tobytes())


def _png(image: Image.Image, alpha: bytes) -> str:
    stream = io.BytesIO()
    image.save(stream, format="PNG", transparency=alpha, optimize=True)
    return data_uri(stream.getvalue(), "png")
