"""Arrays in npz files, without pickle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.errors import RunError
from tagmask.storage.files import atomic_write
from tagmask.types import FloatArray, UInt8Array

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


#: Steps between 0 and 1 of maps that are kept at full size: labels then differ in 0.03 % of the pixels at most.
_LEVELS = 4095


def differences(maps: FloatArray) -> NDArray[np.int16]:
    """Maps [K, H, W] in [0, 1] as whole numbers that compress well, int16 [K, H, W].

    The differences of neighbours, along rows and then along columns, in steps of 1/4095: most are near 0.
    """
    # Nothing that is positive becomes 0: at the threshold 0 it is an object.
    steps = np.maximum(np.rint(maps.clip(0, 1) * _LEVELS), maps > 0).astype(np.int32)
    along_rows = np.diff(steps, axis=2, prepend=0)
    result: NDArray[np.int16] = np.diff(along_rows, axis=1, prepend=0).astype(np.int16)
    return result


def summed(steps: NDArray[np.int16]) -> FloatArray:
    """The maps, float32 [K, H, W] in [0, 1], of their :func:`differences`."""
    levels = steps.astype(np.int32).cumsum(axis=1, dtype=np.int32).cumsum(axis=2, dtype=np.int32)
    return levels.astype(np.float32) / np.float32(_LEVELS)


def save_planes(path: Path, planes: UInt8Array) -> None:
    """Store uint8 [P, H, W] as compressed npz without pickle."""
    with atomic_write(path) as stream:
        np.savez_compressed(stream, schema=np.int64(SCHEMA), planes=planes)


def load_planes(path: Path) -> UInt8Array:
    """Read a file written by :func:`save_planes`; a broken one is a RunError that names it."""
    with stored_arrays(path, "planes") as stored:
        return np.asarray(stored["planes"], dtype=np.uint8)
