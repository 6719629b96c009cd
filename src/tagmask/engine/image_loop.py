"""The loop over images that every image-wise stage shares: a stage supplies the work on one image, never a loop."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TypeVar

from tagmask.engine.engine import IMAGES_AT_ONCE, Engine
from tagmask.errors import RunError, TagmaskError
from tagmask.progress.listeners import Progress
from tagmask.types import Problem

Item = TypeVar("Item")
Result = TypeVar("Result")


def consume(
    results: Generator[Result, None, None],
    take: Callable[[Result], object],
    *,
    progress: Progress,
    description: str,
    total: int,
    done: int = 0,
) -> None:
    """Hand every result of :meth:`Engine.map` to ``take`` in this thread, and show how far it is.

    ``done`` of ``total`` were there before. The threads have ended when this returns or raises.
    """
    progress.start(description, total, done)
    with closing(results):
        for result in results:
            take(result)
            progress.advance(1)
    progress.finish()


def fold_images(
    engine: Engine,
    items: Sequence[Item],
    work: Callable[[Item], Result],
    take: Callable[[Result], object],
    *,
    progress: Progress,
    description: str,
) -> None:
    """Hand ``take`` the result of ``work`` on each item of this rank's share, in their order, in this thread.

    For results that are folded into something small as they come; :func:`gather_images` keeps them all.
    """
    share = engine.share(items)
    results = engine.map(work, share, at_once=IMAGES_AT_ONCE)
    consume(results, take, progress=progress, description=description, total=len(share))


def gather_images(
    engine: Engine,
    items: Sequence[Item],
    work: Callable[[Item], Result],
    *,
    progress: Progress,
    description: str,
) -> list[Result]:
    """Results of ``work`` on every item, in the order of ``items``, on every rank; each rank computes its share.

    All results are held in memory and cross between processes: small ones, such as one vector an image.
    """
    results: list[Result] = []
    fold_images(engine, items, work, results.append, progress=progress, description=description)
    parts = engine.gather(results)
    # Engine.share deals the items out in turn, so item i is number i // ranks of rank i % ranks.
    return [parts[index % len(parts)][index // len(parts)] for index in range(len(items))]


def process_images(
    engine: Engine,
    items: Sequence[Item],
    work: Callable[[Item], Problem | None],
    *,
    done: Callable[[Item], bool],
    progress: Progress,
    description: str,
    at_once: int = IMAGES_AT_ONCE,
) -> list[Problem]:
    """Run ``work`` on this rank's items that are not done; image-wise stages supply the work, not a loop.

    On a CPU up to ``at_once`` items are worked on at a time, in threads. Returns the problems of all ranks.

    Raises:
        RunError: every single item failed, or work raised it, on whichever rank.
    """
    share = engine.share(items)
    waiting = [item for item in share if not done(item)]
    outcomes: list[Problem | None] = []
    failure = ""
    results = engine.map(work, waiting, at_once=at_once)
    done_before = len(share) - len(waiting)
    try:
        consume(
            results, outcomes.append, progress=progress, description=description, total=len(share), done=done_before
        )
    except TagmaskError as error:  # the other ranks must hear of it, and the first one speaks for all
        if engine.fabric.world_size == 1:
            raise
        failure = str(error)
    problems = [problem for problem in outcomes if problem is not None]
    # Every rank comes here, whatever became of its share: a rank that left would let the others wait for it.
    failures = [text for text in engine.gather(failure) if text]
    if failures:
        raise RunError(failures[0])
    all_problems = [problem for part in engine.gather(problems) for problem in part]
    if items and sum(problem.left_out for problem in all_problems) == len(items):
        msg = f"{description}: all {len(items)} images failed; the first: {all_problems[0].reason}"
        raise RunError(msg)
    return all_problems
