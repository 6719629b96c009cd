"""Pixel-adaptive mask refinement: masks averaged over neighbours of like colour; nothing to train.

Source: Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020, section 3.3; the
published code is ``models/mods/pamr.PAMR`` of visinf/1-stage-wseg (docs/methods/pamr.md).

Deliberate deviation (same number, less work): the published code copies the neighbours of every mask into one
tensor, 48 times the masks; here each neighbour is a slice of the padded masks, added to the sum in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tagmask.contracts.refiner import MapRefiner, RefineRequest
from tagmask.ops.maps import check_maps, divide_by_peaks
from tagmask.ops.transforms import reduced_to

DILATIONS = (1, 2, 4, 8, 12, 24)
_TILE = 1 << 17  # values of the sum that a CPU's cache keeps over all neighbours


def neighbour_offsets(dilations: Sequence[int]) -> list[tuple[int, int]]:
    """(dy, dx) of the eight neighbours at each dilation: dilation by dilation, row by row, without the centre."""
    ring = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    return [(d * y, d * x) for d in dilations for y, x in ring]


def pamr_weights(image: Tensor, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """Weight of each neighbour of each pixel: softmax of -mean over channels of |difference| / (0.1 deviation).

    The deviation (unbiased) is that of the pixel's 3x3 windows at all dilations, the centre once in each.

    Args:
        image: [3, H, W] float, any scale.
        dilations: distances of the neighbours; beyond the border the border's pixel is repeated.

    Returns:
        [8 * len(dilations), H, W] in the order of :func:`neighbour_offsets`, sum 1 at every pixel.
    """
    offsets, margin = neighbour_offsets(dilations), max(dilations)
    channels, height, width = image.shape
    padded = functional.pad(image[None], (margin,) * 4, mode="replicate")[0]

    def difference(dy: int, dx: int) -> Tensor:
        y, x = margin + dy, margin + dx
        return padded[:, y : y + height, x : x + width] - image

    # Sums of differences from the pixel itself, which is one of the samples: no cancellation in float32.
    first, second = torch.zeros_like(image), torch.zeros_like(image)
    for offset in offsets:
        d = difference(*offset)
        first += d
        second.addcmul_(d, d)
    samples = 9 * len(dilations)
    variance = (second - first.square() / samples).clamp_(min=0) / (samples - 1)
    # The deviation makes the weights blind to contrast: a faint edge in a plain patch counts as a strong one in
    # texture.
    scale = -1 / (channels * (1e-8 + 0.1 * variance.sqrt()))
    weights = image.new_empty((len(offsets), height, width))
    for plane, offset in zip(weights, offsets, strict=True):
        torch.sum(difference(*offset).abs_().mul_(scale), dim=0, out=plane)
    weights.sub_(weights.amax(dim=0)).exp_()
    return weights.div_(weights.sum(dim=0))


def _averages(masks: Tensor, weights: Tensor, dilations: Sequence[int], iterations: int) -> Tensor:
    """``iterations`` times the weighted mean of the neighbours: [C, H, W] -> [C, H, W]; ``masks`` is overwritten."""
    offsets, margin = neighbour_offsets(dilations), max(dilations)
    n_masks, height, width = masks.shape
    # 48 neighbours are added to each value: strips that stay in the cache are read and written 48 times there, instead
    # of in memory.
    rows = max(1, _TILE // (n_masks * width)) if masks.device.type == "cpu" else height
    for _ in range(iterations):
        padded = functional.pad(masks[None], (margin,) * 4, mode="replicate")[0]
        for top in range(0, height, rows):
            tile = masks[:, top : top + rows].zero_()
            for plane, (dy, dx) in zip(weights[:, top : top + rows], offsets, strict=True):
                y, x = top + margin + dy, margin + dx
                tile.addcmul_(padded[:, y : y + len(plane), x : x + width], plane)
    return masks


@torch.no_grad()
def pamr(image: Tensor, masks: Tensor, *, iterations: int = 10, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """Refine masks by averaging over pixels of like colour. Without gradient.

    Araslanov and Roth, CVPR 2020; docs/methods/pamr.md.

    Args:
        image: [B, 3, H, W] float, any scale.
        masks: [B, C, h, w] float; first resized to (H, W), bilinear with align_corners=True.
        iterations: how often each pixel becomes the weighted mean of its neighbours (itself left out).
        dilations: distances in pixels at which the eight neighbours of a pixel are taken.

    Returns:
        [B, C, H, W], dtype and device of ``masks``; each mask stays within its range, constants are preserved.

    Raises:
        ValueError: shapes do not fit, a value is not finite, iterations < 0, no dilations or one below 1.
    """
    if image.ndim != 4 or masks.ndim != 4 or len(image) != len(masks) or not image.numel() or 0 in masks.shape[2:]:
        msg = f"image [B, 3, H, W] and masks [B, C, h, w] do not fit: {list(image.shape)} and {list(masks.shape)}"
        raise ValueError(msg)
    if iterations < 0 or not dilations or min(dilations) < 1:
        msg = f"iterations must not be negative and dilations at least 1, got {iterations} and {tuple(dilations)}"
        raise ValueError(msg)
    for name, values in (("image", image), ("masks", masks)):
        if not torch.isfinite(values).all():
            msg = f"pamr: {name} must be finite, got NaN or infinity"
            raise ValueError(msg)
    dtype = torch.float64 if torch.float64 in (image.dtype, masks.dtype) else torch.float32
    size = (image.shape[2], image.shape[3])
    if masks.shape[1] == 0:
        return masks.new_zeros((len(masks), 0, *size))
    resized = masks.to(dtype, copy=True)
    if resized.shape[2:] != size:
        # Corners aligned, as in the published code and nowhere else here: the maps' outermost cells lie on the border.
        resized = functional.interpolate(resized, size=size, mode="bilinear", align_corners=True)
    for one, planes in zip(image.to(dtype), resized, strict=True):
        if iterations:
            _averages(planes, pamr_weights(one, dilations), dilations, iterations)
    return resized.to(masks.dtype)


class Pamr(MapRefiner):
    """Refiner of maps: :func:`pamr` on the image, averaged back over the cells of the maps' grid.

    A larger image is first reduced to ``max_side`` (or to the maps' grid, where that is larger): memory and time
    stay bounded, and ``dilations`` reach over the same share of any photograph.
    """

    name: ClassVar[str] = "pamr"

    iterations: Annotated[int, Field(ge=0, le=1000)] = 10
    dilations: Annotated[tuple[Annotated[int, Field(ge=1, le=256)], ...], Field(min_length=1)] = DILATIONS
    max_side: Annotated[int, Field(ge=16, le=4096)] = 512

    def refine(self, request: RefineRequest) -> Tensor:
        """Refined maps of one image: uint8 [H, W, 3] and [K, h, w] -> [K, h, w] in [0, 1], each divided by its maximum.

        Raises:
            ValueError: not a uint8 RGB image, or maps that are not finite or do not fit it.
        """
        image, maps = request.colours, request.maps
        check_maps(image, maps)
        if not len(maps):
            return maps.clone()
        grid = (maps.shape[1], maps.shape[2])
        limit = max(self.max_side, *grid)
        small = reduced_to(image, limit)
        colours = torch.tensor(small, device=maps.device).permute(2, 0, 1).float() / 255
        refined = pamr(colours[None], maps[None], iterations=self.iterations, dilations=self.dilations)
        return divide_by_peaks(functional.adaptive_avg_pool2d(refined, grid)[0])
