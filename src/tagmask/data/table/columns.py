"""Named columns out of a table, whatever program wrote it: text, Excel, Parquet, JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tagmask.data.files import has_image_suffix
from tagmask.data.table.usual_names import IMAGE_COLUMNS, MASK_COLUMNS, SPLIT_COLUMNS, TAGS_COLUMNS
from tagmask.errors import DataError, UnknownNameError
from tagmask.types import Problem

IsImage = Callable[[str], bool]
_ROWS_TO_JUDGE = 50
_USUAL = frozenset({*IMAGE_COLUMNS, *TAGS_COLUMNS, *SPLIT_COLUMNS, *MASK_COLUMNS})


@dataclass(frozen=True)
class Columns:
    """A table by column. ``lines[i]`` is the line (text) or row number of entry i, counted from 1.

    ``named`` is False where the table has no header: its columns are then called 'column 1', 'column 2', ...
    """

    path: Path
    values: dict[str, list[Any]]
    lines: list[int]
    problems: tuple[Problem, ...] = ()
    named: bool = True

    def column(self, name: str) -> list[Any]:
        """One column; raises UnknownNameError with the nearest name."""
        if name not in self.values:
            raise UnknownNameError("column", name, self.values, str(self.path))
        return self.values[name]

    def usual(self, names: Sequence[str]) -> list[str]:
        """Columns with one of some usual names, in the order of those names (see :func:`plain_name`)."""
        known = {plain_name(name): name for name in reversed(self.values)}
        return [known[name] for name in names if name in known]


def plain_name(name: str) -> str:
    """A column's name without case, blanks and punctuation: 'File Name' and 'file_name' are one."""
    return re.sub(r"[\W_]+", "", name.casefold())


@dataclass
class ColumnBuilder:
    """Rows of cells to columns: the first row names them, unless it holds an image already."""

    path: Path
    is_image: IsImage = has_image_suffix
    remedy: str = ""
    problems: list[Problem] = field(default_factory=list)

    def build(self, rows: Iterable[tuple[int, Sequence[Any]]]) -> Columns:
        """Columns of rows with their line numbers; a row of another width is left out and listed.

        Raises:
            DataError: no row at all, or two columns of one name.
        """
        numbered = iter(rows)
        beginning = list(islice(numbered, _ROWS_TO_JUDGE))
        if not beginning:
            msg = f"{self.path}: is empty. Its first line must name the columns, for example 'image,tags'."
            raise DataError(msg)
        first, named = beginning[0][1], self._has_header([cells for _, cells in beginning])
        header = self._header(first) if named else [f"column {place}" for place in range(1, len(first) + 1)]
        values: dict[str, list[Any]] = {name: [] for name in header}
        columns, lines = list(values.values()), list[int]()
        # 'image,tags' above 'a.jpg,cow,dog': whoever wrote this meant two tags and forgot the quotes.
        takes_more, n_wider = named and plain_name(header[-1]) in TAGS_COLUMNS, 0
        for line, cells in chain(beginning[named:], numbered):
            more = [cell for cell in cells[len(header) :] if cell_text(cell)]
            if more and takes_more:
                n_wider += 1
                cells = [*cells[: len(header) - 1], [cell_text(cells[len(header) - 1]), *map(cell_text, more)]]
            elif len(cells) < len(header) or more:
                reason = f"line {line} has {len(cells)} cells, the first has {len(header)}: row left out.{self.remedy}"
                self.problems.append(Problem("data", cell_text(cells[0]) if cells else "", str(self.path), reason))
                continue
            self._append(columns, lines, line, cells)
        if n_wider:
            reason = (
                f"{n_wider} rows have more cells than the header: they are read as further entries of '{header[-1]}'"
            )
            self.problems.append(Problem("data", "", str(self.path), reason, left_out=False))
        return Columns(self.path, values, lines, tuple(self.problems), named)

    def _has_header(self, rows: Sequence[Sequence[Any]]) -> bool:
        """No header: the first cell of a column is an image, as those below it are."""
        first, *others = rows
        for place, cell in enumerate(first):
            text = cell_text(cell)
            if not self.is_image(text) or (plain_name(text) in _USUAL and not has_image_suffix(text)):
                continue
            below = [cell_text(cells[place]) for cells in others if place < len(cells)]
            if 2 * sum(self.is_image(name) for name in below) >= len(below):
                return False
        return True

    @staticmethod
    def _append(columns: list[list[Any]], lines: list[int], line: int, cells: Sequence[Any]) -> None:
        lines.append(line)
        for column, cell in zip(columns, cells, strict=False):
            column.append(cell.strip() if isinstance(cell, str) else cell)

    def _header(self, cells: Sequence[Any]) -> list[str]:
        names = [" ".join(cell_text(cell).split()) or f"column {place}" for place, cell in enumerate(cells, start=1)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"{self.path}: the header names {', '.join(map(repr, twice))} twice. Rename one of the columns."
            raise DataError(msg)
        return names


def cell_text(cell: Any) -> str:
    """A cell as text: '' for none and NaN, '7' for the 7.0 of a spreadsheet."""
    if cell is None or (isinstance(cell, float) and cell != cell):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
