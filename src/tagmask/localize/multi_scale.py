"""Scales and flips: the one place that knows about them (methods.md 0.4, IRNet's rule).

Per scale s the maps of the image and the un-flipped maps of its mirror are summed; over scales the sums are
resized to one size and summed; each map is divided by its maximum once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tagmask.data.transforms import normalise, resize_image, scaled_size
from tagmask.interfaces import UInt8Array


def normalize_maps(maps: Tensor, eps: float = 1e-5) -> Tensor:
    """Divide each map [..., h, w] by (its own maximum + eps): in [0, 1), not min-max."""
    return maps / (maps.amax(dim=(-2, -1), keepdim=True) + eps)


def strided_size(image_size: tuple[int, int], stride: int = 4) -> tuple[int, int]:
    """(ceil(H / stride), ceil(W / stride)). Floor loses the last row (methods.md trap 1)."""
    return (image_size[0] - 1) // stride + 1, (image_size[1] - 1) // stride + 1


def sum_scales(per_scale: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Resize maps [K, h_s, w_s] of every scale bilinearly to ``size`` and sum them, float32 [K, *size]."""
    total: Tensor | None = None
    for maps in per_scale:
        resized = functional.interpolate(maps[None].float(), size=size, mode="bilinear", align_corners=False)[0]
        total = resized if total is None else total + resized
    if total is None:
        msg = "no scales to merge"
        raise ValueError(msg)
    return total


def merge_scales(
    per_scale: Sequence[Tensor], image_size: tuple[int, int], *, normalize: bool = True, grid: int = 16
) -> tuple[Tensor, Tensor]:
    """IRNet's multi-scale rule.

    Args:
        per_scale: per scale the flip-summed, rectified maps [K, h_s, w_s].
        image_size: (H, W) of the image.
        normalize: divide each map by (its maximum + 1e-5).
        grid: network stride that the full-size maps are aligned with.

    Returns:
        strided maps [K, ceil(H/4), ceil(W/4)] (stretched to that size) and full maps [K, H, W] (resized to the
        next multiple of ``grid`` and cropped, which keeps them aligned with the network's grid).
    """
    height, width = image_size
    aligned = -(-height // grid) * grid, -(-width // grid) * grid
    strided = sum_scales(per_scale, strided_size(image_size))
    full = sum_scales(per_scale, aligned)[:, :height, :width]
    return (normalize_maps(strided), normalize_maps(full)) if normalize else (strided, full)


def image_and_mirror(image: UInt8Array, scale: float, *, flip: bool) -> Tensor:
    """Network input of one scale: the resized image and its mirror, float32 [2 or 1, 3, h, w]."""
    view = normalise(resize_image(image, scaled_size(image.shape[:2], scale)))
    return torch.stack([view, view.flip(-1)]) if flip else view[None]


def multi_scale_maps(
    image: UInt8Array, view_maps: Callable[[Tensor], Tensor], scales: Sequence[float], *, flip: bool = True
) -> list[Tensor]:
    """Run a view method over all scales of one image.

    Args:
        image: uint8 [H, W, 3].
        view_maps: [B, 3, h, w] -> maps [B, K, h', w'] of the same views.
        scales: factors on the image size.
        flip: add each scale's mirror.

    Returns:
        per scale the flip-summed maps [K, h', w'].
    """
    per_scale = []
    for scale in scales:
        maps = view_maps(image_and_mirror(image, scale, flip=flip))
        per_scale.append(maps[0] + maps[1].flip(-1) if flip else maps[0])
    return per_scale
