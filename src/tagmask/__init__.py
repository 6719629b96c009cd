"""tagmask: image-level tags in, segmentation masks out.

Importing the package does nothing; each public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tagmask.experiments.compare import Comparison, compare
    from tagmask.experiments.doubts import TagDoubts, doubts
    from tagmask.experiments.sweep import Sweep, sweep
    from tagmask.pipeline.execute import run
    from tagmask.predict.predictor import Predictor, load
    from tagmask.runs.run import Run
    from tagmask.settings.loading import Recipe, load_recipe

    __version__: str

__all__ = [
    "Comparison",
    "Predictor",
    "Recipe",
    "Run",
    "Sweep",
    "TagDoubts",
    "__version__",
    "compare",
    "doubts",
    "load",
    "load_recipe",
    "run",
    "sweep",
]

_PUBLIC = {
    "Comparison": "tagmask.experiments.compare",
    "Predictor": "tagmask.predict.predictor",
    "Recipe": "tagmask.settings.loading",
    "Run": "tagmask.runs.run",
    "Sweep": "tagmask.experiments.sweep",
    "TagDoubts": "tagmask.experiments.doubts",
    "compare": "tagmask.experiments.compare",
    "doubts": "tagmask.experiments.doubts",
    "load": "tagmask.predict.predictor",
    "load_recipe": "tagmask.settings.loading",
    "run": "tagmask.pipeline.execute",
    "sweep": "tagmask.experiments.sweep",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.import_module("tagmask.version").version()
    elif name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    else:
        msg = f"module 'tagmask' has no attribute '{name}'"
        raise AttributeError(msg)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
