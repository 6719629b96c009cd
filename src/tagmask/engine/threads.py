"""Several items at a time in threads, results in order: the loop behind every stage that walks over images.

Threads, not processes: the work is in torch, NumPy and image decoders, which release the interpreter's lock, and the
model is shared instead of copied. In order, so that sums over results and lists of problems do not depend on which
thread was faster.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    *,
    initializer: Callable[..., Any] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Generator[Result, None, None]:
    """Results of ``work`` in the order of ``items``, at most ``workers`` + 1 of them waiting.

    Args:
        work: called in threads; its error ends the loop.
        items: walked as the results are taken.
        workers: threads, at least 1.
        initializer: called with ``arguments`` in each thread first.
        arguments: of the initializer.
    """
    pool = ThreadPoolExecutor(workers, initializer=initializer, initargs=arguments)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            # Only so far ahead: a million images must not become a million futures, each holding its result.
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
