"""AMN's maps: probabilities of the image's classes, spread to the full range where the seed labels see an object.

Source: ``step/make_amn_cam.py`` of gaviotas/AMN; docs/methods/amn.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tagmask.ops.losses import nearest_to
from tagmask.types import BACKGROUND

_EPS = 1e-5


def manipulated_maps(logits: Tensor, classes: Tensor, labels: Tensor) -> Tensor:
    """Maps of an image's classes from its mean logits.

    Args:
        logits: float [C + 1, h, w], background first, mean over all views.
        classes: int64 [K] mask labels (1..C) of the image.
        labels: integer [H, W] seed labels of the image, 0..C or 255, at any size: resized by nearest neighbours with
            half-pixel centres.

    Returns:
        float32 [K, h, w] in [0, 1]: p, the softmax over all C + 1 channels, where the label is background; elsewhere,
        unsure pixels included, (p - min) / (max - min + 1e-5), extremes over the whole plane.

    Raises:
        IndexError: a class is beyond C.
    """
    probabilities = logits.float().softmax(0)[classes]
    if not len(classes):
        return probabilities
    lowest, highest = probabilities.amin((1, 2), keepdim=True), probabilities.amax((1, 2), keepdim=True)
    spread = (probabilities - lowest) / (highest - lowest + _EPS)
    objects = nearest_to(labels[None], logits.shape[-2:])[0] != BACKGROUND
    return torch.where(objects.to(logits.device), spread, probabilities)
