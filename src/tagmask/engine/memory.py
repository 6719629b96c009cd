"""Peak memory of one stretch of work."""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> bool:
    """Forget the process's peak; False where the system cannot (the peak then spans the whole process)."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_megabytes() -> float:
    """Largest resident size of this process since the last reset, in MiB; 0 where the system does not say."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    except OSError:
        pass  # no /proc: ask getrusage, which cannot be reset
    if resource is None:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
