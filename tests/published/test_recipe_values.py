"""Recipes of published systems hold the published values: the table ``values.yaml`` against the resolved recipes.

Both ways: every row is what the recipe resolves to, and all that such a recipe writes down has a row or a reason in
``ours.yaml``.
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from scripts import load_script
from tagmask.settings.loading import load_recipe

TABLES: Any = load_script("docs/tables/reproduction.py")
PUBLISHED, OURS = TABLES.published(), TABLES.table("ours")
#: Where "auto" may stand: no setting of a paper, or the published form wherever the paper's networks are used.
AUTO = {"engine.device", "data.value_range", "data.tags", "localize.clip_negative"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_recipe_has_the_published_values(name: str) -> None:
    rows = TABLES.rows_of(name)
    assert rows, f"no published value is known of {name}; add its rows to values.yaml"
    wrong = {
        key: f"{TABLES.value_of(TABLES.resolved(name), key)}, published {value} ({where})"
        for key, (value, where) in rows.items()
        if TABLES.value_of(TABLES.resolved(name), key) != value
    }
    assert wrong == {}


@pytest.mark.parametrize("name", PUBLISHED)
def test_all_that_the_recipe_writes_has_a_source_or_a_reason(name: str) -> None:
    reasons = OURS.get(name, {})
    unexplained = [
        key
        for key in TABLES.own_values(name)
        if key not in TABLES.rows_of(name) and not any(key == own or key.startswith(f"{own}.") for own in reasons)
    ]
    assert unexplained == []


def test_every_reason_is_of_a_number_that_is_there() -> None:
    for name, reasons in OURS.items():
        written = TABLES.own_values(name)
        for own in reasons:
            assert any(key == own or key.startswith(f"{own}.") for key in written), f"{name}: {own}"
            assert own not in TABLES.rows_of(name), f"{name}: {own} is published"


def test_every_recipe_of_the_table_is_there() -> None:
    assert {name for group in TABLES.table("values") for name in group["recipes"]} <= set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_nothing_is_left_to_be_chosen(name: str) -> None:
    assert TABLES.resolved(name)["engine"]["precision"] == "float32"
    assert [key for key, value in TABLES.written(TABLES.resolved(name)) if value == "auto" and key not in AUTO] == []


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
        ("coco14/lpcam-irnet", "segment.optimizer.lr=0.00025"),
        ("voc12/ssa-irnet", "segment.iterations=20000"),
        ("voc12/recam", "refine.0.value=0.15"),
        ("voc12/hspp", "localize.flip_merge=sum"),
        ("voc12/sc-cam-affinitynet", "retrain.1.schedule_epochs=40"),
        ("voc12/infercam", "segment.loss.alpha=0.5"),
        ("cub/spa-ssa", "evaluate.boxes.inclusive=true"),
    ],
)
def test_a_changed_value_is_another_one(name: str, change: str) -> None:
    """The rows are of settings that a run reads: an override of the same key resolves to another value."""
    key, _, value = change.partition("=")
    changed = load_recipe(TABLES.RECIPES / f"{name}.yaml", [change]).dump()
    assert TABLES.value_of(changed, key) == yaml.safe_load(value) != TABLES.rows_of(name)[key][0]
