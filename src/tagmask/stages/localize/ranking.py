"""Which classes a classifier sees in an image, best first, for Top-1 and Top-5 localisation (docs/localisation.md).

As the published codes do it: logits of the whole image, or the softmax averaged over ten crops (the corners, the
centre, and their mirrors) of the image at 256/224 of the size that maps are made at.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tagmask.contracts.localizer import Trained
from tagmask.ops.transforms import normalise, resize_image
from tagmask.types import InputStatistics, UInt8Array

KEPT = 5


def at_size(image: UInt8Array, size: int | None) -> UInt8Array:
    """The image [H, W, 3] resized to size x size, whatever its aspect; None leaves it as it is."""
    return image if size is None else resize_image(image, (size, size))


def crops_of(image: UInt8Array, statistics: InputStatistics, size: int | None = None) -> Tensor:
    """Corners and centre, 224/256 of the image each way, and their mirrors: float32 [10, 3, h, w], normalised.

    Args:
        image: uint8 [H, W, 3].
        statistics: what they are normalised with.
        size: side of the crops, of an image squeezed to 256/224 of that; None: cut from the image as it is.
    """
    if size is None:
        height, width = (max(1, round(length * 224 / 256)) for length in image.shape[:2])
    else:
        height = width = size
        # As published: images at 256, crops of 224.
        image = at_size(image, round(size * 256 / 224))
    below, beside = image.shape[0] - height, image.shape[1] - width
    places = [(0, 0), (0, beside), (below, 0), (below, beside), (below // 2, beside // 2)]
    parts = [np.ascontiguousarray(image[y : y + height, x : x + width]) for y, x in places]
    crops = [normalise(part, statistics) for part in parts]
    return torch.stack([*crops, *(crop.flip(-1) for crop in crops)])


def class_ranking(
    trained: Trained, image: UInt8Array, *, ten_crops: bool = False, size: int | None = None
) -> tuple[int, ...]:
    """Labels (1..C) of the five classes with the highest scores, best first.

    Args:
        trained: the classifier.
        image: uint8 [H, W, 3].
        ten_crops: average the softmax over ten crops instead of looking once at the whole image.
        size: the square that images are resized to, None for none.
    """
    with torch.inference_mode():
        if ten_crops:
            # Softmax before the mean: a crop with nothing in it then counts for little.
            scores = trained.look(crops_of(image, trained.input_statistics, size)).logits.float().softmax(1).mean(0)
        else:
            view = normalise(at_size(image, size), trained.input_statistics)
            scores = trained.look(view[None]).logits[0].float()
    order = scores.argsort(descending=True, stable=True)[:KEPT]
    return tuple(int(channel) + 1 for channel in order)
