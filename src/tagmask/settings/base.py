"""What all settings share: a frozen model without unknown keys, and fields that hold a method."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tagmask.contracts.building import AS_METHOD, method_of

Positive = Annotated[int, Field(ge=1)]


Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Base of all stage settings: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


HeadField = Annotated[Any, method_of("head"), AS_METHOD]


LocalizerField = Annotated[Any, method_of("localizer"), AS_METHOD]


RefinerField = Annotated[Any, method_of("refiner"), AS_METHOD]


NetworkField = Annotated[Any, method_of("network"), AS_METHOD]


LossField = Annotated[Any, method_of("loss"), AS_METHOD]


SaliencyField = Annotated[Any, method_of("saliency"), AS_METHOD]


DataField = Annotated[Any, method_of("data"), AS_METHOD]
