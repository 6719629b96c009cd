"""Names of the stages and of what each leaves: they are folders of a run directory, keys of its manifest, and words of
the command line. What stages there are, in which order, is in :mod:`tagmask.stages.table`.
"""

from __future__ import annotations

CLASSIFY, LOCALIZE, REFINE, SALIENCY = "classify", "localize", "refine", "saliency"
SEGMENT, SEGMENT_FULL, EVALUATE, REPORT = "segment", "segment/full", "evaluate", "report"

#: The trained network of a stage, in its folder.
MODEL = "model.safetensors"

#: Stages that may be done several times: classify/2, ... (retrainings), segment/2, ... (rounds of self-training).
REPEATED = (CLASSIFY, SEGMENT)


def family(stage: str) -> str:
    """'classify' for 'classify/2'; every other stage is its own."""
    first, _, number = stage.partition("/")
    return first if number.isdecimal() else stage


def is_stage(stage: str, folder: str) -> bool:
    """Whether a folder inside a stage's is a stage of its own: segment/full, segment/2, classify/2, ..."""
    return f"{stage}/{folder}" == SEGMENT_FULL or (stage in REPEATED and folder.isdecimal())
