"""The version of the installed package."""

from __future__ import annotations


def version() -> str:
    """As the installed metadata says; '0+source' for a source tree on the path that was never installed."""
    from importlib import metadata  # not on import: looking it up takes longer than all the rest

    try:
        return metadata.version("tagmask")
    except metadata.PackageNotFoundError:
        return "0+source"
