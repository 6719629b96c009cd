"""The key ``evaluate`` of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tagmask.settings.base import Fraction, Settings


class BoxSettings(Settings):
    """How boxes are made of maps and counted (object localisation)."""

    component: Literal["union", "largest", "contour"] = Field(
        "largest", description="a map's box: around all above the threshold, or around its largest component"
    )
    threshold: Literal["best"] | Fraction = Field("best", description="where errors are read; best on the split")
    thresholds: Annotated[int, Field(ge=2, le=4096)] = 100
    iou: Fraction = Field(0.5, description="a box is right where its IoU exceeds this")
    inclusive: bool = Field(False, description="true boxes are a row and a column larger, as SPA's code counts CUB's")
    from_masks: bool = Field(False, description="images without boxes get one around the mask's largest piece")


class EvaluateSettings(Settings):
    """What is measured where; ground truth is opened here only."""

    thresholds: Annotated[int, Field(ge=2, le=4096)] = 100
    average: Literal["occurring", "union"] = Field(
        "occurring", description="mean over classes in the split's ground truth, or in truth or prediction"
    )
    full_run: Path | None = Field(None, description="a run with full supervision, for the ratio")
    boxes: BoxSettings = BoxSettings()
