"""Items shared out to worker processes; a process that ends before its item is done is an error that names the item.

Unlike a pool of the standard library, which only says that it is broken, each process has its own connection, so it is
known which item it held.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from tagmask.errors import RunError

Item = TypeVar("Item")
Result = TypeVar("Result")
_PATIENCE = 5.0  # seconds for a process to end by itself


def available_cores() -> int:
    """Processors that this process may use: a container or ``taskset`` may grant fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS, Windows


@dataclass
class _Worker(Generic[Item]):
    process: BaseProcess
    connection: Connection
    item: Item | None = None


def map_in_processes(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    *,
    name: Callable[[Item], str] = str,
    initializer: Callable[[], None] | None = None,
) -> Generator[Result, None, None]:
    """Results of ``work`` as they come, in any order.

    With one worker the items are worked on here. Otherwise ``work`` and the items go to new interpreters: they must be
    picklable, and a script that calls this needs ``if __name__ == "__main__":``.

    Args:
        work: called with one item at a time.
        items: what is to be done.
        workers: processes, at least 1.
        name: what errors call an item.
        initializer: called in every process first; not with one worker.

    Raises:
        RunError: ``work`` failed, or a process ended (killed for memory, say); names the item. The others are ended.
    """
    if workers <= 1 or len(items) <= 1:
        for item in items:
            try:
                result = work(item)
            except Exception as error:
                raise _error_of(name(item), f"{type(error).__name__}: {error}") from error
            yield result
        return
    crew: list[_Worker[Item]] = []
    try:
        crew = [_start(work, initializer) for _ in range(min(workers, len(items)))]
        yield from _share_out(crew, items, name)
    finally:
        for worker in crew:
            worker.connection.close()  # the process sees the end of its orders
            # One that is still busy would first finish an item that nobody waits for.
            if worker.item is not None:
                worker.process.terminate()
        for worker in crew:
            worker.process.join(_PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _share_out(
    crew: list[_Worker[Item]], items: Sequence[Item], name: Callable[[Item], str]
) -> Generator[Any, None, None]:
    waiting = list(reversed(items))
    for worker in crew:
        _give(worker, waiting.pop(), name)
    while busy := {worker.connection: worker for worker in crew if worker.item is not None}:
        for ready in wait(list(busy)):
            worker = busy[ready]  # type: ignore[index]
            assert worker.item is not None
            try:
                succeeded, result = worker.connection.recv()
            except (EOFError, OSError) as error:
                raise _exit_error(worker, name) from error
            if not succeeded:
                raise _error_of(name(worker.item), result)
            worker.item = None
            if waiting:
                _give(worker, waiting.pop(), name)
            yield result


def _give(worker: _Worker[Item], item: Item, name: Callable[[Item], str]) -> None:
    worker.item = item
    try:
        worker.connection.send(item)
    except OSError as error:
        raise _exit_error(worker, name) from error


def _start(work: Callable[[Item], Any], initializer: Callable[[], None] | None) -> _Worker[Item]:
    context = multiprocessing.get_context("spawn")  # a copy of a process with threads may hang
    parent_end, child_end = context.Pipe()
    process = context.Process(target=_serve, args=(child_end, work, initializer), daemon=True)
    process.start()
    child_end.close()
    return _Worker(process, parent_end)


def _serve(connection: Connection, work: Callable[[Any], Any], initializer: Callable[[], None] | None) -> None:
    """The life of a process: items in, results out, until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if initializer is not None:
        initializer()
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            answer = (True, work(item))
        except Exception as error:
            answer = (False, f"{type(error).__name__}: {error}")
        try:
            connection.send(answer)
        except OSError:  # the parent is gone
            return


def _exit_error(worker: _Worker[Item], name: Callable[[Item], str]) -> RunError:
    item, worker.item = worker.item, None
    assert item is not None
    worker.process.join(_PATIENCE)
    code = worker.process.exitcode
    if code is not None and code < 0:
        why = f"was killed by signal {-code}"
        why += " (often for memory: use fewer workers)" if -code == getattr(signal, "SIGKILL", None) else ""
    else:
        why = f"ended with exit code {code}"
    return _error_of(name(item), f"its worker process {why}")


def _error_of(name: str, reason: str) -> RunError:
    return RunError(f"{name}: {reason}. What was finished is kept; start again to go on.")
