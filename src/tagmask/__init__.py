"""tagmask: image-level tags in, segmentation masks out.

Importing the package does nothing; each public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tagmask.comparison import Comparison, compare
    from tagmask.grid import Sweep, sweep
    from tagmask.predictor import Predictor, load
    from tagmask.recipe import Recipe, load_recipe
    from tagmask.street import Run, run

    __version__: str

__all__ = [
    "Comparison",
    "Predictor",
    "Recipe",
    "Run",
    "Sweep",
    "__version__",
    "compare",
    "load",
    "load_recipe",
    "run",
    "sweep",
]

_PUBLIC = {
    "Comparison": "tagmask.comparison",
    "Predictor": "tagmask.predictor",
    "Recipe": "tagmask.recipe",
    "Run": "tagmask.street",
    "Sweep": "tagmask.grid",
    "compare": "tagmask.comparison",
    "load": "tagmask.predictor",
    "load_recipe": "tagmask.recipe",
    "run": "tagmask.street",
    "sweep": "tagmask.grid",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # Read here and not on import: looking up installed metadata takes longer than all the rest.
        value: Any = _version()
    elif name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    else:
        msg = f"module 'tagmask' has no attribute '{name}'"
        raise AttributeError(msg)
    globals()[name] = value
    return value


def _version() -> str:
    metadata = importlib.import_module("importlib.metadata")
    try:
        return str(metadata.version("tagmask"))
    except metadata.PackageNotFoundError:
        return "0+source"  # a source tree on the path that was never installed


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
