"""Stored values of any type as the uint8 that everything works on, by a range that is the same for all images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.errors import InputError
from tagmask.types import PixelValues, UInt8Array

_VALUES_AT_ONCE = 1 << 20


def to_uint8(values: NDArray[Any], pixels: PixelValues) -> UInt8Array:
    """Values [H, W, C] of any type -> uint8: ``low`` becomes 0, ``high`` 255, linearly; what is beyond ends there.

    Values of 8 bits stay as they are. NaN, which stands for no data, becomes 0.
    """
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    # One number serves all channels: colours keep their hue.
    low, high = np.array(pixels.low), np.array(pixels.high)
    result = np.empty(values.shape, np.uint8)
    rows = max(1, _VALUES_AT_ONCE // max(1, values[:1].size))
    for start in range(0, len(values), rows):  # a scan of many bands in float64 would be gigabytes
        part = slice(start, start + rows)
        scaled = (values[part].astype(np.float64) - low) * (255 / (high - low))
        result[part] = np.rint(np.nan_to_num(scaled, nan=0, posinf=255, neginf=0).clip(0, 255))
    return result


def mapped(values: NDArray[Any], pixels: PixelValues) -> UInt8Array:
    """All bands [H, W, B] of an image as uint8 [H, W, channels]; without ``channels`` grey or colours, and alpha."""
    if pixels.channels is None:
        return over_white(values, pixels)
    return to_uint8(values[..., [number - 1 for number in pixels.channels]], pixels)


def over_white(values: NDArray[Any], pixels: PixelValues) -> UInt8Array:
    """Deep grey or colours [H, W, 1 to 4], the alpha last, as uint8 [H, W, 3]; what is transparent becomes white."""
    n_colours = values.shape[2] - (1 - values.shape[2] % 2)
    colours = to_uint8(values[..., :n_colours], pixels)
    if n_colours == 1:
        colours = np.repeat(colours, 3, axis=2)
    if n_colours == values.shape[2]:
        return np.ascontiguousarray(colours)
    top = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1
    alpha = values[..., -1:].astype(np.float64) / top
    return np.rint(255 + (colours - 255.0) * alpha).astype(np.uint8)


def pixels_entry(pixels: PixelValues | None) -> dict[str, Any]:
    """What the description of a network says about its images' values; nothing for colours of 8 bits."""
    if pixels is None:
        return {}
    channels = None if pixels.channels is None else list(pixels.channels)
    return {"pixels": {"low": list(pixels.low), "high": list(pixels.high), "channels": channels}}


def stored_pixels(description: Mapping[str, Any], path: Path) -> PixelValues | None:
    """What :func:`pixels_entry` wrote; ``path`` is named in messages.

    Raises:
        InputError: the entry is not one.
    """
    entry = description.get("pixels")
    if entry is None:
        return None
    try:
        channels = entry["channels"]
        low, high = (tuple(float(value) for value in entry[key]) for key in ("low", "high"))
        return PixelValues(low, high, None if channels is None else tuple(int(number) for number in channels))
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{path}: says nothing readable about the values of pixels ({error}); train it again"
        raise InputError(msg) from error
