"""Labels at the size of an image that was worked on smaller: no probabilities of the full size are ever made."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tagmask.models.probabilities import to_mask
from tagmask.types import UInt8Array


def labels_at(size: tuple[int, int], probabilities: Tensor) -> UInt8Array:
    """Most probable label per pixel, as if the probabilities had been enlarged bilinearly.

    Args:
        size: (H, W).
        probabilities: float [C + 1, h, w] on the CPU.

    Returns:
        uint8 [H, W]; of equal ones the first.
    """
    if probabilities.shape[1:] == size:
        return to_mask(probabilities)
    from tagmask.models.upsampled_labels import upsampled_labels  # numba takes a second to import

    return upsampled_labels(probabilities, size, align_corners=False)


def enlarged_labels(labels: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """A mask made larger: at each pixel the label with the highest bilinear share, so that outlines are no stairs.

    Args:
        labels: uint8 [h, w].
        size: (H, W).

    Returns:
        uint8 [H, W] of values of ``labels``; of equal shares the lowest. At the mask's own size the mask itself.
    """
    if labels.shape == size:
        return labels
    names = np.unique(labels)
    shares = torch.from_numpy((labels[None] == names[:, None, None]).astype(np.float32))
    winners: UInt8Array = names[labels_at(size, shares)]
    return winners
