"""From maps to labels by background thresholds, fixed or chosen without any mask (docs/methods/threshold.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator

from tagmask.contracts.labeller import Labeller, LabelRequest
from tagmask.methods.threshold.automatic import MapStatistic
from tagmask.ops.maps import maps_to_labels, with_least
from tagmask.registry.method import LATER
from tagmask.types import UInt8Array

Fraction = Annotated[float, Field(ge=0, le=1)]


class Threshold(Labeller):
    """A pixel is foreground iff a map exceeds its threshold; ``auto`` chooses it without masks, ``masks`` on the
    recipe's ``real_masks``.

    ``per_class`` gives classes, by name, thresholds of their own in place of ``value``. ``band`` makes pixels whose
    highest map lies near its threshold ignore (255): b from threshold - b to threshold + b, [b, a] from
    threshold - b to threshold + a. ``areas`` gives classes, by name, the share of the image that they usually cover:
    their thresholds are chosen by it. ``least`` is the share of the image that every class with a map gets at the
    least: the best pixels of its map, whatever the threshold says.
    """

    name: ClassVar[str] = "threshold"

    value: Fraction | Literal["auto", "masks"] = "auto"
    band: Annotated[float, Field(ge=0, lt=0.5)] | tuple[Fraction, Fraction] = 0.0
    per_class: dict[str, Fraction] = Field(default_factory=dict)
    areas: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=dict, json_schema_extra=LATER)
    least: Fraction = Field(0.0, json_schema_extra=LATER)

    @property
    def margins(self) -> tuple[float, float]:
        """How far the band reaches below and above the threshold."""
        return self.band if isinstance(self.band, tuple) else (self.band, self.band)

    @property
    def background(self) -> float | Literal["auto", "masks"]:
        """See :class:`Labeller`."""
        return self.value

    @property
    def class_values(self) -> Mapping[str, float]:
        """See :class:`Labeller`."""
        return self.per_class

    @property
    def class_areas(self) -> Mapping[str, float]:
        """See :class:`Labeller`."""
        return self.areas

    @model_validator(mode="after")
    def _one_rule_a_class(self) -> Threshold:
        if both := sorted(set(self.per_class) & set(self.areas)):
            msg = f"threshold: {', '.join(both)} in per_class and areas; a class has one of them"
            raise ValueError(msg)
        return self

    def statistic(self, *, outlined: bool) -> MapStatistic:
        """See :class:`Labeller`."""
        return MapStatistic(outlined=outlined)

    def labels(self, request: LabelRequest) -> UInt8Array:
        """See :meth:`Labeller.labels`."""
        full = self.full_maps(request)
        level = torch.as_tensor(request.threshold, dtype=torch.float32).numpy()
        below, above = self.margins
        band = ((level - below).clip(0, 1), (level + above).clip(0, 1)) if below or above else level
        mask = maps_to_labels(full, request.classes, band)
        return with_least(mask, full, request.classes, self.least) if self.least else mask
