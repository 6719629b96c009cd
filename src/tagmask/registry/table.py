"""The registry: finds every method by kind and name, resolves it when it is first used.

Each folder of ``tagmask.methods`` (and of ``tagmask.data``) declares what it holds in its ``__init__.py``; other
packages add theirs with :func:`register` or through the entry-point group ``tagmask.methods`` (entry-point name
``kind.name``). Nothing here imports a method's code, or torch, before it is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, get_args

from tagmask.errors import UnknownNameError, nearest
from tagmask.registry.declaration import Declaration, Kind

#: Packages whose folders declare methods. By name: they stand on higher floors, which import this one.
_HOMES = ("tagmask.data", "tagmask.methods")


class UnknownKind(UserWarning):
    """Another package offers a method of a kind that there is not."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a method lives ('module:attribute'), what it does in a line, its source, and its docs page."""

    where: str
    summary: str
    paper: str = ""
    page: str = ""


@cache
def _tables() -> dict[Kind, dict[str, Entry]]:
    """All methods by kind and name: the declared ones by their folders' names, then those of other packages."""
    tables: dict[Kind, dict[str, Entry]] = {kind: {} for kind in get_args(Kind)}
    for home in _HOMES:
        for folder in pkgutil.iter_modules(importlib.import_module(home).__path__):
            if not folder.ispkg:
                continue
            package = f"{home}.{folder.name}"
            declared: tuple[Declaration, ...] = getattr(importlib.import_module(package), "METHODS", ())
            for method in declared:
                where = f"{package}.{method.where}"
                tables[method.kind][method.name] = Entry(where, method.summary, method.paper, method.page)
    for point in entry_points(group="tagmask.methods"):
        kind, _, name = point.name.partition(".")
        if kind not in tables or not name:
            package = f" of {point.dist.name}" if point.dist else ""
            msg = f"entry point '{point.name}'{package}: not KIND.NAME of a known kind. {nearest(kind, tables)}"
            warnings.warn(msg, UnknownKind, stacklevel=2)
        else:
            # setdefault: another package cannot replace a method of the house without a word.
            summary = f"from {point.dist.name}" if point.dist else "from another package"
            tables[kind].setdefault(name, Entry(point.value, summary))
    return tables


def register(kind: Kind, name: str, where: str, *, summary: str = "", paper: str = "") -> None:
    """Add a method. ``where`` is 'module:attribute'; a name that is taken is an error."""
    table = _tables()[kind]
    if name in table and table[name].where != where:
        msg = f"{kind} '{name}' is already registered at {table[name].where}"
        raise ValueError(msg)
    table[name] = Entry(where, summary, paper)


def entries(kind: Kind) -> dict[str, Entry]:
    """All methods of a kind by name."""
    return dict(_tables()[kind])


def get(kind: Kind, name: str, *, where: str = "") -> Any:
    """The class behind a name; import errors of the method itself pass through untouched.

    Raises:
        UnknownNameError: no such method; the message offers the nearest right name.
    """
    table = _tables()[kind]
    if name not in table:
        raise UnknownNameError(kind, name, table, where)
    module, _, attribute = table[name].where.partition(":")
    return getattr(importlib.import_module(module), attribute)
