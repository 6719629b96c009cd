"""The table of stages: their order, who does them, which of them see the truth, and what each leaves."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from tagmask.runs import stage_names as names
from tagmask.runs.context import Context
from tagmask.runs.stage_names import MODEL, family
from tagmask.types import Problem


@dataclass(frozen=True)
class StageKind:
    """One row.

    Args:
        name: of the stage, and of its folder in the run directory.
        work: 'module:function' below ``tagmask.stages``, called with the context and the stage's name; the module is
            loaded when the stage is done.
        leaves: what a finished one has in its folder, as file names, ``ID`` for each image's.
        sees_truth: whether its view of the data can open masks and boxes. No other can.
    """

    name: str
    work: str
    leaves: tuple[str, ...]
    sees_truth: bool = False

    def run(self, context: Context, stage: str) -> list[Problem]:
        """Do it; ``stage`` is its name, or that of a repetition."""
        module, _, function = self.work.partition(":")
        work: Callable[[Context, str], list[Problem]]
        work = getattr(importlib.import_module(f"tagmask.stages.{module}"), function)
        return work(context, stage)


TABLE = (
    StageKind(names.CLASSIFY, "classify.stage:run", (MODEL, "history.jsonl")),
    StageKind(names.LOCALIZE, "localize.stage:run", ("maps/ID.npz",)),
    StageKind(names.REFINE, "refine.stage:run", ("thresholds.json", "masks/ID.png", "masks.json")),
    StageKind(names.SALIENCY, "saliency.stage:run", ("maps/ID.png",)),
    StageKind(names.SEGMENT, "segment.stage:run", (MODEL, "history.jsonl", "predictions/ID.png")),
    StageKind(names.SEGMENT_FULL, "segment.stage:run", (MODEL, "history.jsonl", "predictions/ID.png"), sees_truth=True),
    StageKind(names.EVALUATE, "evaluate.stage:run", ("../metrics.json",), sees_truth=True),
)
#: In the order of a run; the report is written behind the last stage.
STAGES = (*(kind.name for kind in TABLE), names.REPORT)


def kind_of(stage: str) -> StageKind:
    """The row of a stage or of a repetition ('classify/2')."""
    return next(kind for kind in TABLE if kind.name == family(stage))


def sees_truth(stage: str) -> bool:
    """Whether a stage's view of the data can open masks and boxes."""
    return kind_of(stage).sees_truth
