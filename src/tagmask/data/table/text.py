"""Tables as text: comma, semicolon, tab or bar, found from the first line and checked on the rows after it.

UTF-8 with or without BOM, UTF-16, else Latin-1, which is reported; LF or CRLF.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tagmask.data.files import has_image_suffix
from tagmask.data.table.columns import ColumnBuilder, Columns, IsImage, plain_name
from tagmask.data.table.usual_names import IMAGE_COLUMNS
from tagmask.data.text import read_text
from tagmask.errors import DataError
from tagmask.types import Problem

_DELIMITERS = (",", ";", "\t", "|")
_ROWS_TO_JUDGE = 50
_USUAL_IMAGES = frozenset(IMAGE_COLUMNS)


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
    text, comments = _without_comments(text.lstrip("\ufeff"))
    first_line, _, rest = text.partition("\n")
    if first_line.lower().startswith("sep=") and len(first_line.strip()) == 5:  # Excel's own hint
        text, delimiter, skipped = rest, first_line.strip()[4], 1
    else:
        delimiter, skipped = detect_delimiter(text), comments
    listed = _words(text, delimiter, skipped)
    if listed is not None:
        return ColumnBuilder(path, is_image, problems=problems).build(listed)
    remedy = f" Put quotes around a cell that contains '{delimiter}'."
    builder = ColumnBuilder(path, is_image, remedy, problems)
    return builder.build(_rows(path, text, delimiter, skipped))


def _without_comments(text: str) -> tuple[str, int]:
    """Text without the lines of comment above a table, and how many there were; '#image,tags' is a header."""
    lines = 0
    while text.startswith("#"):
        first, _, rest = text.partition("\n")
        if {plain_name(cell) for cell in re.split(r"[,;\t|]", first)} & _USUAL_IMAGES:
            return text.lstrip("# "), lines
        text, lines = rest, lines + 1
    return text, lines


def _words(text: str, delimiter: str, skipped: int) -> list[tuple[int, Sequence[Any]]] | None:
    """Rows of a list with blanks between image and tags ('a.jpg cow dog'), None where the text is no such list."""
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1 + skipped)]
    lines = [(number, words) for number, words in lines if words]
    images = [has_image_suffix(words[0]) for _, words in lines[1 : _ROWS_TO_JUDGE + 1]] or [False]
    if (
        not lines
        or delimiter in lines[0][1][0]
        or not all(images)
        or any(delimiter in words[0] for _, words in lines[1:])
    ):
        return None
    return [(number, (words[0], words[1:])) for number, words in lines]


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
