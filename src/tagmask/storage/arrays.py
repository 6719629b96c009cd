"""Arrays in npz files, without pickle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tagmask.errors import RunError
from tagmask.storage.files import atomic_write
from tagmask.types import UInt8Array

SCHEMA = 1


@contextmanager
def stored_arrays(path: Path, what: str = "maps") -> Iterator[Any]:
    """The arrays of an npz file; a broken one is a RunError that names it."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            yield stored
    except Exception as error:  # a torn zip raises nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"{path}: not a readable {what} file ({reason}). Delete it and run again."
        raise RunError(msg) from error


def save_planes(path: Path, planes: UInt8Array) -> None:
    """Store uint8 [P, H, W] as compressed npz without pickle."""
    with atomic_write(path) as stream:
        np.savez_compressed(stream, schema=np.int64(SCHEMA), planes=planes)


def load_planes(path: Path) -> UInt8Array:
    """Read a file written by :func:`save_planes`; a broken one is a RunError that names it."""
    with stored_arrays(path, "planes") as stored:
        return np.asarray(stored["planes"], dtype=np.uint8)
