"""Text lists without a header, one row a line: those of CUB-200-2011 and of wsolevaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

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
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        msg = f"{path}: no such list. Put it there, or correct data.root."
        raise DataError(msg) from error
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read as UTF-8 text ({error})"
        raise DataError(msg) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        found = line.split(None, cells - 1) if separator is None else line.split(separator)
        if len(found) < cells:
            msg = f"{path}: line {number} has {len(found)} entries instead of {cells}: '{line.strip()[:80]}'"
            raise DataError(msg)
        yield number, [cell.strip() for cell in found]


def numbers(cells: Sequence[str], path: Path, line: int) -> list[float]:
    """Cells as finite numbers.

    Raises:
        DataError: one is none; names the line.
    """
    try:
        found = [float(cell) for cell in cells]
    except ValueError:
        found = [float("nan")]
    if not all(abs(value) < float("inf") for value in found):
        msg = f"{path}: line {line}: expected {len(cells)} numbers, got '{' '.join(cells)}'"
        raise DataError(msg)
    return found
