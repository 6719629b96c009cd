"""Functions compiled to machine code when first called.

Compiled once per machine; the result is kept beside the files or in the user's cache directory, or in memory when
neither can be written. Compiled functions release the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """A product and a sum may be rounded once (as a fused operation), which differs between processors."""
    return _compiled(function, {"contract", "nsz"})


def compiled_as_written(function: F) -> F:
    """Every operation rounds, so results are the same on every processor."""
    return _compiled(function, set())


def _compiled(function: F, fast: set[str]) -> F:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fast or False}
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # no directory can be written
        return cast(F, numba.njit(**options)(function))
