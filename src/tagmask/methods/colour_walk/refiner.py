"""Colour walk: IRNet's propagation with colour in place of a learnt boundary; nothing to train.

The stencil and the walk are those of :mod:`tagmask.ops.random_walk` (Ahn, Cho, Kwak, CVPR 2019). The
affinity of a pixel pair is exp(-|c_i - c_j|^2 / (2 sigma^2)), the intensity kernel of normalised cuts (Shi
and Malik, PAMI 2000, eq. 11) without its distance term: the stencil's radius takes that part.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tagmask.contracts.refiner import MapRefiner, RefineRequest
from tagmask.ops.maps import check_maps, divide_by_peaks
from tagmask.ops.pixel_pairs import stencil_offsets
from tagmask.ops.random_walk import stencil_walk
from tagmask.types import UInt8Array


def colour_affinity(colours: Tensor, *, radius: int, sigma: float) -> Tensor:
    """exp(-|c_i - c_j|^2 / (2 sigma^2)) of every pixel with each half-plane neighbour.

    Args:
        colours: [3, h, w] float.
        radius: pairs closer than this.
        sigma: in the unit of ``colours``.

    Returns:
        [len(stencil_offsets(radius)), h, w], 0 where the neighbour lies outside.
    """
    offsets = stencil_offsets(radius)
    height, width = colours.shape[1:]
    affinity = colours.new_zeros((len(offsets), height, width))
    for plane, (dy, dx) in zip(affinity, offsets, strict=True):
        x0, x1 = max(0, -dx), width - max(0, dx)
        y1 = height - dy
        if x0 < x1 and y1 > 0:
            here, there = colours[:, :y1, x0:x1], colours[:, dy:, x0 + dx : x1 + dx]
            plane[:y1, x0:x1] = torch.exp((here - there).square().sum(0) / (-2 * sigma * sigma))
    return affinity


def grid_colours(image: Tensor | UInt8Array, size: tuple[int, int]) -> Tensor:
    """Image as float [3, h, w] in [0, 1], averaged over the area of each cell of the maps' grid.

    ``image`` is uint8 [H, W, 3] or float [3, H, W] in [0, 1].

    Raises:
        ValueError: neither of the two.
    """
    colours = torch.as_tensor(image) if isinstance(image, Tensor) else torch.tensor(image)  # a view may be read-only
    if colours.ndim == 3 and colours.dtype == torch.uint8 and colours.shape[2] == 3:
        colours = colours.permute(2, 0, 1).float() / 255
    elif not (colours.ndim == 3 and colours.is_floating_point() and colours.shape[0] == 3):
        msg = f"the image must be uint8 [H, W, 3] or float [3, H, W], got {colours.dtype} {list(colours.shape)}"
        raise ValueError(msg)
    return functional.adaptive_avg_pool2d(colours[None], size)[0]


def colour_walk(
    maps: Tensor,
    image: Tensor | UInt8Array,
    *,
    radius: int = 5,
    sigma: float = 0.03,
    steps: int = 64,
    power: float = 1.0,
) -> Tensor:
    """Spread maps over regions of similar colour.

    Args:
        maps: [K, h, w] float, >= 0.
        image: uint8 [H, W, 3] or float [3, H, W] in [0, 1] of the same scene; any size.
        radius: pairs closer than this, in cells of the maps' grid, are connected.
        sigma: colour difference at which two neighbours stop being alike, in units of the full range.
        steps: length of the walk.
        power: exponent on the maps before the walk (AdvCAM's 1.5, AMN's 1.3 are such): above 1 it starts from
            what the maps are sure of.

    Returns:
        [K, h, w] in [0, 1], same dtype and device: each map divided by its maximum (an all-zero map stays 0).

    Raises:
        ValueError: radius < 2, sigma or power <= 0, steps < 0, not an image, or maps that are not [K, h, w] or finite.
    """
    if sigma <= 0 or power <= 0:
        msg = f"sigma and power must be positive, got {sigma} and {power}"
        raise ValueError(msg)
    if maps.ndim != 3 or not torch.isfinite(maps).all():
        msg = f"maps must be [K, h, w] and finite, got {list(maps.shape)}, or NaN or infinity in it"
        raise ValueError(msg)
    if maps.numel() == 0:
        return maps.clone()
    # On the maps' grid: a walk at the image's size would need 16 times the cells and 4 times the reach.
    colours = grid_colours(image, (maps.shape[1], maps.shape[2])).to(maps.device)
    weights = colour_affinity(colours, radius=radius, sigma=sigma)
    return divide_by_peaks(stencil_walk(maps**power, weights, radius=radius, steps=steps))


class ColourWalk(MapRefiner):
    """Refiner of maps: :func:`colour_walk` with these settings."""

    name: ClassVar[str] = "colour_walk"

    radius: Annotated[int, Field(ge=2, le=20)] = 5
    sigma: Annotated[float, Field(gt=0, le=2)] = 0.03
    steps: Annotated[int, Field(ge=0, le=4096)] = 64
    power: Annotated[float, Field(gt=0, le=10)] = 1.0

    def refine(self, request: RefineRequest) -> Tensor:
        """Refined maps of one image: uint8 [H, W, 3] and [K, h, w] -> [K, h, w] in [0, 1].

        Raises:
            ValueError: not a uint8 RGB image, or maps that are not finite or do not fit it.
        """
        image, maps = request.colours, request.maps
        check_maps(image, maps)
        return colour_walk(maps, image, radius=self.radius, sigma=self.sigma, steps=self.steps, power=self.power)
