"""Masks of anybody: one number per pixel, in any number of bits, and what the numbers mean.

The stored numbers count, not the colours. 1-, 2- and 4-bit files hold labels too; 16-bit ones often hold the numbers
of instances, which are no classes and must not come out as some other class.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.errors import DataError, UnreadableMaskError
from tagmask.storage.images import one_line_errors, open_image
from tagmask.types import IGNORE_INDEX, UInt8Array

# Pillow stretches 2- and 4-bit grey to 0..255; a mask holds labels, so the stretch is taken back.
_GREY_STRETCH = {"L;2": 85, "L;4": 17}
_MODES = ("P", "L", "1", "I", "I;16", "I;16B", "I;16L")
_JPEG_NOISE = 16  # how far the channels of a grey JPEG may lie apart
_JPEG_GAP = 64  # nearer numbers cannot be told apart again along the edges of a JPEG


def label_numbers(image: Image.Image) -> NDArray[np.int64] | UInt8Array:
    """The stored numbers [H, W] of an opened mask, before anything is made of them.

    Raises:
        DataError: a colour picture.
    """
    if image.mode not in _MODES:
        msg = (
            f"a mask must be a palette or grey PNG of class numbers, this one is a colour picture (mode {image.mode}). "
            "Save it with one number per pixel"
        )
        raise DataError(msg)
    tiles = getattr(image, "tile", None)
    raw_mode = tiles[0][3] if tiles else ""
    stretch = _GREY_STRETCH.get(raw_mode, 1) if isinstance(raw_mode, str) else 1
    if stretch == 1 and image.mode in ("P", "L"):
        return np.array(image, dtype=np.uint8)
    return np.array(image).astype(np.int64) // stretch


def read_mask_png(
    path: Path | str, image_size: tuple[int, int], n_classes: int, values: Mapping[int, int] | None = None
) -> UInt8Array:
    """Read a palette or grey mask as uint8 [H, W] labels: 0 .. n_classes - 1, and 255 = ignore.

    Args:
        path: the mask.
        image_size: (H, W) of its image, as :func:`tagmask.storage.images.image_size` gives it.
        n_classes: number of classes with the background.
        values: the label of each stored number, for masks that are numbered otherwise (such as 0 and 255). With it
            grey pictures in colour and JPEG files are read, too: each pixel takes the nearest of the numbers.

    Raises:
        UnreadableMaskError: broken, a colour picture, of another size, or with a label that is no class.
    """
    path = Path(path)
    with one_line_errors(path, UnreadableMaskError), open_image(path, None) as image:
        _check_size(path, (image.height, image.width), image_size)
        if values is not None:
            return _by_values(image, values, path)
        try:
            numbers = label_numbers(image)
        except DataError as error:
            msg = f"{path}: {error}."
            raise UnreadableMaskError(msg) from error
    allowed = (numbers >= 0) & (numbers < n_classes) | (numbers == IGNORE_INDEX)
    if not allowed.all():
        unknown = np.unique(numbers[~allowed])
        msg = (
            f"{path}: holds the unknown class number {', '.join(str(value) for value in unknown[:5])}; there are "
            f"{n_classes} classes (0 to {n_classes - 1}) and 255 = ignore. Correct the mask or add the class to "
            "the class list."
        )
        raise UnreadableMaskError(msg)
    return numbers.astype(np.uint8)


def _by_values(image: Image.Image, values: Mapping[int, int], path: Path) -> UInt8Array:
    """Labels by the given numbers: exactly, or (JPEG) by the nearest number, where those lie far apart."""
    is_jpeg = image.format == "JPEG"
    numbers = _grey_numbers(image, path) if image.mode in ("RGB", "RGBA", "LA") else label_numbers(image)
    stored, place = np.unique(numbers, return_inverse=True)
    known = np.array(sorted(values))
    if is_jpeg and np.diff(known).min(initial=_JPEG_GAP) < _JPEG_GAP:
        msg = f"{path}: JPEG blurs numbers that lie as close as those of data.mask_values. Save the mask as PNG."
        raise UnreadableMaskError(msg)
    distance = np.abs(stored.astype(np.int64)[:, None] - known)
    odd = stored[distance.min(axis=1) > 0]
    if odd.size and not is_jpeg:
        shown = ", ".join(str(value) for value in odd[:5])
        msg = f"{path}: holds the number {shown}, of which data.mask_values does not say what it is. Add it there."
        raise UnreadableMaskError(msg)
    labels = np.array([values[int(number)] for number in known[distance.argmin(axis=1)]], dtype=np.uint8)
    return labels[place].reshape(numbers.shape)


def _grey_numbers(image: Image.Image, path: Path) -> UInt8Array:
    """The one channel of a grey picture that was saved in colour."""
    pixels = np.array(image.convert("RGB"), dtype=np.int64)
    if np.ptp(pixels, axis=2).max() > (_JPEG_NOISE if image.format == "JPEG" else 0):
        msg = f"{path}: is a colour picture (mode {image.mode}), no mask of numbers. Save it with one number per pixel."
        raise UnreadableMaskError(msg)
    return pixels[..., 1].astype(np.uint8)


def _check_size(path: Path, size: tuple[int, int], image_size: tuple[int, int]) -> None:
    if size == image_size:
        return
    turned = size == image_size[::-1]
    remedy = (
        "It seems to belong to the image before its EXIF rotation: rotate the mask."
        if turned
        else "Save it in the size of the image (nearest neighbour, never smooth)."
    )
    sizes = f"the mask is {size[1]}x{size[0]}, its image is {image_size[1]}x{image_size[0]} (width x height)"
    msg = f"{path}: {sizes}. {remedy}"
    raise UnreadableMaskError(msg)
