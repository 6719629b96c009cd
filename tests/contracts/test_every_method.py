"""What every method of every kind shares: a resolvable line in the table, typed settings that survive a recipe."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from pydantic import BaseModel

from tagmask import registry
from tagmask.errors import UnknownNameError
from tagmask.registry import Kind
from tagmask.registry.validation import build_method

ALL: list[tuple[Kind, str]] = [
    (kind, name)
    for kind in get_args(Kind)
    for name in registry.entries(kind)  # type: ignore[arg-type]
]
METHODS = [
    (kind, name)
    for kind, name in ALL
    if kind != "data" and not any(field.is_required() for field in registry.get(kind, name).model_fields.values())
]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_it_exists_is_typed_and_says_what_it_is(kind: Kind, name: str, tmp_path: object) -> None:
    entry, method = registry.entries(kind)[name], registry.get(kind, name)
    assert issubclass(method, BaseModel)
    assert method.model_config["extra"] == "forbid"
    assert method.model_config["frozen"]
    assert method.__doc__
    assert entry.summary
    assert "\n" not in entry.summary + entry.paper
    assert re.fullmatch(r"[a-z0-9_]+", name)


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_its_settings_come_back_from_a_recipe(kind: Kind, name: str) -> None:
    from pathlib import Path

    method = registry.get(kind, name)()
    assert method.name == name
    assert method.dump()["name"] == name
    assert build_method(kind, method.dump(), where="recipe", base=Path()) == method


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_misspelt_name_finds_it(kind: Kind, name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Did you mean '{name}'"):
        registry.get(kind, name + "x")


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="already registered"):
        registry.register("head", "gap", "elsewhere:Head")
