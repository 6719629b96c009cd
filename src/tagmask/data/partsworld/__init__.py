"""The embedded procedural data set."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "data", "partsworld", "source:PartsWorldSource", "the embedded procedural data set", page="partsworld.md"
    ),
)
