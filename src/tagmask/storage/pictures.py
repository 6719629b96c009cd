"""Masks and grey planes as PNG files."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from tagmask.errors import RunError
from tagmask.storage.files import atomic_write
from tagmask.storage.label_masks import label_numbers
from tagmask.types import IGNORE_INDEX, FloatArray, UInt8Array


def voc_palette(n: int = 256) -> list[int]:
    """The PASCAL VOC colour map as a flat list of 3 * n values, R G B of index 0 first."""
    palette = []
    for index in range(n):
        rgb, rest = [0, 0, 0], index
        for bit in range(7, -1, -1):
            for channel in range(3):
                rgb[channel] |= ((rest >> channel) & 1) << bit
            rest >>= 3
        palette.extend(rgb)
    return palette


@cache
def _palette_bytes() -> bytes:
    return bytes(voc_palette())


def save_palette_png(path: Path, mask: UInt8Array) -> None:
    """Write uint8 [H, W] labels as an 8-bit palette PNG in VOC colours, atomically."""
    image = Image.fromarray(mask, mode=None)
    image.putpalette(_palette_bytes())
    with atomic_write(path) as stream:
        image.save(stream, format="PNG")


def save_mask(path: Path, mask: UInt8Array) -> None:
    """Store labels as an 8-bit palette PNG."""
    save_palette_png(path, mask)


def load_mask(path: Path) -> UInt8Array:
    """Read a palette PNG written by :func:`save_mask`, or a mask of numbers from another tool: uint8 [H, W].

    Raises:
        RunError: broken, a colour picture, or a number above 255, which no label is.
    """
    try:
        with Image.open(path) as image:
            numbers = label_numbers(image)
        if numbers.dtype != np.uint8 and (numbers.min(initial=0) < 0 or numbers.max(initial=0) > IGNORE_INDEX):
            msg = f"it holds the number {numbers.max()}, and labels go from 0 to 255"
            raise ValueError(msg)
        return numbers.astype(np.uint8, copy=False)
    except Exception as error:  # a torn PNG raises nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"{path}: not a readable mask ({reason}). Delete it and run again."
        raise RunError(msg) from error


def save_grey(path: Path, values: FloatArray) -> None:
    """Store float [H, W] in [0, 1] as an 8-bit grey PNG (steps of 1/255), atomically."""
    levels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    with atomic_write(path) as stream:
        Image.fromarray(levels).save(stream, format="PNG")


def load_grey(path: Path) -> FloatArray:
    """Read a grey PNG written by :func:`save_grey`, float32 [H, W] in [0, 1]."""
    return load_mask(path).astype(np.float32) / np.float32(255)
