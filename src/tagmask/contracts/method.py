"""Base class of every registered method: typed settings that know their registered name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

#: ``json_schema_extra`` of a setting that came after runs had been made: while it is at its default it is no part of a
#: stage's fingerprint, so that those runs stay up to date.
LATER: dict[str, Any] = {"later": True}


class Method(BaseModel):
    """Settings of one method; a method's file subclasses it and adds what its stage calls.

    ``name`` is the registered name and the ``name:`` key of a recipe.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: ClassVar[str]

    def dump(self) -> dict[str, Any]:
        """The method as it stands in a recipe: its name first, then every setting."""
        return {"name": self.name, **self.model_dump(mode="json")}


def stated(settings: BaseModel, dumped: Mapping[str, Any]) -> dict[str, Any]:
    """``dumped`` (the settings as plain values) without what is marked :data:`LATER` and at its default."""
    kept = dict(dumped)
    for key, field in type(settings).model_fields.items():
        value, extra = getattr(settings, key), field.json_schema_extra
        if isinstance(extra, dict) and extra.get("later") and value == field.get_default(call_default_factory=True):
            kept.pop(key, None)
        elif isinstance(value, BaseModel) and isinstance(kept.get(key), Mapping):
            kept[key] = stated(value, kept[key])
    return kept
