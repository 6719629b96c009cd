"""Text lists without a header, one row a line: those of CUB-200-2011 and of wsolevaluation."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from tagmask.data.lists import read_lines
from tagmask.errors import DataError


def rows(path: Path, cells: int, separator: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of a list; empty lines are passed over.

    Args:
        path: the list.
        cells: how many there are at least in a line.
        separator: between cells; None: white space, where the last cell takes the rest of the line.

    Raises:
        DataError: missing or unreadable file, or a line with fewer cells; names the line.
    """
    for number, line in read_lines(path, remedy="Put it there, or correct data.root."):
        entries = line.split(None, cells - 1) if separator is None else _split(line, separator)
        if len(entries) < cells:
            msg = f"{path}: line {number} has {len(entries)} entries instead of {cells}: '{line[:80]}'"
            raise DataError(msg)
        yield number, [entry.strip() for entry in entries]


def _split(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator)) if '"' in line else line.split(separator)


def numbers(cells: Sequence[str], path: Path, line: int) -> list[float]:
    """Cells as finite numbers.

    Raises:
        DataError: one is none; names the line.
    """
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        values = [float("nan")]
    if not all(abs(value) < float("inf") for value in values):
        msg = f"{path}: line {line}: expected {len(cells)} numbers, got '{' '.join(cells)}'"
        raise DataError(msg)
    return values
