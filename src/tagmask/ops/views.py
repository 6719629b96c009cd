"""Scales and flips: the one place that knows about them (IRNet's rule: docs/methods/cam.md).

Per scale s the maps of the image and the un-flipped maps of its mirror are merged (summed; VWE: the larger one); over
scales they are resized to one size and summed; each map is divided by its maximum once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tagmask.ops.transforms import normalise, resize_image, scaled_size
from tagmask.types import IMAGENET, InputStatistics, UInt8Array

Flips = Literal["sum", "max"]


def normalize_maps(maps: Tensor, eps: float = 1e-5) -> Tensor:
    """Divide each map by its own maximum, as IRNet and what builds on it do; not min-max.

    Args:
        maps: [..., h, w] float, >= 0.
        eps: added to each maximum.

    Returns:
        [..., h, w] in [0, 1), of the same dtype; an empty map stays 0.
    """
    # The epsilon makes an empty map 0 instead of NaN, and is part of the published numbers: the maximum stays below 1.
    return maps / (maps.amax(dim=(-2, -1), keepdim=True) + eps)


def strided_size(image_size: tuple[int, int], stride: int = 4) -> tuple[int, int]:
    """(ceil(H / stride), ceil(W / stride)). Floor would lose the last row."""
    return (image_size[0] - 1) // stride + 1, (image_size[1] - 1) // stride + 1


def aligned_size(image_size: tuple[int, int], grid: int = 16) -> tuple[int, int]:
    """The next multiples of ``grid``, which the network's grid covers."""
    # Maps resized straight to (H, W) would be stretched by up to a stride, at every scale by another factor.
    return -(-image_size[0] // grid) * grid, -(-image_size[1] // grid) * grid


def sum_scales(per_scale: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Resize maps [K, h_s, w_s] of every scale bilinearly to ``size`` and sum them, float32 [K, *size]."""
    total: Tensor | None = None
    for maps in per_scale:
        # Not normalised before: a scale on which the class responds strongly shall count for more.
        resized = functional.interpolate(maps[None].float(), size=size, mode="bilinear", align_corners=False)[0]
        total = resized if total is None else total + resized
    if total is None:
        msg = "no scales to merge"
        raise ValueError(msg)
    return total


def merge_scales(
    per_scale: Sequence[Tensor], image_size: tuple[int, int], *, normalize: bool = True, grid: int = 16
) -> tuple[Tensor, Tensor]:
    """IRNet's multi-scale rule: resize the maps of every scale to one size, sum, normalise once.

    Args:
        per_scale: per scale the flip-summed, rectified maps [K, h_s, w_s].
        image_size: (H, W) of the image.
        normalize: divide each map by (its maximum + 1e-5).
        grid: network stride that the full-size maps are aligned with.

    Returns:
        strided maps [K, ceil(H/4), ceil(W/4)] (stretched to that size) and full maps [K, H, W] (resized to the
        next multiple of ``grid`` and cropped, which keeps them aligned with the network's grid); float32, in [0, 1) if
        normalised.

    Raises:
        ValueError: no scales.
    """
    height, width = image_size
    strided = sum_scales(per_scale, strided_size(image_size))
    full = sum_scales(per_scale, aligned_size(image_size, grid))[:, :height, :width]
    return (normalize_maps(strided), normalize_maps(full)) if normalize else (strided, full)


def image_and_mirror(image: UInt8Array, scale: float, *, flip: bool, statistics: InputStatistics) -> Tensor:
    """Network input of one scale: the resized image and its mirror, float32 [2 or 1, 3, h, w]."""
    # Resized once and then mirrored, as in the published code.
    view = normalise(resize_image(image, scaled_size(image.shape[:2], scale)), statistics)
    return torch.stack([view, view.flip(-1)]) if flip else view[None]


@dataclass(frozen=True, slots=True)
class Views:
    """The views of one image that a localizer sees: scales, with each scale its mirror, and what they are normalised
    with (the classifier's ``statistics``)."""

    scales: tuple[float, ...]
    flip: bool = True
    statistics: InputStatistics = IMAGENET

    def of(self, image: UInt8Array) -> list[Tensor]:
        """Per scale the network input float32 [2 or 1, 3, h, w] of image uint8 [H, W, 3]."""
        return [self.at(image, scale) for scale in self.scales]

    def at(self, image: UInt8Array, scale: float, *, flip: bool | None = None) -> Tensor:
        """The network input of one scale; ``flip``: None is as the views have it."""
        mirrored = self.flip if flip is None else flip
        return image_and_mirror(image, scale, flip=mirrored, statistics=self.statistics)


def merge_flips(maps: Tensor, how: Flips = "sum") -> Tensor:
    """Maps [B, K, h, w] of an image and (B = 2) its mirror, each in its own frame -> [K, h, w] in the image's."""
    if maps.shape[0] == 1:
        return maps[0]
    mirrored = maps[1].flip(-1)
    return torch.maximum(maps[0], mirrored) if how == "max" else maps[0] + mirrored


def multi_scale_maps(image: UInt8Array, scale_maps: Callable[[Tensor], Tensor], views: Views) -> list[Tensor]:
    """Maps [K, h', w'] of every scale; ``scale_maps`` takes the network input [2 or 1, 3, h, w] of one scale."""
    return [scale_maps(pair) for pair in views.of(image)]
