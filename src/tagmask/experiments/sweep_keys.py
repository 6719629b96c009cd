"""What a sweep is asked for: keys of the recipe with the values that each takes, as texts of YAML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tagmask.errors import InputError, RecipeError

_BRACKETS = {"(": ")", "[": "]", "{": "}"}


def parse_grid(grid: Sequence[str] | Mapping[str, Sequence[Any]]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Swept keys with their values as YAML texts, and the overrides with one value only.

    Raises:
        RecipeError: not ``key=value``, an empty item, or a key that stands twice.
        InputError: no key has several values.
    """
    keys: dict[str, tuple[str, ...]] = {}
    fixed: list[str] = []
    earlier_keys: set[str] = set()
    for key, texts in _entries(grid):
        if key in earlier_keys:
            msg = f"'{key}' stands twice; write all its values once, such as {key}={','.join(texts)}"
            raise RecipeError(msg)
        earlier_keys.add(key)
        values = tuple(dict.fromkeys(texts))
        if len(values) > 1:
            keys[key] = values
        else:
            fixed.append(f"{key}={values[0]}")
    if not keys:
        msg = "nothing to sweep: give a key several values, such as seed=0,1,2 or localize.scales=[1.0],[1.0,1.5]"
        raise InputError(msg)
    return keys, fixed


def _entries(grid: Sequence[str] | Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, list[str]]]:
    if isinstance(grid, Mapping):
        for key, values in grid.items():
            items_of_key = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
            if not items_of_key:
                msg = f"'{key}' has no value"
                raise RecipeError(msg)
            yield str(key), [_yaml_text(value) for value in items_of_key]
        return
    for text in grid:
        key, equals, values_text = text.partition("=")
        items = split_values(values_text)
        if not equals or not key.strip() or (len(items) > 1 and "" in items):
            msg = f"'{text}' is not key=a,b,c; write for example classify.epochs=3,5 (no spaces, no empty item)"
            raise RecipeError(msg)
        yield key.strip(), items


def _yaml_text(value: Any) -> str:
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, tuple):
        value = list(value)
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("...\n").strip()


def split_values(text: str) -> list[str]:
    """Items between commas that stand outside of brackets and quotes: '[4,5],[5]' -> ['[4,5]', '[5]']."""
    items, closing, quote = [""], [], ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in _BRACKETS:
            closing.append(_BRACKETS[char])
        elif closing and char == closing[-1]:
            closing.pop()
        elif char == "," and not closing:
            items.append("")
            continue
        items[-1] += char
    return [item.strip() for item in items]


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Each dotted key with its shortest end that no other key has: {'localize.mu_f': 'mu_f', 'seed': 'seed'}."""
    names = list(keys)
    short = {}
    for name in names:
        parts = name.split(".")
        ends = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
        others = [other for other in names if other != name]
        short[name] = next(
            (end for end in ends if not any(other == end or other.endswith(f".{end}") for other in others)), name
        )
    return short
