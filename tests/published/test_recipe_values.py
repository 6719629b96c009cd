"""Recipes of published systems hold the published values: the table ``values.yaml`` against the resolved recipes.

Both ways: every row is what the recipe resolves to, and every number that such a recipe writes down has a row or a
reason in ``ours.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tagmask.settings.loading import load_recipe

HERE = Path(__file__).resolve().parent
RECIPES = HERE.parents[1] / "recipes"
TABLE = yaml.safe_load((HERE / "values.yaml").read_text(encoding="utf-8"))
OURS = yaml.safe_load((HERE / "ours.yaml").read_text(encoding="utf-8"))
#: Not of a paper: a smoke test, and a backbone for comparison.
APART = {"voc12/mini", "cub/resnet50-ssa"}
PUBLISHED = sorted(
    name
    for folder in ("voc12", "coco14", "cub", "ilsvrc")
    for path in (RECIPES / folder).glob("*.yaml")
    if (name := f"{folder}/{path.stem}") not in APART
)
SECTIONS = ("classify", "retrain", "localize", "refine", "segment", "evaluate")


@cache
def resolved(name: str) -> dict[str, Any]:
    return load_recipe(RECIPES / f"{name}.yaml").dump()


def value_of(recipe: Any, key: str) -> Any:
    for part in key.split("."):
        recipe = recipe[int(part)] if isinstance(recipe, list) else recipe[part]
    return list(recipe) if isinstance(recipe, tuple) else recipe


def rows_of(name: str) -> dict[str, tuple[Any, str]]:
    """Key -> value, and where it is published."""
    rows: dict[str, tuple[Any, str]] = {}
    for group in TABLE:
        if name in group["recipes"]:
            for key, (value, where) in group["values"].items():
                assert key not in rows or rows[key][0] == value, f"{name} has two values for {key}"
                rows[key] = value, f"{group['paper']}, {where}"
    return rows


def numbers(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of all numbers, switches and nulls; a list of plain numbers is one value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from numbers(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for place, inner in enumerate(value):
            yield from numbers(inner, f"{key}.{place}")
    elif not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        yield key, value


def own_numbers(name: str) -> dict[str, Any]:
    """What the recipe's own file writes down, without what it extends."""
    raw = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    return {key: value for section in SECTIONS if section in raw for key, value in numbers(raw[section], section)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_recipe_has_the_published_values(name: str) -> None:
    rows = rows_of(name)
    assert rows, f"no published value is known of {name}; add its rows to values.yaml"
    wrong = {
        key: f"{value_of(resolved(name), key)}, published {value} ({where})"
        for key, (value, where) in rows.items()
        if value_of(resolved(name), key) != value
    }
    assert wrong == {}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_number_of_the_recipe_has_a_source_or_a_reason(name: str) -> None:
    reasons = OURS.get(name, {})
    unexplained = [
        key
        for key in own_numbers(name)
        if key not in rows_of(name) and not any(key == own or key.startswith(f"{own}.") for own in reasons)
    ]
    assert unexplained == []


def test_every_reason_is_of_a_number_that_is_there() -> None:
    for name, reasons in OURS.items():
        written = own_numbers(name)
        for own in reasons:
            assert any(key == own or key.startswith(f"{own}.") for key in written), f"{name}: {own}"
            assert own not in rows_of(name), f"{name}: {own} is published"


def test_every_recipe_of_the_table_is_there() -> None:
    assert {name for group in TABLE for name in group["recipes"]} == set(PUBLISHED)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("voc12/vwe", "classify.head.words=25"),
        ("voc12/ssa", "classify.epochs=1"),
        ("voc12/ssa", "localize.guidance=none"),
        ("cub/spa-scg", "classify.head.delta=0.4"),
        ("voc12/affinitynet", "classify.augment.crop=44"),
        ("voc12/lpcam-irnet", "refine.0.conf_fg=0.30"),
        ("coco14/recam", "retrain.0.head.weight=1.0"),
    ],
)
def test_a_changed_value_is_another_one(name: str, change: str) -> None:
    """The rows are of settings that a run reads: an override of the same key resolves to another value."""
    key, _, value = change.partition("=")
    changed = load_recipe(RECIPES / f"{name}.yaml", [change]).dump()
    assert value_of(changed, key) == yaml.safe_load(value) != rows_of(name)[key][0]
