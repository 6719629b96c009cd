"""The key ``engine`` of a recipe: device, precision, processes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tagmask.settings.base import Fraction, Positive, Settings


class EngineSettings(Settings):
    """Where and how to compute. Results do not depend on ``devices`` in image-wise stages."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Positive = 1
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    threads: Positive | None = Field(None, description="CPU threads per process; null: torch's default")
    workers: Annotated[int, Field(ge=0)] = Field(0, description="loader processes per rank")
    checkpoint_overhead: Fraction = Field(
        0.05, description="share of training time spent on checkpoints; small models save at every step"
    )
