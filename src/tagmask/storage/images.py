"""Reading one image from disk: every kind a camera or a tool writes, or one clear line.

Pillow's LOAD_TRUNCATED_IMAGES is never set: half an image with a grey rest would be trained on silently.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from tagmask.errors import DataError, UnreadableImageError, UnreadableMaskError
from tagmask.ops.transforms import resize_image, working_size
from tagmask.storage.bands import (
    MissingCodecError,
    Values,
    is_deep,
    is_tiff,
    stored_values,
    tiff_size,
    tiff_values,
    turned,
)
from tagmask.storage.pixel_values import mapped, over_white, to_uint8
from tagmask.types import PixelValues, UInt8Array

MAX_PIXELS = 100_000_000

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(
    path: Path | str,
    *,
    max_pixels: int = MAX_PIXELS,
    max_side: int | None = None,
    pixels: PixelValues | None = None,
) -> UInt8Array:
    """Read any image as uint8 [H, W, 3] RGB, 0..255, turned the way its EXIF orientation says.

    With ``max_side`` a larger image comes in the size that :func:`tagmask.ops.transforms.working_size` gives: never
    enlarged, aspect kept. A JPEG with at least four times that side is decoded at a half, a quarter or an eighth first
    (its own cosines do that), which costs a fraction of the time and memory.

    With ``pixels`` values of more than 8 bits are read by its range, and its ``channels`` bands of the file, as uint8
    [H, W, channels]. Without, 16-bit grey is divided by 257 (not clipped), 32-bit integers too unless they hold larger
    values, then by their maximum; floats must lie in [0, 1]. Transparent pixels are laid over white. Of animations and
    multi-page files the first frame is read, but of a TIFF with ``channels`` pages are bands.

    Raises:
        UnreadableImageError: missing, empty, truncated, no image, or more than ``max_pixels`` pixels (this is
            decided from the header, before anything is decoded).
    """
    path = Path(path)
    if pixels is not None and pixels.channels is not None:
        with one_line_errors(path, UnreadableImageError):
            bands = to_uint8(chosen_bands(path, pixels.channels, max_pixels), pixels)
            return resize_image(bands, working_size((bands.shape[0], bands.shape[1]), max_side))
    with one_line_errors(path, UnreadableImageError), open_image(path, max_pixels) as image:
        if pixels is not None and is_deep(image):
            deep = over_white(deep_colours(image, path), pixels)
            return resize_image(deep, working_size((deep.shape[0], deep.shape[1]), max_side))
        if max_side is None:
            return _rgb(_upright(image), path)
        size, (width, height) = working_size(_upright_size(image), max_side), working_size(image.size, max_side)
        # Twice the size that is asked for: what remains to be reduced is then still smoothed by the resampling, so that
        # the picture is nearly the one that full decoding gives.
        image.draft(None, (2 * width, 2 * height))
        return resize_image(_rgb(_upright(image), path), size)


def chosen_bands(path: Path, channels: Sequence[int], max_pixels: int) -> Values:
    """Bands of a file, counted from 1, as [H, W, channels] in their own type, upright.

    Raises:
        DataError: too large, or the file has no such band; a decoder's own errors pass (see :func:`one_line_errors`).
    """
    if path.is_file() and is_tiff(path):
        height, width, _ = tiff_size(path)
        check_pixels(path, (width, height), max_pixels)
        try:
            values = tiff_values(path)
        except MissingCodecError as error:
            values = _flat_tiff(path, max_pixels, error)
    else:
        with open_image(path, max_pixels) as image:
            values = turned(stored_values(image, path), _orientation(image))
    _check_bands(path, values, channels)
    return values[..., [number - 1 for number in channels]]


def _flat_tiff(path: Path, max_pixels: int, error: DataError) -> Values:
    """Bands of a TIFF of 8 bits that Pillow reads where tifffile does not: aerial pictures are often LZW.

    Raises:
        DataError: ``error``, of any other.
    """
    try:
        with open_image(path, max_pixels) as image:
            if is_deep(image) or image.mode not in ("L", "RGB", "RGBA", "RGBX", "CMYK"):
                raise error
            values = np.array(image)
    except ManyBandsError:
        raise error from None
    return values if values.ndim == 3 else values[..., None]


def _check_bands(path: Path, values: Values, channels: Sequence[int]) -> None:
    if max(channels, default=0) > values.shape[2]:
        msg = f"{path}: has {values.shape[2]} bands, and data.channels asks for band {max(channels)}. Correct it."
        raise DataError(msg)


def chosen_values(path: Path, channels: Sequence[int] | None, max_pixels: int) -> Values | None:
    """What of a file is read, [H, W, C] in its own type: ``channels``, or deep grey or colours without their alpha.

    None: without channels, an image of 8 bits.

    Raises:
        UnreadableImageError: as for :func:`read_image`.
    """
    with one_line_errors(path, UnreadableImageError):
        if channels is not None:
            return chosen_bands(path, channels, max_pixels)
        with open_image(path, max_pixels) as image:
            values = deep_colours(image, path) if is_deep(image) else None
    return None if values is None else values[..., : values.shape[2] - (1 - values.shape[2] % 2)]


def deep_colours(image: Image.Image, path: Path) -> Values:
    """An opened image of more than 8 bits as [H, W, 1 to 4] in its own type, upright: grey or colours, then alpha."""
    if image.format == "TIFF" and image.mode in ("RGB", "RGBA"):
        return tiff_values(path, first_page=True)[..., :4]
    return turned(stored_values(image, path), _orientation(image))


def rgb_pixels(image: Image.Image) -> UInt8Array:
    """An opened image as :func:`read_image` gives it from its file.

    Raises:
        UnreadableImageError: broken, or values that no picture has.
    """
    path = Path(getattr(image, "filename", "") or "the image")
    with one_line_errors(path, UnreadableImageError):
        return _rgb(_upright(image), path)


def pixels_of(image: Image.Image, pixels: PixelValues) -> UInt8Array:
    """An opened image as :func:`read_image` gives it from its file with ``pixels``.

    Raises:
        UnreadableImageError: broken, or without these bands.
    """
    path = Path(getattr(image, "filename", "") or "the image")
    with one_line_errors(path, UnreadableImageError):
        if pixels.channels is None and not is_deep(image):
            return _rgb(_upright(image), path)
        values = turned(stored_values(image, path), _orientation(image))
        _check_bands(path, values, pixels.channels or ())
        return mapped(values, pixels)


def image_size(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(H, W) of the image as :func:`read_image` returns it, from the header alone.

    Raises:
        UnreadableImageError: as for :func:`read_image`, as far as the header shows it.
    """
    path = Path(path)
    with one_line_errors(path, UnreadableImageError):
        try:
            with open_image(path, max_pixels) as image:
                return _upright_size(image)
        except ManyBandsError:
            height, width, _ = tiff_size(path)
            check_pixels(path, (width, height), max_pixels)
            return height, width


