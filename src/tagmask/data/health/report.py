"""What a check of a data source found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tagmask.data.health.text import health_lines
from tagmask.types import Problem


@dataclass(frozen=True)
class SizeRange:
    """Smallest, median and largest of heights and widths (each side on its own), in pixels."""

    height: tuple[int, int, int]
    width: tuple[int, int, int]
    distinct: int


@dataclass(frozen=True)
class HealthReport:
    """All findings. ``co_occurrence[i][j]`` counts the images with both foreground classes i and j (their own
    counts on the diagonal), over all splits. ``duplicates`` are groups of ids with the same file content,
    ``near_duplicates`` groups of ids whose pictures are nearly the same, ``mask_doubts`` sentences on masks that
    contradict the tags, ``dark`` ids of images that are all but black, ``pixels`` how values are read that are not of 8
    bits in colour.
    """

    format: str
    classes: tuple[str, ...]
    images: dict[str, int]
    class_counts: dict[str, dict[str, int]]
    co_occurrence: tuple[tuple[int, ...], ...]
    untagged: dict[str, int]
    sizes: SizeRange | None
    unreadable: tuple[Problem, ...]
    broken_masks: tuple[Problem, ...]
    missing_masks: dict[str, int] | None
    duplicates: tuple[tuple[str, ...], ...]
    problems: tuple[Problem, ...]
    mask_doubts: tuple[str, ...] = ()
    dark: tuple[str, ...] = ()
    pixels: str = ""
    near_duplicates: tuple[tuple[str, ...], ...] = ()
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and texts: ready for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report as a plain-text table, one entry per line."""
        return health_lines(self)
