"""The values of an image file as they are stored, all bands and bits of them.

TIFF is read by tifffile: Pillow knows no more than four bands, and reads 16 bits in colour as 8. What a compression
needs beyond that (LZW, JPEG 2000, ZSTD) is in the extra ``geotiff``.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tagmask.errors import DataError
from tagmask.storage.deep_png import read_deep_png

Values = NDArray[Any]

# What both say in their logs of a file that they do not know is said by our error.
for _name in ("PIL.TiffImagePlugin", "tifffile"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_BITS_PER_SAMPLE = 258  # tag of TIFF
_ORIENTATION = 274


class MissingCodecError(DataError):
    """A TIFF is compressed in a way that takes a package which is not installed."""


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFF, or BigTIFF, does."""
    with path.open("rb") as stream:
        return stream.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image has more than 8 bits a value; from its header."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return True
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 8)
        return bool(max(bits if isinstance(bits, tuple) else (bits,)) > 8)
    return _deep_png(image)


def _deep_png(image: Image.Image) -> bool:
    tiles = getattr(image, "tile", None)
    return image.format == "PNG" and bool(tiles) and str(tiles[0][3]).endswith(";16B")  # type: ignore[index]


def tiff_size(path: Path) -> tuple[int, int, int]:
    """(H, W, bands) of a TIFF from its header, upright."""
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        sizes = dict(zip(series.axes, series.shape, strict=True))
        height, width = sizes.pop("Y"), sizes.pop("X")
        bands = int(np.prod(list(sizes.values()))) if sizes else 1
        turned = _orientation(file) >= 5
    return (width, height, bands) if turned else (height, width, bands)


def tiff_values(path: Path, *, first_page: bool = False) -> Values:
    """A TIFF as [H, W, bands], in its own type.

    Pages of one size are bands, unless ``first_page``.

    Raises:
        MissingCodecError: its compression needs a package that is not installed.
        DataError: it is no picture; tifffile's own errors pass.
    """
    try:
        with tifffile.TiffFile(path) as file:
            whole = file.pages.first if first_page else file.series[0]
            axes, values = str(whole.axes), np.asarray(whole.asarray())
            orientation = _orientation(file)
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        compression = str(error).split("COMPRESSION.")[-1].split(":")[0]
        msg = f"{path}: is a TIFF compressed by {compression}. Install what reads it: pip install 'tagmask[geotiff]'."
        raise MissingCodecError(msg) from error
    if "Y" not in axes or "X" not in axes:
        msg = f"{path}: is a TIFF with the axes {axes}, not a picture. Save it as rows, columns and bands."
        raise DataError(msg)
    values = np.moveaxis(values, (axes.index("Y"), axes.index("X")), (0, 1))
    return turned(values.reshape(*values.shape[:2], -1), orientation)


def stored_values(image: Image.Image, path: Path) -> Values:
    """All bands of an opened image as [H, W, bands], in their own type; not turned by EXIF.

    Raises:
        DataError: see :func:`read_deep_png`.
    """
    if image.mode in ("RGB", "RGBA", "LA") and _deep_png(image):
        return read_deep_png(path)
    if image.mode in ("P", "1", "PA", "CMYK", "YCbCr", "HSV", "LAB"):
        image = image.convert("RGB")
    values = np.array(image)
    return values if values.ndim == 3 else values[..., None]


def _orientation(file: tifffile.TiffFile) -> int:
    tag = file.pages.first.tags.get(_ORIENTATION)
    return int(tag.value) if tag is not None else 1


def turned(values: Values, orientation: int) -> Values:
    """[H, W, ...] as the EXIF orientation 1 to 8 says; the same array for 1 and what is none."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    down, across = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return values[:: -1 if down else 1, :: -1 if across else 1]
