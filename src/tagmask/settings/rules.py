"""Settings that follow from the data, by the table of rules in ``rules.yaml``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Annotated, Any

import yaml
from pydantic import Field, field_validator, model_validator

from tagmask.data.facts import DataFacts
from tagmask.settings.base import Settings

Scalar = bool | int | float | str


class Bounds(Settings):
    """What a figure must be: at least one number, at most another."""

    at_least: float | None = None
    at_most: float | None = None

    def hold(self, figure: float) -> bool:
        """Whether a figure is within the bounds, which belong to them."""
        above = self.at_least is None or figure >= self.at_least
        return above and (self.at_most is None or figure <= self.at_most)


class Rule(Settings):
    """One rule of the table: under which condition which setting has which value, and why."""

    key: Annotated[str, Field(pattern=r"^\w+(\.\w+)*$")]
    when: dict[str, Bounds] = Field(default_factory=dict)
    value: Scalar | list[Scalar] | None = None
    reason: str
    measured: str | None = None

    @field_validator("when")
    @classmethod
    def _of_figures(cls, when: dict[str, Bounds]) -> dict[str, Bounds]:
        unknown = when.keys() - DataFacts.__dataclass_fields__.keys()
        if unknown:
            msg = f"no such figure of the data: {', '.join(sorted(unknown))}"
            raise ValueError(msg)
        return when

    @model_validator(mode="after")
    def _measured(self) -> Rule:
        if self.value is not None and not self.measured:
            msg = f"{self.key}: a rule that sets something says where it was measured"
            raise ValueError(msg)
        return self

    def holds(self, figures: Mapping[str, float]) -> bool:
        """Whether all conditions hold."""
        return all(bounds.hold(figures[name]) for name, bounds in self.when.items())


@dataclass(frozen=True)
class Suggestion:
    """A setting with its reason; ``value`` None: as in the recipe."""

    key: str
    value: Any
    reason: str

    @property
    def override(self) -> str:
        """As it is written on the command line."""
        return f"{self.key}={json.dumps(self.value)}"


@cache
def rules() -> tuple[Rule, ...]:
    """The table, in the order of its file."""
    text = (resources.files("tagmask.settings") / "rules.yaml").read_text(encoding="utf-8")
    return tuple(Rule.model_validate(item) for item in yaml.safe_load(text))


def suggestions(facts: DataFacts, table: Sequence[Rule] | None = None) -> list[Suggestion]:
    """What the rules that hold say about a data set; of several for one key the last one counts.

    Args:
        facts: figures of the data.
        table: the rules; those of ``rules.yaml`` by default.
    """
    figures = asdict(facts)
    by_key = {
        rule.key: Suggestion(rule.key, rule.value, rule.reason.format(**figures))
        for rule in (rules() if table is None else table)
        if rule.holds(figures)
    }
    return list(by_key.values())
