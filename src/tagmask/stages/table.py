"""The table of stages: their names and order, which of them see the truth, and what each leaves."""

from __future__ import annotations

SEE_TRUTH = ("segment/full", "evaluate")  # the only stages whose source can open masks


# And classify/2, ..., segment/2, ...
STAGES = ("classify", "localize", "refine", "saliency", "segment", "segment/full", "evaluate", "report")


def family(stage: str) -> str:
    """'classify' for 'classify/2'; every other stage is its own."""
    return stage if stage in STAGES else stage.partition("/")[0]
