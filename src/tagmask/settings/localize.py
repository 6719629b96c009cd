"""The key ``localize`` of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tagmask.contracts.localizer import LocalizerField
from tagmask.registry.field import by_name
from tagmask.registry.method import LATER
from tagmask.settings.base import Positive, Settings


class LocalizeSettings(Settings):
    """Activation maps; scales and flip serve every localizer."""

    method: LocalizerField = by_name("cam")
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field((1.0, 0.5, 1.5, 2.0), min_length=1)
    flip: bool = True
    study_list: Path | None = Field(
        None,
        json_schema_extra=LATER,
        description="list of image ids, below data.root: the images that localizers learn from; null: all",
    )
    size: Positive | None = Field(
        None, json_schema_extra=LATER, description="resize images to this square first, whatever their aspect"
    )
    max_side: Positive | None = Field(
        None, json_schema_extra=LATER, description="make larger images smaller first, so that their long side is this"
    )
    full_size: Literal["aligned", "stretched"] = Field(
        "aligned",
        json_schema_extra=LATER,
        description="maps at full size: over whole strides and cut, as published, or stretched over the image",
    )
    ranking: Literal["none", "whole", "ten_crops"] = Field(
        "none", json_schema_extra=LATER, description="order of the classes by score, for Top-1 and Top-5 localisation"
    )
