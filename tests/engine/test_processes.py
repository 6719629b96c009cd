"""Worker processes: every result once, and a process that dies is an error that names what it held."""

from __future__ import annotations

import os
import signal

import pytest

from tagmask.engine.processes import map_in_processes
from tagmask.errors import RunError


def square(x: int) -> int:
    return x * x


def fragile(x: int) -> int:
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if x == 4:
        os._exit(7)
    if x == 5:
        raise OSError("the disk is gone")
    return x


@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_once(workers: int) -> None:
    assert sorted(map_in_processes(square, range(7), workers)) == [x * x for x in range(7)]
    assert list(map_in_processes(square, [], workers)) == []


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (3, r"image 3: its worker process was killed by signal 9 \(often for memory"),
        (4, "image 4: its worker process ended with exit code 7"),
        (5, "image 5: OSError: the disk is gone"),
    ],
)
def test_the_item_of_a_process_that_ends_is_named(x: int, why: str) -> None:
    with pytest.raises(RunError, match=why):
        list(map_in_processes(fragile, [0, 1, x, 2], 2, name=lambda x: f"image {x}"))


def test_an_error_here_names_the_item_too() -> None:
    with pytest.raises(RunError, match="5: OSError: the disk is gone"):
        list(map_in_processes(fragile, [1, 5], 1))
