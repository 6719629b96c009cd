"""Polishers: view methods that change the maps of another one, their ``inner`` one, with features of the same view."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from torch import Tensor
from torch.nn import functional

from tagmask.contracts.localizer import Localizer, Trained, ViewLocalizer, ViewLocalizerField
from tagmask.errors import InputError
from tagmask.registry.field import by_name
from tagmask.types import ClassifierOutput


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps or features [K, h, w] or [B, K, h, w] at another size (bilinear, half-pixel centres)."""
    if maps.shape[-2:] == size:
        return maps
    batch = maps if maps.ndim == 4 else maps[None]
    resized = functional.interpolate(batch, size=size, mode="bilinear", align_corners=False)
    return resized if maps.ndim == 4 else resized[0]


class Polisher(ViewLocalizer):
    """Settings of all polishers. ``stages: null`` takes the last two, of which the last is what the head pools."""

    inner: ViewLocalizerField = by_name("cam", formerly="seed")
    stages: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] | None = None

    @field_validator("inner")
    @classmethod
    def _is_a_view_method(cls, inner: Localizer) -> Localizer:
        if not isinstance(inner, ViewLocalizer):
            msg = (
                f"{cls.name} polishes the maps of a view method, such as cam; '{inner.name}' runs one itself: "
                f"write {{name: {inner.name}, inner: {{name: {cls.name}}}}}"
            )
            raise ValueError(msg)
        return inner

    @model_validator(mode="after")
    def _stages_differ(self) -> Self:
        if self.stages is not None and len(set(self.stages)) < len(self.stages):
            msg = f"stages {list(self.stages)}: one of them stands twice"
            raise ValueError(msg)
        return self

    def inner_maps_and_features(
        self, trained: Trained, output: ClassifierOutput, channels: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Maps [B, K, h, w] of the inner method, and each stage's features [B, D, h, w]; all at the last one's size."""
        taps = [output.feature_taps[number].float() for number in self.stage_numbers(output)]
        size = (taps[-1].shape[-2], taps[-1].shape[-1])
        maps = resize(self.inner.view_maps(trained, output, channels).float(), size)
        return maps, [resize(features, size) for features in taps]

    def stage_numbers(self, output: ClassifierOutput) -> list[int]:
        """Numbers of the stages that polish, ascending.

        Raises:
            InputError: the backbone has no such stage.
        """
        numbers = sorted(output.feature_taps)
        if self.stages is None:
            return numbers[-2:]
        for number in self.stages:
            if number not in output.feature_taps:
                listing = ", ".join(map(str, numbers))
                msg = f"localize.stages={list(self.stages)}: this backbone has no stage {number}. Its stages: {listing}"
                raise InputError(msg)
        return sorted(self.stages)
