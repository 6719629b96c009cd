"""From maps to labels by background thresholds, fixed or chosen without any mask (docs/methods/threshold.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from tagmask.contracts.method import Method
from tagmask.errors import DataError
from tagmask.ops.maps import maps_to_labels, upsample_maps
from tagmask.types import UInt8Array

Fraction = Annotated[float, Field(ge=0, le=1)]


class Threshold(Method):
    """A pixel is foreground iff a map exceeds its threshold; ``auto`` chooses it without masks.

    ``per_class`` gives classes, by name, thresholds of their own in place of ``value``. ``band`` makes pixels whose
    highest map lies near its threshold ignore (255): b from threshold - b to threshold + b, [b, a] from
    threshold - b to threshold + a.
    """

    name: ClassVar[str] = "threshold"
    makes: ClassVar[str] = "labels"

    value: Fraction | Literal["auto"] = "auto"
    band: Annotated[float, Field(ge=0, lt=0.5)] | tuple[Fraction, Fraction] = 0.0
    per_class: dict[str, Fraction] = Field(default_factory=dict)

    @property
    def margins(self) -> tuple[float, float]:
        """How far the band reaches below and above the threshold."""
        return self.band if isinstance(self.band, tuple) else (self.band, self.band)

    def labels(
        self, maps: Tensor, classes: Tensor, size: tuple[int, int], threshold: float | Sequence[float]
    ) -> UInt8Array:
        """Pseudo mask of one image.

        Args:
            maps: [K, h, w] in [0, 1].
            classes: int64 [K] mask labels (1..C).
            size: (H, W) of the image.
            threshold: the fixed or chosen value, or one for each map.

        Returns:
            uint8 [H, W]: 0, labels of ``classes``, 255 inside the band.

        Raises:
            DataError: maps that are not finite, or shapes that do not fit.
        """
        if not torch.isfinite(maps).all():
            msg = "threshold: maps must be finite, got NaN or infinity"
            raise DataError(msg)
        full, level = upsample_maps(maps, size), torch.as_tensor(threshold, dtype=torch.float32).numpy()
        below, above = self.margins
        if not below and not above:
            return maps_to_labels(full, classes, level)
        return maps_to_labels(full, classes, ((level - below).clip(0, 1), (level + above).clip(0, 1)))
