"""Tables as Excel workbooks (.xlsx), read cell by cell by openpyxl; formulas count as the values stored with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tagmask.data.table.columns import ColumnBuilder, Columns, IsImage, cell_text
from tagmask.errors import DataError
from tagmask.types import Problem

Row = tuple[int, tuple[Any, ...]]


def read_workbook(path: Path, is_image: IsImage) -> Columns:
    """Columns of the first sheet that is not empty; others are named in the problems.

    Raises:
        DataError: not an .xlsx file, broken, or empty.
    """
    from openpyxl import load_workbook

    try:
        book = load_workbook(path, read_only=True, data_only=True)
        sheets = {sheet.title: list(_rows(sheet)) for sheet in book.worksheets if sheet.sheet_state == "visible"}
        book.close()
    except Exception as error:  # a torn archive raises nearly anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        msg = f"{path}: cannot be read as an Excel workbook ({reason}). Save it as .xlsx again, or as CSV (UTF-8)."
        raise DataError(msg) from error
    tables = {title: rows for title, rows in sheets.items() if rows}
    if not tables:
        msg = f"{path}: is empty. Its first row must name the columns, for example 'image' and 'tags'."
        raise DataError(msg)
    title, *others = tables
    problems = []
    if others:
        reason = f"the sheet '{title}' is read, not {', '.join(map(repr, others))}: keep the table in the first sheet"
        problems.append(Problem("data", "", str(path), reason, left_out=False))
    return ColumnBuilder(path, is_image, problems=problems).build(_below_title(tables[title]))


def _rows(sheet: Any) -> Iterator[Row]:
    """Rows that are not empty; the extent stored in the file may be wrong, so it is not believed."""
    if hasattr(sheet, "reset_dimensions"):
        sheet.reset_dimensions()
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        if any(cell_text(cell) for cell in cells):
            yield number, cells


def _below_title(rows: Sequence[Row]) -> list[Row]:
    """Rows of one width, without a title above the table (a first row of one cell where later ones have more)."""

    def width(cells: tuple[Any, ...]) -> int:
        return max(place for place, cell in enumerate(cells, start=1) if cell_text(cell))

    widths = [width(cells) for _, cells in rows]
    first = next((place for place, cells in enumerate(widths) if cells > 1), 0)
    full = max(widths[first:])
    # Excel leaves empty cells at the end of a row out: they are filled up, so that no row counts as too short.
    return [(line, (*cells, *(None,) * full)[: max(full, width(cells))]) for line, cells in rows[first:]]
