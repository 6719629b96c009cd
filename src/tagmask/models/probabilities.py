"""Prediction of one image: scales, flip, and the size of the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagmask.contracts.network import SegmentationModel
from tagmask.ops.views import image_and_mirror
from tagmask.types import BACKGROUND, IMAGENET, InputStatistics, UInt8Array


def predict_probabilities(
    model: nn.Module,
    image: UInt8Array,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = True,
    device: torch.device | str = "cpu",
    statistics: InputStatistics = IMAGENET,
) -> Tensor:
    """Class probabilities of one image; call it under the autocast you want.

    Args:
        model: normalised images [B, 3, h, w] -> logits [B, C + 1, h, w].
        image: uint8 [H, W, 3] RGB.
        scales: factors on the image size; softmax is averaged over scales and flips.
        flip: add the mirror of each scale.
        device: where the model is.
        statistics: what its images are normalised with; our networks have them as ``input_statistics``.

    Returns:
        float32 [C + 1, H, W] on the CPU, summing to 1 over classes.

    Raises:
        ValueError: no scales.
    """
    size = (image.shape[0], image.shape[1])
    total: Tensor | None = None
    with torch.inference_mode():
        for scale in scales:
            views = image_and_mirror(image, scale, flip=flip, statistics=statistics)
            views = views.to(device, memory_format=torch.channels_last)
            logits = full_logits(model, views)
            if flip:
                logits = torch.stack([logits[0], logits[1].flip(-1)])
            if logits.shape[-2:] != size:
                # Logits are resized, not probabilities, as in DeepLab's code.
                logits = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
            probabilities = logits.softmax(dim=1).mean(dim=0)
            total = probabilities if total is None else total + probabilities
    if total is None:
        msg = "no scales to predict at"
        raise ValueError(msg)
    return (total / len(scales)).cpu()


def full_logits(model: nn.Module, views: Tensor) -> Tensor:
    """Float32 logits [B, C + 1, h, w] of normalised images [B, 3, h, w].

    A last enlargement is computed in float32 whatever the autocast: of logits in bfloat16 many would be equal.
    """
    coarse = model.coarse(views) if isinstance(model, SegmentationModel) else None
    if coarse is None:
        logits: Tensor = model(views)
        return logits.float()
    enlarged = functional.interpolate(
        coarse.logits.float(), size=coarse.size, mode="bilinear", align_corners=coarse.align_corners
    )
    return enlarged[..., : views.shape[-2], : views.shape[-1]]


def constrain_to_tags(probabilities: Tensor, tags: Sequence[int]) -> Tensor:
    """Probabilities of an image whose tags are known: every other class gets 0, the rest sums to 1 again.

    Args:
        probabilities: [C + 1, H, W] float in [0, 1].
        tags: labels 1..C that the image holds; the background always stays.

    Returns:
        [C + 1, H, W] of the same dtype and device, summing to 1 over classes. Where the allowed classes have no
        probability at all, the pixel is background.

    Raises:
        IndexError: a tag above C.
    """
    allowed = torch.zeros(len(probabilities), dtype=torch.bool, device=probabilities.device)
    allowed[[BACKGROUND, *tags]] = True
    result = torch.where(allowed[:, None, None], probabilities, 0.0)
    total = result.sum(0)
    result[BACKGROUND] = torch.where(total > 0, result[BACKGROUND], 1.0)
    return result / torch.where(total > 0, total, 1.0)


def to_mask(probabilities: Tensor) -> UInt8Array:
    """Most probable label per pixel: [C + 1, H, W] -> uint8 [H, W]."""
    mask: UInt8Array = probabilities.numpy().argmax(axis=0).astype(np.uint8)  # torch's takes four times as long
    return mask