def size_for_mask(path: Path, *, max_pixels: int) -> tuple[int, int]:
    """(H, W) of an image whose mask is asked for; a broken image costs that mask: UnreadableMaskError."""
    try:
        return image_size(path, max_pixels=max_pixels)
    except UnreadableImageError as error:
        msg = f"no mask without its image: {error}"
        raise UnreadableMaskError(msg) from error


class ManyBandsError(DataError):
    """A TIFF that has more bands than colours, or another type: only its ``channels`` can be read."""


@contextmanager
def one_line_errors(path: Path, kind: type[DataError]) -> Iterator[None]:
    """Turn whatever a decoder raises into one line of ``kind``; broken files raise nearly anything."""
    try:
        yield
    except DataError as error:
        if isinstance(error, kind):
            raise
        raise kind(str(error)) from error.__cause__
    except FileNotFoundError as error:
        msg = f"{path}: does not exist. Correct the name or restore the file."
        raise kind(msg) from error
    except UnidentifiedImageError as error:
        msg = f"{path}: is not an image that can be read ({_beginning(path)}). Export it as PNG or JPEG, or remove it."
        raise kind(msg) from error
    except MemoryError as error:
        msg = f"{path}: does not fit into memory. Make it smaller, or lower data.max_pixels."
        raise kind(msg) from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        msg = f"{path}: cannot be decoded ({reason}). Copy it again from its source, or remove it."
        raise kind(msg) from error


