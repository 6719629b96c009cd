"""Loops that NumPy cannot say, as machine code.

Compiled once per machine; the result is kept beside the source file or in the user's cache directory, or in memory
when neither can be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[F], F]:
    """Decorator: numba's machine code of a function, which runs without the interpreter's lock.

    Args:
        options: what else ``numba.njit`` is to be told, such as ``fastmath``.
    """
    wanted: dict[str, Any] = {"nogil": True, "error_model": "numpy", **options}

    def compile_it(function: F) -> F:
        try:
            return cast(F, numba.njit(cache=True, **wanted)(function))
        except RuntimeError:  # no directory can be written
            return cast(F, numba.njit(**wanted)(function))

    return compile_it
