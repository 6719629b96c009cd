"""Base class of every registered method: typed settings that know their registered name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

    def settings_of(self, kind: type[Any]) -> Iterator[Any]:
        """The settings of this method that are methods of a kind themselves, in the order they are declared."""
        for key in type(self).model_fields:
            value = getattr(self, key)
            if isinstance(value, kind):
                yield value

    def state(self) -> str:
        """What its results depend on besides the settings (files, say), as a text that changes with it; '': nothing."""
        return ""

    def dump(self) -> dict[str, Any]:
        """The method as it stands in a recipe: its name first, then every setting."""
        return {"name": self.name, **self.model_dump(mode="json")}


def former_name(settings: type[BaseModel], key: str) -> str:
    """The name that a setting had when runs were made before it was renamed; empty for most."""
    extra = settings.model_fields[key].json_schema_extra
    return str(extra.get("formerly", "")) if isinstance(extra, dict) else ""


def fingerprint_values(settings: BaseModel, values: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``values`` (the settings as plain values) a stage's fingerprint is made of.

    That is all but what is marked :data:`LATER` and at its default, each under the name it had first, so that runs
    stay up to date when settings are added or renamed.
    """
    result = dict(values)
    for key, field in type(settings).model_fields.items():
        value, extra = getattr(settings, key), field.json_schema_extra
        if isinstance(extra, dict) and extra.get("later") and value == field.get_default(call_default_factory=True):
            result.pop(key, None)
        elif isinstance(value, BaseModel) and isinstance(result.get(key), Mapping):
            result[key] = fingerprint_values(value, result[key])
        if key in result and (first := former_name(type(settings), key)):
            result[first] = result.pop(key)
    return result