def open_image(path: Path, max_pixels: int | None) -> Image.Image:
    """Open and read the header only. ``max_pixels`` None means: the caller checks the size.

    Raises:
        DataError: empty, or too large; a decoder's own errors pass (see :func:`one_line_errors`).
    """
    if path.stat().st_size == 0:
        msg = f"{path}: is empty (0 bytes). Copy it again from its source, or remove it."
        raise DataError(msg)
    # Our own limit decides; Pillow's must not be below it, and its warning would only precede our line.
    if max_pixels is not None and Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        image: Image.Image = Image.open(path)
    except Image.DecompressionBombError as error:
        limit = max_pixels or Image.MAX_IMAGE_PIXELS
        msg = f"{path}: is too large ({error}). Make it smaller, or raise data.max_pixels (now {limit})."
        raise DataError(msg) from error
    except UnidentifiedImageError as error:
        image = _other_format(path, error)
    try:
        check_pixels(path, image.size, max_pixels)
    except DataError:
        image.close()
        raise
    return image


def check_pixels(path: Path, size: tuple[int, int], max_pixels: int | None) -> None:
    """Make sure that an image of ``size`` = (width, height) is not too large.

    Raises:
        DataError: it is.
    """
    width, height = size
    if max_pixels is not None and width * height > max_pixels:
        msg = (
            f"{path}: {width}x{height} = {width * height} pixels, more than the limit of {max_pixels}. "
            "Make it smaller, or raise data.max_pixels."
        )
        raise DataError(msg)


def _other_format(path: Path, error: UnidentifiedImageError) -> Image.Image:
    """What Pillow reads with a plugin, or nobody without its settings.

    Raises:
        DataError: it takes a package that is not installed, or bands must be named; else ``error``.
    """
    with path.open("rb") as stream:
        head = stream.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        try:
            import pillow_heif
        except ImportError as missing:
            msg = f"{path}: is a HEIC image. Install what reads it: pip install 'tagmask[heic]', or export it as JPEG."
            raise DataError(msg) from missing
        pillow_heif.register_heif_opener()
        return Image.open(path)
    if is_tiff(path):
        try:
            *_, bands = tiff_size(path)
        except Exception:  # damaged: tifffile raises nearly anything
            raise error from None
        msg = (
            f"{path}: is a TIFF of {bands} bands, which are no colours. Name those to read, from 1: "
            f"data.channels={bands} for the first {bands}, or a list such as data.channels=[1,2,3]."
        )
        raise ManyBandsError(msg) from error
    raise error


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 from the header; 1 for TIFF, which Pillow turns by itself.

    The base class's getexif is called on purpose: PNG's own would decode the whole image first.
    """
    if image.format == "TIFF":
        return 1
    try:
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return 1  # a damaged EXIF block says nothing about the picture, which may be perfectly good
    return value if value in _TURNS else 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if _orientation(image) >= 5 else (height, width)


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(image))  # before the pixels are loaded, so that image_size() sees the same
    image.load()
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image, path: Path) -> UInt8Array:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = _eight_bit(np.array(image), path)
        return np.ascontiguousarray(np.stack([grey] * 3, axis=2))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _eight_bit(values: NDArray[Any], path: Path) -> UInt8Array:
    """Scale deep grey [H, W] to uint8 by its type's range, not by clipping."""
    levels: NDArray[np.float64] = values.astype(np.float64)
    if values.dtype.kind == "f":
        if not (np.isfinite(levels).all() and levels.min() >= 0 and levels.max() <= 1):
            msg = f"{path}: holds floating-point values outside [0, 1]. Save it with 8 or 16 bits."
            raise DataError(msg)
        return np.rint(levels * 255).astype(np.uint8)
    if levels.min() < 0:
        msg = f"{path}: holds negative values. Save it with 8 or 16 bits."
        raise DataError(msg)
    top = max(65535.0, float(levels.max()))
    return np.rint(levels * (255 / top)).astype(np.uint8)


def _beginning(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(12)
    text = head.decode("latin-1")
    shown = text if text.isascii() and text.isprintable() else head.hex(" ")
    return f"it begins with '{shown}'"
