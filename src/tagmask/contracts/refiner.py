"""What a refiner is: a link of the chain from activation maps to pseudo masks.

All links but the last make maps of maps (:class:`MapRefiner`, or :class:`~tagmask.contracts.trainable.TrainableRefiner`
for one that learns first); the last one makes labels (:class:`~tagmask.contracts.labeller.Labeller`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Protocol

from torch import Tensor

from tagmask.ops.map_grids import MapGrids
from tagmask.ops.maps import upsample_maps
from tagmask.ops.transforms import colour_view
from tagmask.registry.field import MethodOf
from tagmask.registry.method import Method
from tagmask.types import FloatArray, UInt8Array


@dataclass(frozen=True)
class RefineRequest:
    """One image as a refiner is given it.

    Args:
        image: uint8 [H, W, 3] RGB, or as many channels as ``data.channels`` names; ``colours`` is what methods see of
            it that look at colours.
        maps: [K, h, w] in [0, 1], as they come through the refiners before; K may be 0.
        classes: int64 [K] mask labels (1..C) of the maps.
        id: the image's id.
        planes: float32 [H, W] by name, of what the refiner ``needs``; one that this image does not have is missing.
        names: of the K classes, for refiners that treat some in particular.
        grids: ``maps`` at full size, see :meth:`full`; None: stretched over the image.
    """

    image: UInt8Array
    maps: Tensor
    classes: Tensor
    id: str = ""
    planes: Mapping[str, FloatArray] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    grids: MapGrids | None = None

    def full(self, size: tuple[int, int]) -> Tensor:
        """The maps at the image's size or a smaller one: float32 [K, *size]."""
        return upsample_maps(self.maps, size) if self.grids is None else self.grids.at(size).to(self.maps.device)

    @property
    def colours(self) -> UInt8Array:
        """The image as uint8 [H, W, 3], see :func:`tagmask.ops.transforms.colour_view`."""
        return colour_view(self.image)


@dataclass(frozen=True, slots=True)
class Instance:
    """One object: its number in the mask, mask label, highest refined map value, pixels, box (y0, x0, y1, x1)."""

    id: int
    label: int
    score: float
    area: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Instances:
    """Objects of one image by falling score; ``ids`` uint8 [H, W] holds their numbers, 0 elsewhere."""

    ids: UInt8Array
    instances: tuple[Instance, ...]


class Refiner(Method):
    """Settings of a link of the chain."""

    #: What comes out: maps for the next link, or labels, which only the last one makes.
    makes: ClassVar[Literal["maps", "labels"]] = "maps"
    #: Planes it asks for beside the image, see :mod:`tagmask.contracts.planes`.
    needs: ClassVar[frozenset[str]] = frozenset()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes that its settings name; a run makes sure that its data has them."""
        return ()


class RefinesMaps(Protocol):
    """What the refine stage applies to one image after the other, several in threads."""

    @property
    def cell(self) -> int | None:
        """Side in pixels of what a cell of its maps stands for, where the last ones may reach beyond the image; None:
        its maps are stretched over the image."""
        ...

    def refine(self, request: RefineRequest) -> Tensor:
        """Maps [K, h, w] in [0, 1] of an image, on the grid of the given ones."""
        ...


class MapRefiner(Refiner):
    """A refiner that has nothing to learn."""

    @property
    def cell(self) -> int | None:
        """See :class:`RefinesMaps`."""
        return None

    @abstractmethod
    def refine(self, request: RefineRequest) -> Tensor:
        """Refined maps [K, h, w] in [0, 1].

        Raises:
            ValueError: not a uint8 RGB image, or maps that are not finite or do not fit it.
        """


RefinerField = Annotated[Refiner, MethodOf("refiner")]
