"""The key ``refine`` of a recipe."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from tagmask.settings.base import RefinerField, Settings


class RefineSettings(Settings):
    """A chain of refiners; the last one makes labels. An empty chain: the recipe ends at its maps."""

    chain: tuple[RefinerField, ...] = Field(default=("threshold",), validate_default=True)

    @field_validator("chain")
    @classmethod
    def _ends_in_labels(cls, chain: tuple[Any, ...]) -> tuple[Any, ...]:
        if not chain:
            return chain
        *before, last = chain
        wrong = [refiner.name for refiner in before if refiner.makes != "maps"]
        if wrong:
            msg = f"'{wrong[0]}' makes labels, so it must be the last of the chain"
            raise ValueError(msg)
        if last.makes != "labels":
            msg = f"the chain must end in a refiner that makes labels, such as threshold; '{last.name}' makes maps"
            raise ValueError(msg)
        return chain

    @property
    def makes_maps(self) -> bool:
        """Whether refiners of maps stand before the one that makes labels."""
        return len(self.chain) > 1
