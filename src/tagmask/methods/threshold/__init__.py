"""Background thresholds, fixed or chosen without masks."""

from tagmask.registry import Declaration

METHODS = (
    Declaration(
        "refiner",
        "threshold",
        "refiner:Threshold",
        "one background threshold, fixed or chosen without any mask ('auto')",
        page="methods/threshold.md",
    ),
)
