"""From maps to labels by one background threshold, fixed or chosen without any mask (methods.md 0.6, 0.7)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from tagmask.interfaces import UInt8Array
from tagmask.method import Method
from tagmask.refine.labels import maps_to_labels, upsample_maps


class Threshold(Method):
    """A pixel is foreground iff its highest map exceeds the threshold; ``auto`` chooses it without masks.

    ``band`` b > 0 makes pixels whose highest map lies within threshold +- b ignore (255).
    """

    name: ClassVar[str] = "threshold"
    makes: ClassVar[str] = "labels"

    value: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = "auto"
    band: Annotated[float, Field(ge=0, lt=0.5)] = 0.0

    def labels(self, maps: Tensor, classes: Tensor, size: tuple[int, int], threshold: float) -> UInt8Array:
        """Pseudo mask of one image.

        Args:
            maps: [K, h, w] in [0, 1].
            classes: int64 [K] mask labels (1..C).
            size: (H, W) of the image.
            threshold: the fixed or chosen value.

        Returns:
            uint8 [H, W]: 0, labels of ``classes``, 255 inside the band.
        """
        full = upsample_maps(maps, size)
        if self.band == 0:
            return maps_to_labels(full, classes, threshold)
        low, high = max(0.0, threshold - self.band), min(1.0, threshold + self.band)
        return maps_to_labels(full, classes, (low, high))
