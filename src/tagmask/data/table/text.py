"""Tables as text: comma, semicolon, tab or bar, found from the first line and checked on the rows after it.

UTF-8 with or without BOM, UTF-16 with BOM, else Latin-1, which is reported; LF or CRLF.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from tagmask.data.table.columns import ColumnBuilder, Columns, IsImage
from tagmask.data.text import read_text
from tagmask.errors import DataError
from tagmask.types import Problem

_DELIMITERS = (",", ";", "\t", "|")
_ROWS_TO_JUDGE = 50


def read_text_table(path: Path, is_image: IsImage) -> Columns:
    """Columns of a CSV or TSV file.

    Raises:
        DataError: unreadable, empty, or a quote that is never closed; names the line where there is one.
    """
    try:
        text, odd_line = read_text(path)
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror or error}). Check the file and its rights."
        raise DataError(msg) from error
    problems = []
    if odd_line is not None:
        reason = f"line {odd_line} is not UTF-8; the file was read as Latin-1. Save it as UTF-8 if names look wrong."
        problems.append(Problem("data", "", str(path), reason, left_out=False))
    first_line, _, rest = text.lstrip("\ufeff").partition("\n")
    if first_line.lower().startswith("sep=") and len(first_line.strip()) == 5:  # Excel's own hint
        text, delimiter, skipped = rest, first_line.strip()[4], 1
    else:
        delimiter, skipped = detect_delimiter(text), 0
    remedy = f" Put quotes around a cell that contains '{delimiter}'."
    builder = ColumnBuilder(path, is_image, remedy, problems)
    return builder.build(_rows(path, text, delimiter, skipped))


def _rows(path: Path, text: str, delimiter: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    # Strict: a quote that is never closed would else swallow the rest of the table as one cell.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num + skipped, row
    except csv.Error as error:
        msg = f"{path}: line {reader.line_num + skipped}: {error}. Close the quotes, or write '\"\"' inside them."
        raise DataError(msg) from error


def detect_delimiter(text: str) -> str:
    """Comma, semicolon, tab or bar: the one that splits the first line and then most rows into as many cells."""

    def score(delimiter: str) -> tuple[bool, float, int]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = []
        try:
            for row in reader:
                if row:
                    rows.append(len(row))
                if len(rows) > _ROWS_TO_JUDGE:
                    break
        except csv.Error:
            return (False, 0.0, 0)
        width = rows[0] if rows else 0
        agreeing = sum(cells == width for cells in rows) / max(1, len(rows))
        return (width > 1, agreeing, width)

    return max(_DELIMITERS, key=score)
