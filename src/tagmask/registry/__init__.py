"""Methods by kind and name: how they declare themselves, how they are found, and how recipes hold their settings."""

from tagmask.registry.declaration import Declaration, Kind
from tagmask.registry.table import Entry, entries, get, register

__all__ = ["Declaration", "Entry", "Kind", "entries", "get", "register"]
