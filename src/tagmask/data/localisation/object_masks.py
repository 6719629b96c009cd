"""Masks that say object or not: grey PNGs of an image's only class, as CUB-200-2011 and OpenImages have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.errors import UnreadableMaskError
from tagmask.storage.images import size_for_mask
from tagmask.types import IGNORE_INDEX, Sample, UInt8Array


@dataclass(frozen=True, slots=True)
class ObjectMasks:
    """Mask reader for images with one tag; masks of another size than the image are stretched to it (nearest).

    ``parts``: further masks of an image by id, united with the first; ``ignored``: where it is not known, by id;
    ``value``: what an object's pixels hold, None: its label.
    """

    max_pixels: int
    parts: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    ignored: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    value: int | None = None

    def __call__(self, sample: Sample) -> UInt8Array:
        """uint8 [H, W]: the label (``value``) where a mask exceeds half of white, 255 where it is ignored, else 0.

        Raises:
            UnreadableMaskError: no mask, a broken one, an unreadable image, or an image with several tags.
        """
        if sample.mask_path is None or len(sample.tags) != 1:
            msg = f"{sample.image_path}: has no mask of one class. Leave the image out of the evaluation."
            raise UnreadableMaskError(msg)
        size = size_for_mask(sample.image_path, max_pixels=self.max_pixels)
        mask: UInt8Array = np.zeros(size, np.uint8)
        for path in self.ignored.get(sample.id, ()):
            mask[_read(path, size)] = IGNORE_INDEX
        for path in (sample.mask_path, *self.parts.get(sample.id, ())):
            mask[_read(path, size)] = sample.tags[0] if self.value is None else self.value
        return mask


def _read(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        with Image.open(path) as picture:
            grey = picture.convert("L").resize((size[1], size[0]), Image.Resampling.NEAREST)
            return np.asarray(grey) > 127
    except Exception as error:  # a torn file raises nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"{path}: not a readable mask ({reason}). Copy it again from its source."
        raise UnreadableMaskError(msg) from error
