"""Tag names out of one value: text, list, or the nested objects that annotation tools write."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tagmask.data.table.columns import cell_text, plain_name
from tagmask.data.table.usual_names import OFF, ON, TAGS_COLUMNS, UNSURE

_LONGEST_TEXT = 20_000


def tag_names(value: Any, separator: str) -> tuple[str, ...]:
    """Names in a value, in order, without blanks around them; empty ones are none.

    A list gives its entries, a text is split at ``separator``; a text that is a list or object of JSON (or Python, as
    pandas writes lists into CSV) is read as that. An object gives the names under its usual keys ('label',
    'rectanglelabels', ...), or, where its values say yes or no, the keys that say yes.
    """
    return tuple(_names(value, separator))


def _names(value: Any, separator: str) -> Iterator[str]:
    if isinstance(value, str):
        nested = _literal(value)
        if nested is not None:
            yield from _names(nested, "")
        else:
            yield from filter(None, (name.strip() for name in (value.split(separator) if separator else [value])))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _names(item, "")
    elif isinstance(value, Mapping):
        yield from _from_object(value)
    elif text := cell_text(value):
        yield text


def _from_object(value: Mapping[Any, Any]) -> Iterator[str]:
    by_name = {plain_name(str(key)): item for key, item in value.items()}
    usual = [name for name in TAGS_COLUMNS if name in by_name] or [
        name for name in by_name if name.endswith(("labels", "choices"))
    ]
    if usual:
        yield from _names(by_name[usual[0]], "")
    elif value and all(is_switch(item) for item in value.values()):
        yield from (str(key).strip() for key, item in value.items() if cell_text(item).casefold() in ON)
    elif isinstance(value.get("name"), str):
        yield value["name"].strip()


def is_switch(value: Any) -> bool:
    """Whether a value says yes or no (or that nobody knows)."""
    return not isinstance(value, list | tuple | Mapping) and cell_text(value).casefold() in (ON | OFF | UNSURE)


def _literal(text: str) -> Any:
    """The list or object that a text writes out, None where it writes none."""
    text = text.strip()
    if len(text) > _LONGEST_TEXT or (text[:1] + text[-1:]) not in ("[]", "{}"):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(value, list | tuple | Mapping):
            return value
    return None
