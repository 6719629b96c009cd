"""Whether batches fit into the memory that loader processes share; containers have 64 MB of it by default."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

PLACE = Path("/dev/shm")
_PREFETCHED = 2  # batches that torch's loader keeps ready for each of its processes


def loader_bytes(item: Mapping[str, Tensor], batch_size: int, workers: int) -> int:
    """Bytes of all batches that are under way at once, of inputs as large as this one."""
    one = sum(value.numel() * value.element_size() for value in item.values())
    return one * batch_size * (_PREFETCHED * workers + 1)


def free_bytes() -> int | None:
    """Shared memory that is free; None where the system does not say."""
    try:
        return shutil.disk_usage(PLACE).free
    except OSError:
        return None
