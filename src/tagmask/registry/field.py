"""Settings that hold a method: typed by its contract, read from a name or a mapping, written as a mapping."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from tagmask.registry.declaration import Kind
from tagmask.registry.method import Method
from tagmask.registry.validation import build_method


@dataclass(frozen=True)
class MethodOf:
    """Marks a settings field that holds a method: ``Annotated[Head, MethodOf("head")]``.

    The field takes a name, a mapping with ``name`` and settings, or the method itself, which must be of the annotated
    class (or of ``base``, where the annotated class is narrower and a validator of the field says so better).
    """

    kind: Kind
    base: type | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Build instead of validating: a method is made by its own class, whichever that is."""
        del handler
        expected: type = self.base or source

        def build(value: Any) -> Any:
            method = build_method(self.kind, value, where=self.kind, base=Path())
            if not isinstance(method, expected):
                msg = f"{type(method).__name__} is no {self.kind}: it does not subclass {expected.__name__}"
                raise ValueError(msg)
            return method

        return core_schema.no_info_plain_validator_function(
            build, serialization=core_schema.plain_serializer_function_ser_schema(_dump)
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """In a recipe: a name, or a mapping with ``name``."""
        del schema, handler
        named = {"type": "object", "properties": {"name": {"type": "string"}}}
        return {"anyOf": [{"type": "string"}, named]}


def _dump(method: Any) -> Any:
    return method.dump() if isinstance(method, Method) else method.model_dump(mode="json")


def by_name(name: str | tuple[str, ...], *, formerly: str = "") -> Any:
    """Default of a field that holds a method: the registered one of this name, or several.

    Args:
        name: of the method, or names of several.
        formerly: old name of the field, which recipes may still use and stored fingerprints do.
    """
    extra: dict[str, Any] | None = {"formerly": formerly} if formerly else None
    return Field(default=name, validate_default=True, json_schema_extra=extra)
