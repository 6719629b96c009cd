"""The loop of the evaluate stage over images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tagmask.engine.image_loop import consume
from tagmask.runs.context import Context
from tagmask.types import Problem, Sample

Counted = TypeVar("Counted")


def count_each(
    context: Context,
    samples: Sequence[Sample],
    work: Callable[[Sample], Counted | Problem],
    add: Callable[[Counted], object],
    problems: list[Problem],
    *,
    description: str,
) -> None:
    """Count images, several at a time whatever the device, for this is work for the CPU.

    Args:
        context: of the stage.
        samples: the images.
        work: counts one image, in a thread.
        add: takes what was counted, in order, in this thread.
        problems: takes the images that could not be counted.
        description: shown while it goes on.
    """

    def take(outcome: Counted | Problem) -> None:
        if isinstance(outcome, Problem):
            problems.append(outcome)
        else:
            add(outcome)

    results = context.engine.map_in_threads(work, samples)
    consume(results, take, progress=context.progress, description=description, total=len(samples))
