"""A recipe as YAML with a comment behind each setting that has one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

_KEY = re.compile(r" *(?P<key>[\w.]+):(?: |$)")


def annotated_lines(values: Mapping[str, Any], comments: Mapping[str, str]) -> Iterator[str]:
    """Lines of YAML, one setting a line; ``comments`` by dotted key, those of settings that are not there left out."""
    text = yaml.dump(dict(values), Dumper=_Blocks, sort_keys=False, allow_unicode=True, width=10_000)
    for key, line in _keyed(text):
        yield f"{line}  # {comments[key]}" if key in comments else line


class _Blocks(yaml.SafeDumper):  # type: ignore[misc]
    """A key a line, so that each has room for its comment; lists of plain values in one line."""


def _list(dumper: _Blocks, value: list[Any]) -> Any:
    plain = not any(isinstance(item, dict | list) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=plain)


_Blocks.add_representer(list, _list)
# Texts of a recipe remember their folder, which is no part of what is written.
_Blocks.add_multi_representer(str, lambda dumper, value: dumper.represent_str(str(value)))


def _keyed(text: str) -> Iterator[tuple[str, str]]:
    """The lines of block-style YAML, each with its dotted key; items of lists have none."""
    above: list[tuple[int, str]] = []
    list_indent: int | None = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if line.lstrip().startswith("- "):
            list_indent = indent if list_indent is None else min(indent, list_indent)
        elif list_indent is not None and indent <= list_indent:
            list_indent = None
        match = _KEY.match(line)
        if match is None or list_indent is not None:
            yield "", line
            continue
        above = [*(entry for entry in above if entry[0] < indent), (indent, match["key"])]
        yield ".".join(key for _, key in above), line
