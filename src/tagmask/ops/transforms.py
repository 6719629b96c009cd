"""Image and mask transforms. All randomness comes from the generator that is passed in.

Images are uint8 [H, W, 3] RGB, masks uint8 [H, W]. Images are resized by Pillow on uint8 before they are
normalised, as the published pipelines do (docs/methods/cam.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor

from tagmask.types import IGNORE_INDEX, FloatArray, InputStatistics, UInt8Array


def normalise(image: UInt8Array, statistics: InputStatistics) -> Tensor:
    """uint8 [H, W, 3] -> float32 [3, H, W]: pixels in [0, 1] minus the mean, divided by the standard deviation."""
    scaled = image.astype(np.float32) / np.float32(255)
    pixels = torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))
    return (pixels - torch.tensor(statistics.mean)[:, None, None]) / torch.tensor(statistics.std)[:, None, None]


def renormalise(images: Tensor, old: InputStatistics, new: InputStatistics) -> Tensor:
    """Images [..., 3, H, W] normalised with ``old`` -> normalised with ``new``; the same tensor if they are equal."""
    if old == new:
        return images
    mean, std, new_mean, new_std = (
        images.new_tensor(values)[:, None, None] for values in (old.mean, old.std, new.mean, new.std)
    )
    return (images * std + (mean - new_mean)) / new_std


def resize_image(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Pillow bicubic to (height, width); any number of channels."""
    if image.shape[:2] == size:
        return image
    if image.shape[2:] not in ((), (3,)):  # four channels would be taken for colours and alpha
        return np.stack([resize_image(image[..., band], size) for band in range(image.shape[2])], axis=2)
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def resize_mask(mask: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Pillow nearest to (height, width)."""
    if mask.shape == size:
        return mask
    return np.asarray(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(round(H * s), round(W * s)), halves to even, at least 1."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def size_within(size: tuple[int, int], max_pixels: int, scale: float = 1.0) -> tuple[int, int]:
    """:func:`scaled_size` by ``scale``, or by less where the result would have more than ``max_pixels`` pixels."""
    return scaled_size(size, min(scale, (max_pixels / (size[0] * size[1])) ** 0.5))


def short_side_factor(size: tuple[int, int], short_side: int, longest: int = 4) -> float:
    """The factor that makes the short side of (H, W) ``short_side``, or the long one ``longest`` times that if it would
    be more (mmsegmentation's "2048 x 512, ratio kept")."""
    return min(short_side / min(size), longest * short_side / max(size))


def working_size(size: tuple[int, int], longest: int | None) -> tuple[int, int]:
    """(H, W) of an image of ``size`` once :func:`reduced_to` has seen it; None: no limit."""
    return size if longest is None else scaled_size(size, min(1.0, longest / max(size)))


def reduced_to(image: UInt8Array, longest: int) -> UInt8Array:
    """The image [H, W, 3] made smaller, aspect kept, if a side is longer than ``longest``; else as it is."""
    return resize_image(image, working_size((image.shape[0], image.shape[1]), longest))


def jitter(image: UInt8Array, strength: float, rng: np.random.Generator) -> UInt8Array:
    """Brightness, contrast and saturation, each by a factor in [1 - strength, 1 + strength], random order.

    Of an image with another number of channels than 3 saturation is the distance from the channels' mean.
    """
    if strength == 0:
        return image
    if image.shape[2] != 3:
        return _jitter_bands(image, strength, rng)
    picture = Image.fromarray(image)
    enhancers: list[Any] = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    for which in rng.permutation(3):
        picture = enhancers[which](picture).enhance(float(rng.uniform(1 - strength, 1 + strength)))
    return np.asarray(picture)


def _jitter_bands(image: UInt8Array, strength: float, rng: np.random.Generator) -> UInt8Array:
    """As Pillow's enhancers: away from black, from the mean grey, from each pixel's own grey."""
    values = image.astype(np.float32)
    for which in rng.permutation(3):
        grey = values.mean(axis=2, keepdims=True)
        base = (np.float32(0), grey.mean(), grey)[which]
        values = (base + np.float32(rng.uniform(1 - strength, 1 + strength)) * (values - base)).clip(0, 255)
    return np.rint(values).astype(np.uint8)


def colour_view(image: UInt8Array) -> UInt8Array:
    """What steps that need colours (CRF, colour walk, PAMR, saliency, pictures) see of an image [H, W, C]: [H, W, 3].

    The first three channels as red, green and blue; one channel as grey; of two the second as green and blue.
    """
    if image.ndim != 3 or image.shape[2] == 3:
        return image
    first = (0, 0, 0) if image.shape[2] == 1 else (0, 1, 1) if image.shape[2] == 2 else (0, 1, 2)
    return np.ascontiguousarray(image[..., first])


def random_resized_crop(
    image: UInt8Array,
    crop: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> UInt8Array:
    """A random part (area share in ``scale``, width / height in ``ratio``) resized to crop x crop."""
    height, width = image.shape[:2]
    top, left, h, w = 0, 0, height, width
    # As torchvision's: ten tries, and the whole image if no shape fits; its aspect then changes.
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = float(np.exp(rng.uniform(*np.log(ratio))))
        extent = round(float(np.sqrt(area / aspect))), round(float(np.sqrt(area * aspect)))
        if 0 < extent[0] <= height and 0 < extent[1] <= width:
            h, w = extent
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            break
    return resize_image(image[top : top + h, left : left + w], (crop, crop))


def random_window(
    size: tuple[int, int], crop: int, rng: np.random.Generator, over: tuple[int, int] | None = None
) -> tuple[slice, slice, slice, slice]:
    """Random crop of an image of ``size``, or random place of it inside a larger canvas.

    ``over`` is a pixel (y, x) of the image that the crop is to hold; None: it may lie anywhere.

    Returns (rows, columns) of the canvas of crop x crop and (rows, columns) of the image.
    """
    canvas, source = [], []
    for axis, length in enumerate(size):
        # Both cases in one draw: a place for the crop in the image, or for the image in the crop.
        space = crop - length
        covered = min(length, crop)
        first, last = 0, abs(space)
        if over is not None and space < 0:
            first, last = max(0, over[axis] - crop + 1), min(-space, over[axis])
        offset = first + int(rng.integers(last - first + 1))
        to = offset if space > 0 else 0
        start = 0 if space > 0 else offset
        canvas.append(slice(to, to + covered))
        source.append(slice(start, start + covered))
    return canvas[0], canvas[1], source[0], source[1]


def place(image: Tensor, crop: int, window: tuple[slice, slice, slice, slice], fill: float) -> Tensor:
    """Copy the window of ``image`` [..., H, W] into a canvas [..., crop, crop] filled with ``fill``."""
    canvas = torch.full((*image.shape[:-2], crop, crop), fill, dtype=image.dtype)
    canvas[..., window[0], window[1]] = image[..., window[2], window[3]]
    return canvas


def augment_image(
    image: UInt8Array,
    kind: str,
    *,
    crop: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    long_side: tuple[int, int],
    flip: bool,
    colour_jitter: float,
    rng: np.random.Generator,
    statistics: InputStatistics,
) -> Tensor:
    """Training view of one image, float32 [3, crop, crop]; see AugmentSettings for the kinds."""
    if flip and rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
    if kind == "resized_crop":
        cut = random_resized_crop(image, crop, scale, ratio, rng)
        return normalise(jitter(cut, colour_jitter, rng), statistics)
    if kind == "square":
        side = int(rng.integers(long_side[0], long_side[1] + 1))
        resized = resize_image(image, (side, side))
        window = random_window((side, side), crop, rng)
        return place(normalise(jitter(resized, colour_jitter, rng), statistics), crop, window, 0.0)
    if kind == "long_side":
        factor = int(rng.integers(long_side[0], long_side[1] + 1)) / max(image.shape[:2])
    else:
        factor = float(rng.uniform(*scale))
    resized = resize_image(image, scaled_size(image.shape[:2], factor))
    window = random_window(resized.shape[:2], crop, rng)
    # The missing area is 0 after normalisation, the mean colour, as in IRNet's code.
    return place(normalise(jitter(resized, colour_jitter, rng), statistics), crop, window, 0.0)


@dataclass(frozen=True)
class View:
    """One random scale, window and mirror; everything that belongs to an image goes through the same one."""

    mirrored: bool
    size: tuple[int, int]  # of the scaled image
    crop: int
    window: tuple[slice, slice, slice, slice]

    @classmethod
    def draw(
        cls,
        size: tuple[int, int],
        *,
        crop: int,
        scale: tuple[float, float],
        flip: bool,
        rng: np.random.Generator,
        over: tuple[int, int] | None = None,
        choices: Sequence[float] | None = None,
        short_side: int | None = None,
    ) -> View:
        """A view of an image of ``size`` (H, W); ``over``: a pixel (y, x) of it that the view is to hold.

        The factor is any of ``scale``, or one of ``choices``, of the image with its short side at ``short_side``.
        """
        mirrored = flip and bool(rng.random() < 0.5)
        factor = float(rng.uniform(*scale)) if choices is None else choices[int(rng.integers(len(choices)))]
        scaled = scaled_size(size, factor * (short_side_factor(size, short_side) if short_side else 1.0))
        if choices is not None and short_side is None:  # DeepLab's code cuts sizes off
            scaled = max(1, int(size[0] * factor)), max(1, int(size[1] * factor))
        if over is not None:
            row, column = over[0], size[1] - 1 - over[1] if mirrored else over[1]
            # The middle of the pixel, so that rounding keeps it inside.
            over = int((row + 0.5) * scaled[0] / size[0]), int((column + 0.5) * scaled[1] / size[1])
        return cls(mirrored, scaled, crop, random_window(scaled, crop, rng, over))

    def mixed(self, mask: UInt8Array, share: float, rng: np.random.Generator, tries: int = 10) -> View:
        """The view, or another window of the scaled image, of which no label has ``share`` or more; the last of so many
        tries whatever it holds. Pixels of 255 do not count, and a single label has all."""
        view = self
        for _ in range(tries - 1):
            labels = view.labels(mask)
            counts = torch.bincount(labels[labels != IGNORE_INDEX].flatten())
            if int(counts.max() if len(counts) else 0) < share * int(counts.sum()):
                break
            view = replace(view, window=random_window(view.size, view.crop, rng))
        return view

    def pixels(
        self, image: UInt8Array, colour_jitter: float, rng: np.random.Generator, statistics: InputStatistics
    ) -> Tensor:
        """uint8 [H, W, 3] -> float32 [3, crop, crop]; outside the image the mean colour."""
        resized = resize_image(self._turned(image), self.size)
        return place(normalise(jitter(resized, colour_jitter, rng), statistics), self.crop, self.window, 0.0)

    def labels(self, mask: UInt8Array) -> Tensor:
        """uint8 [H, W] -> int64 [crop, crop]; outside the image 255, so padding never trains."""
        resized = torch.from_numpy(resize_mask(self._turned(mask), self.size).astype(np.int64))
        return place(resized, self.crop, self.window, IGNORE_INDEX)

    def plane(self, values: FloatArray) -> Tensor:
        """float32 [H, W] -> float32 [crop, crop], bilinear; outside the image 0."""
        picture = Image.fromarray(np.ascontiguousarray(self._turned(values), np.float32))
        resized = np.array(picture.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR))
        return place(torch.from_numpy(resized), self.crop, self.window, 0.0)

    def inside(self) -> Tensor:
        """bool [crop, crop]: where the image is, and not its padding."""
        return place(torch.ones(self.size, dtype=torch.bool), self.crop, self.window, 0.0)

    def _turned(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(values[:, ::-1]) if self.mirrored else values


def augment_pair(
    image: UInt8Array,
    mask: UInt8Array,
    *,
    crop: int,
    scale: tuple[float, float],
    flip: bool,
    colour_jitter: float,
    rng: np.random.Generator,
    statistics: InputStatistics,
) -> tuple[Tensor, Tensor]:
    """One random :class:`View` of image and mask: float32 [3, crop, crop], int64 [crop, crop]."""
    view = View.draw((image.shape[0], image.shape[1]), crop=crop, scale=scale, flip=flip, rng=rng)
    return view.pixels(image, colour_jitter, rng, statistics), view.labels(mask)
