"""The keys ``augment`` of a recipe: how training images are varied."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tagmask.registry.method import LATER
from tagmask.settings.base import Fraction, Positive, Settings


class AugmentSettings(Settings):
    """Training augmentation.

    ``resized_crop``: a random part of the image (area share ``scale``, aspect ``ratio``) resized to ``crop``.
    ``long_side``: the long side resized to a random length in ``long_side``, then a random ``crop`` with the
    missing area filled with the mean colour (IRNet and all that build on it).
    ``scale_crop``: the image scaled by a random factor of ``scale``, then a random ``crop`` (segmentation).
    ``scale_crop`` as published codes draw it: ``scale_choices`` are the only factors; ``short_side`` is that of an
    image at factor 1 (its long side at most four times that); a crop of which one label has at least ``most_of_one`` is
    drawn again at another place, ten times at most.
    ``square``: both sides resized to one random length in ``long_side``, whatever the image's aspect, then a random
    ``crop`` (object localisation).
    """

    kind: Literal["resized_crop", "long_side", "scale_crop", "square"] = "resized_crop"
    crop: Positive = 224
    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (0.8, 1.25)
    long_side: tuple[int, int] = (320, 640)
    flip: bool = True
    colour_jitter: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    scale_choices: tuple[Annotated[float, Field(gt=0, le=8)], ...] | None = Field(
        None,
        json_schema_extra=LATER,
        min_length=1,
        description="with scale_crop: one of these factors, not any of scale",
    )
    short_side: Positive | None = Field(
        None, json_schema_extra=LATER, description="with scale_crop: factors are of images with this short side"
    )
    most_of_one: Fraction | None = Field(
        None, json_schema_extra=LATER, description="with scale_crop: no label has this share of a crop, if ten tries do"
    )

    @field_validator("scale", "ratio", "long_side")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            msg = f"expected two numbers 0 < smallest <= largest, not {list(value)}"
            raise ValueError(msg)
        return value
