"""Base class of every registered method: typed settings that know their registered name."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Method(BaseModel):
    """Settings of one method; a method's file subclasses it and adds what its stage calls.

    ``name`` is the registered name and the ``name:`` key of a recipe.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: ClassVar[str]

    def dump(self) -> dict[str, Any]:
        """The method as it stands in a recipe: its name first, then every setting."""
        return {"name": self.name, **self.model_dump(mode="json")}
