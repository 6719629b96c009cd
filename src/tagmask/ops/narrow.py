"""Images that are too narrow for a network's stride in half precision on a CPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

#: Strides of networks end here: what is no wider leaves features of one pixel somewhere on the way.
LARGEST_STRIDE = 32


def full_precision_if_narrow(images: Tensor) -> tuple[Tensor, AbstractContextManager[object]]:
    """Images [B, C, H, W], and the context to look at them in.

    On a CPU, where a side is no longer than the largest stride: float32 without autocast, whatever they were.

    oneDNN's bfloat16 convolutions of stride 2 read memory that nothing has written where their output is one pixel wide
    (torch 2.15, CPUs with AVX512-BF16): other features each time, or none that are finite.
    """
    # Asked first: a network that is exported has no size to compare.
    if images.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return images, nullcontext()
    if min(images.shape[-2:]) > LARGEST_STRIDE:
        return images, nullcontext()
    return images.float(), torch.autocast("cpu", enabled=False)
