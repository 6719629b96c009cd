"""What a method's folder says of itself, in its ``__init__.py``, without loading any of its code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Name of the file that holds a method of this kind. The kind ``data`` has its sources in ``tagmask.data``.
Kind = Literal["data", "head", "localizer", "refiner", "network", "loss", "saliency"]


@dataclass(frozen=True, slots=True)
class Declaration:
    """One registered method.

    Args:
        kind: what it is for the pipeline; the file that holds it is named after it.
        name: what recipes call it.
        where: ``file:Class``, the file without suffix, inside the folder that declares it.
        summary: what it does, in a line without a full stop.
        paper: its source as 'Authors, venue and year'; empty: ours, or a data layout.
        page: its page below ``docs/``.
    """

    kind: Kind
    name: str
    where: str
    summary: str
    paper: str = ""
    page: str = ""
