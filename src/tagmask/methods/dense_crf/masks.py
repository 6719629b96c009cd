"""Dense CRF of one image from what others have made: a mask of class numbers, or maps, to a sharper mask."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagmask.methods.dense_crf.refiner import DenseCrf, dense_crf_labels
from tagmask.ops.maps import check_image, upsample_maps
from tagmask.ops.transforms import resize_mask
from tagmask.types import BACKGROUND, IGNORE_INDEX, UInt8Array


def refine_mask(crf: DenseCrf, image: UInt8Array, mask: UInt8Array, *, confidence: float = 0.7) -> UInt8Array:
    """The mask after a dense CRF. A mask with one label comes back with that label everywhere.

    Args:
        crf: its kernels, iterations and max_pixels count.
        image: uint8 [H, W, 3].
        mask: uint8 [H, W] labels; 255: nothing is known, all labels of the mask are equally likely.
        confidence: how sure the labels are, in (0, 1).

    Returns:
        uint8 [H, W] of labels that the mask has; 255 only if it holds nothing else.

    Raises:
        ValueError: shapes that do not fit, or a confidence out of range.
    """
    check_image(image)
    if mask.shape != image.shape[:2] or mask.dtype != np.uint8:
        msg = f"a mask must be uint8 {list(image.shape[:2])}, got {mask.dtype} {list(mask.shape)}"
        raise ValueError(msg)
    names = np.unique(mask)
    names = names[names != IGNORE_INDEX]
    if len(names) <= 1:
        return np.full_like(mask, names[0]) if len(names) else mask.copy()
    small = crf.reduced(image)
    local = np.full(256, IGNORE_INDEX, np.uint8)
    local[names] = np.arange(len(names))
    labels = local[resize_mask(mask, (small.shape[0], small.shape[1]))]
    q = dense_crf_labels(
        small, labels, n_labels=len(names), confidence=confidence, unsure=IGNORE_INDEX, **crf.inference()
    )
    return _winners(q, names, image)


def refine_maps(
    crf: DenseCrf, image: UInt8Array, maps: Tensor | NDArray[np.float32], labels: NDArray[np.integer]
) -> UInt8Array:
    """The mask from maps and a background beside them after a dense CRF.

    Args:
        crf: all its settings count.
        image: uint8 [H, W, 3].
        maps: [K, h, w] float in [0, 1] on any grid that fits the image.
        labels: [K] labels of the maps, 1..254.

    Returns:
        uint8 [H, W]: 0 and values of ``labels``.

    Raises:
        ValueError: maps that are not finite or do not fit the image or the labels.
    """
    names = np.asarray(labels).astype(np.int64)
    if names.shape != (len(maps),) or (names.size and not BACKGROUND < names.min() <= names.max() < IGNORE_INDEX):
        msg = f"{len(maps)} maps need as many labels within 1..{IGNORE_INDEX - 1}, got {names.tolist()}"
        raise ValueError(msg)
    q = crf.probabilities(image, torch.as_tensor(maps).float())
    return _winners(q, np.append(BACKGROUND, names).astype(np.uint8), image)


def _winners(q: Tensor, names: UInt8Array, image: UInt8Array) -> UInt8Array:
    size = (image.shape[0], image.shape[1])
    winners: UInt8Array = names[(q if q.shape[1:] == size else upsample_maps(q, size)).argmax(dim=0).numpy()]
    return winners
