"""The table of rules: sound on its own, and right at the edges of its conditions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from tagmask.cli.recipes import shipped
from tagmask.data.facts import DataFacts
from tagmask.settings.loading import load_recipe, written_values
from tagmask.settings.rules import Bounds, Rule, rules, suggestions

FACTS = DataFacts(images=60, classes=15, untagged=0.0, tags_per_image=1.2, long_side=320, imbalance=1.0)


@pytest.mark.parametrize("rule", [rule for rule in rules() if rule.value is not None], ids=lambda rule: rule.key)
def test_every_rule_sets_something_that_own_understands(rule: Rule) -> None:
    (only,) = suggestions(replace(FACTS, **{key: edge(bounds) for key, bounds in rule.when.items()}), [rule])
    recipe = load_recipe(shipped()["own"], ["data.format=table", only.override])
    value = recipe
    for key in rule.key.split("."):
        value = getattr(value, key)
    assert value == rule.value
    assert "{" not in only.reason


@pytest.mark.parametrize("rule", [rule for rule in rules() if rule.when], ids=lambda rule: rule.key)
def test_a_rule_holds_at_its_edge_and_not_beyond(rule: Rule) -> None:
    inside = {key: edge(bounds) for key, bounds in rule.when.items()}
    assert rule.holds(inside)
    for key, bounds in rule.when.items():
        beyond = edge(bounds) + (-0.5 if bounds.at_least is not None else 0.5)
        assert not rule.holds({**inside, key: beyond})


def edge(bounds: Bounds) -> float:
    return bounds.at_least if bounds.at_least is not None else float(bounds.at_most or 0)


def test_what_own_leaves_to_the_program_is_left_to_it() -> None:
    own = written_values(shipped()["own"])
    for rule in rules():
        value: Any = own
        for key in rule.key.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        assert rule.value is None or value != "auto", rule.key


def test_the_last_rule_for_a_key_counts() -> None:
    table = [
        Rule(key="classify.epochs", value=4, reason="first", measured="here"),
        Rule(key="classify.epochs", value=9, reason="{images} images", measured="here"),
        Rule(key="classify.epochs", when={"images": Bounds(at_least=61)}, value=2, reason="many", measured="here"),
    ]
    (only,) = suggestions(FACTS, table)
    assert (only.value, only.reason, only.override) == (9, "60 images", "classify.epochs=9")


def test_a_rule_without_a_figure_or_a_measurement_is_refused() -> None:
    with pytest.raises(ValidationError, match="no such figure"):
        Rule(key="seed", when={"size": Bounds(at_least=1)}, reason="x")
    with pytest.raises(ValidationError, match="measured"):
        Rule(key="seed", value=1, reason="x")
