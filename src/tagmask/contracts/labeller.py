"""What a labeller is: the last refiner of a chain, which makes labels of maps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from tagmask.contracts.refiner import Refiner
from tagmask.errors import DataError
from tagmask.ops.map_grids import MapGrids
from tagmask.ops.maps import upsample_maps
from tagmask.types import FloatArray, UInt8Array


@dataclass(frozen=True)
class LabelRequest:
    """Maps of one image to be labelled.

    Args:
        maps: [K, h, w] in [0, 1]; K may be 0.
        classes: int64 [K] mask labels (1..C).
        size: (H, W) of the image.
        threshold: the background's value, fixed or chosen; or one for each map.
        id: the image's id.
        image: uint8 [H, W, 3] RGB, where the labeller ``needs`` it.
        planes: float32 [H, W] by name, of what else it needs; one that this image does not have is missing.
        grids: ``maps`` at full size, see :meth:`full`; None: stretched over the image.
    """

    maps: Tensor
    classes: Tensor
    size: tuple[int, int]
    threshold: float | Sequence[float]
    id: str = ""
    image: UInt8Array | None = None
    planes: Mapping[str, FloatArray] = field(default_factory=dict)
    grids: MapGrids | None = None

    def full(self) -> Tensor:
        """The maps at the image's size: float32 [K, H, W]."""
        return upsample_maps(self.maps, self.size) if self.grids is None else self.grids.at(self.size)


class ThresholdStatistic(Protocol):
    """Chooses one threshold for all images without any mask."""

    def update(self, image: UInt8Array, maps: Tensor) -> None:
        """Count one image, uint8 [h, w, 3] on the grid of its maps [K, h, w] in [0, 1].

        Raises:
            DataError, ValueError: maps that are not finite or do not fit.
        """

    def merge(self, other: Any) -> None:
        """Count what another process counted."""

    def choose(self) -> float:
        """The threshold.

        Raises:
            DataError: no image tells anything about it.
        """

    def record(self) -> dict[str, Any]:
        """How the choice came about, as JSON values for refine/thresholds.json."""


class Labeller(Refiner):
    """Settings of a labeller that draws the line between background and classes at a threshold."""

    makes: ClassVar[Literal["maps", "labels"]] = "labels"

    @property
    @abstractmethod
    def background(self) -> float | Literal["auto", "masks"]:
        """The background's value; ``auto``: the stage chooses it with :meth:`statistic`; ``masks``: on real masks."""

    @property
    def class_values(self) -> Mapping[str, float]:
        """Classes, by name, with values of their own in place of :attr:`background`."""
        return {}

    @property
    def class_areas(self) -> Mapping[str, float]:
        """Classes, by name, whose values are chosen so that their maps cover such a share of their images."""
        return {}

    @property
    def margins(self) -> tuple[float, float]:
        """How far below and above its value pixels are ignored."""
        return (0.0, 0.0)

    def statistic(self, *, outlined: bool) -> ThresholdStatistic:
        """What chooses an ``auto`` value; ``outlined``: refiners have drawn the maps to the outlines.

        Raises:
            NotImplementedError: its value is never ``auto``.
        """
        raise NotImplementedError

    def full_maps(self, request: LabelRequest) -> Tensor:
        """The maps at the image's size: float32 [K, H, W].

        Raises:
            DataError: they are not finite.
        """
        if not torch.isfinite(request.maps).all():
            msg = f"{self.name}: maps must be finite, got NaN or infinity"
            raise DataError(msg)
        return request.full()

    @abstractmethod
    def labels(self, request: LabelRequest) -> UInt8Array:
        """Pseudo mask of one image: uint8 [H, W], 0, values of ``request.classes``, and 255 where it is unsure.

        Raises:
            DataError: maps that are not finite, or shapes that do not fit.
        """
