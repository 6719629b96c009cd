"""Local contrast: maps of small things, weighted by how a pixel differs from what is around it. Ours.

A map says where in the image a small thing is, to a cell of the network's grid; which pixels are it can be read off the
image, for a thing that is smaller than its surroundings stands out from their mean. It is the top-hat transform of
morphology (Serra, "Image Analysis and Mathematical Morphology", 1982) with means in place of openings, times the map.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tagmask.contracts.refiner import MapRefiner, RefineRequest
from tagmask.ops.maps import check_image, check_maps, divide_by_peaks, upsample_maps
from tagmask.types import UInt8Array

Side = Literal["dark", "bright", "both"]
#: Pixels that are averaged before they are compared: a single one is noise.
_DETAIL = 1


def contrast(image: UInt8Array, *, radius: int = 12, side: Side = "both") -> Tensor:
    """How much darker, brighter or other a pixel is than the mean of its surroundings.

    Args:
        image: uint8 [H, W, 3].
        radius: of the square window that is the surroundings, in pixels; at the border the image goes on as it ends.
        side: ``dark``: by how much it is darker, ``bright``: brighter; ``both``: the colour's distance from the mean.

    Returns:
        float32 [H, W], >= 0, in units of the full range.

    Raises:
        ValueError: not such an image.
    """
    check_image(image)
    pixels = torch.tensor(image).permute(2, 0, 1).float() / 255
    difference = _mean(pixels, _DETAIL) - _mean(pixels, radius)
    if side == "both":
        return difference.square().mean(0).sqrt()
    # Rounding: an image of one colour is as bright as its mean.
    grey = difference.mean(0)
    return (-grey if side == "dark" else grey).clamp(min=0)


def local_contrast(maps: Tensor, image: UInt8Array, *, radius: int = 12, side: Side = "both") -> Tensor:
    """Maps times the image's :func:`contrast`, at the image's size and averaged back to the maps' grid.

    Args:
        maps: [K, h, w] float, finite, >= 0.
        image: uint8 [H, W, 3] of the same scene.
        radius: see :func:`contrast`.
        side: see :func:`contrast`.

    Returns:
        [K, h, w] in [0, 1], same dtype and device: each map divided by its maximum. A map that has no pixel of contrast
        stays as it is, divided by its own maximum.

    Raises:
        ValueError: not an image.
    """
    weights = contrast(image, radius=radius, side=side)
    if maps.numel() == 0:
        return maps.clone()
    size = (image.shape[0], image.shape[1])
    weighted = _mean(upsample_maps(maps.cpu(), size) * weights, _DETAIL)
    refined = functional.adaptive_avg_pool2d(weighted, (maps.shape[1], maps.shape[2])).to(maps)
    # Rounding noise of an image of one colour would become a map once it is divided by its maximum.
    empty = refined.amax((1, 2), keepdim=True) < torch.finfo(torch.float32).eps
    return divide_by_peaks(torch.where(empty, maps, refined)).clamp(0, 1)


def _mean(planes: Tensor, radius: int) -> Tensor:
    """Mean of the square window of each pixel, [C, H, W] -> [C, H, W]; beyond the border the outermost pixels go on."""
    # One axis at a time: what is replicated must not be more than the image has.
    for axis in (1, 2):
        length = planes.shape[axis]
        place = torch.arange(-radius, length + radius).clamp(0, length - 1)
        sums = planes.double().index_select(axis, place).cumsum(axis)
        ends = sums.narrow(axis, 2 * radius, length)
        before = functional.pad(sums.narrow(axis, 0, length - 1), (1, 0) if axis == 2 else (0, 0, 1, 0))
        planes = ((ends - before) / (2 * radius + 1)).float()
    return planes


class LocalContrast(MapRefiner):
    """Refiner of maps: :func:`local_contrast` of the named ``classes``, of all where none is named."""

    name: ClassVar[str] = "local_contrast"

    radius: Annotated[int, Field(ge=2, le=500)] = 12
    side: Side = "both"
    classes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """See :class:`~tagmask.contracts.refiner.Refiner`."""
        return self.classes

    def refine(self, request: RefineRequest) -> Tensor:
        """Refined maps of one image: uint8 [H, W, 3] and [K, h, w] -> [K, h, w] in [0, 1].

        Raises:
            ValueError: not a uint8 RGB image, or maps that are not finite or do not fit it.
        """
        image, maps = request.colours, request.maps
        check_maps(image, maps)
        if not self.classes:
            return local_contrast(maps, image, radius=self.radius, side=self.side)
        result = maps.clone()
        if chosen := [place for place, name in enumerate(request.names) if name in self.classes]:
            result[chosen] = local_contrast(maps[chosen], image, radius=self.radius, side=self.side)
        return result
