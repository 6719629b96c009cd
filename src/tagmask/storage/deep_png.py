"""PNG of 16 bits in colour: Pillow keeps the upper 8, which is next to nothing of values of 12 bits.

The PNG specification (W3C, third edition): chunks, zlib, and a filter a row, undone byte by byte.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.errors import DataError
from tagmask.ops.compiling import compiled

_SAMPLES = {2: 3, 6: 4, 4: 2, 0: 1}  # by colour type


def read_deep_png(path: Path) -> NDArray[np.uint16]:
    """A PNG of 16 bits as uint16 [H, W, 1 to 4]: grey or colours, the alpha last.

    Raises:
        DataError: interlaced, truncated or damaged; a decoder's own errors pass.
    """
    content = path.read_bytes()
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    if depth != 16 or colour not in _SAMPLES or interlaced:
        msg = f"{path}: is no PNG of 16 bits without interlacing. Save it without, or as TIFF."
        raise DataError(msg)
    pixel = 2 * _SAMPLES[colour]
    rows = zlib.decompress(b"".join(_data(content)))
    if len(rows) != height * (1 + width * pixel):
        msg = f"{path}: cannot be decoded (its rows end early). Copy it again from its source, or remove it."
        raise DataError(msg)
    lines = np.frombuffer(rows, np.uint8).reshape(height, 1 + width * pixel)
    values = np.ascontiguousarray(lines[:, 1:])
    _unfilter(values, np.ascontiguousarray(lines[:, 0]), pixel)
    return values.view(">u2").reshape(height, width, -1).astype(np.uint16)


def _data(content: bytes) -> Any:
    """The IDAT chunks."""
    place = 8
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        if kind == b"IDAT":
            yield content[place + 8 : place + 8 + length]
        place += 12 + length


@compiled
def _unfilter(values: NDArray[np.uint8], filters: NDArray[np.uint8], pixel: int) -> None:
    """In place: none, sub, up, average, Paeth."""
    height, width = values.shape
    for y in range(height):
        kind = filters[y]
        for x in range(width):
            left = int(values[y, x - pixel]) if x >= pixel else 0
            above = int(values[y - 1, x]) if y > 0 else 0
            corner = int(values[y - 1, x - pixel]) if y > 0 and x >= pixel else 0
            guess = 0
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = above
            elif kind == 3:
                guess = (left + above) // 2
            elif kind == 4:
                total = left + above - corner
                a, b, c = abs(total - left), abs(total - above), abs(total - corner)
                guess = left if a <= b and a <= c else (above if b <= c else corner)
            values[y, x] = (int(values[y, x]) + guess) & 255
