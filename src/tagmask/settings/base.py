"""What all settings share: a frozen model without unknown keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]


Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Base of all stage settings: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
