"""Named columns out of a CSV or Parquet file, whatever program wrote it.

CSV: UTF-8 with or without BOM, UTF-16 with BOM, else Latin-1 (which is reported); LF or CRLF; comma,
semicolon or tab, found from the header and checked on the first rows.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagmask.data.text import read_text
from tagmask.errors import DataError, UnknownNameError
from tagmask.types import Problem

_DELIMITERS = (",", ";", "\t")
_ROWS_TO_JUDGE = 50


@dataclass(frozen=True)
class Columns:
    """A table by column. ``lines[i]`` is the line (CSV) or row (Parquet) number of entry i, counted from 1."""

    path: Path
    values: dict[str, list[Any]]
    lines: list[int]
    problems: tuple[Problem, ...] = ()

    def column(self, name: str) -> list[Any]:
        """One column; raises UnknownNameError with the nearest name."""
        if name not in self.values:
            raise UnknownNameError("column", name, self.values, str(self.path))
        return self.values[name]

    def first_of(self, usual: tuple[str, ...]) -> str | None:
        """The first of some usual names (case and spaces aside) that is a column here."""
        known = {name.strip().casefold(): name for name in reversed(self.values)}
        return next((known[name] for name in usual if name in known), None)


def read_columns(path: Path) -> Columns:
    """Read a table.

    Raises:
        DataError: missing, empty, broken, or without a header; names the line where there is one.
    """
    if not path.is_file():
        msg = f"{path}: no such table. Correct the name (data.tags_file) or put the file there."
        raise DataError(msg)
    return _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)


def _read_csv(path: Path) -> Columns:
    try:
        text, odd_line = read_text(path)
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror or error}). Check the file and its rights."
        raise DataError(msg) from error
    if not text.strip("\ufeff \t\r\n"):
        msg = f"{path}: is empty. Its first line must name the columns, for example 'image,tags'."
        raise DataError(msg)
    problems = []
    if odd_line is not None:
        reason = f"line {odd_line} is not UTF-8; the file was read as Latin-1. Save it as UTF-8 if names look wrong."
        problems.append(Problem("data", "", str(path), reason))
    first_line, _, rest = text.partition("\n")
    if first_line.lower().startswith("sep=") and len(first_line.strip()) == 5:  # Excel's own hint
        text, delimiter, skipped = rest, first_line.strip()[4], 1
    else:
        delimiter, skipped = detect_delimiter(text), 0
    # QUOTE strictness: a quote that is never closed would swallow the rest of the table as one cell.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = _header(path, next(reader, []))
        values: dict[str, list[Any]] = {name: [] for name in header}
        columns, lines = list(values.values()), []
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            line = reader.line_num + skipped
            if len(row) < len(header) or any(cell.strip() for cell in row[len(header) :]):
                problems.append(_wrong_width(path, line, row, header, delimiter))
                continue
            lines.append(line)
            for column, cell in zip(columns, row, strict=False):
                column.append(cell.strip())
    except csv.Error as error:
        msg = f"{path}: line {reader.line_num + skipped}: {error}. Close the quotes, or write '\"\"' inside them."
        raise DataError(msg) from error
    return Columns(path, values, lines, tuple(problems))


def _wrong_width(path: Path, line: int, row: list[str], header: list[str], delimiter: str) -> Problem:
    reason = (
        f"line {line} has {len(row)} cells, the header has {len(header)}: row left out. "
        f"Put quotes around a cell that contains '{delimiter}'."
    )
    return Problem("data", row[0] if row else "", str(path), reason)


def detect_delimiter(text: str) -> str:
    """Comma, semicolon or tab: the one that splits the header and then most rows into as many cells."""

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


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() or f"column {place}" for place, cell in enumerate(cells, start=1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"{path}: the header names {', '.join(map(repr, twice))} twice. Rename one of the columns."
        raise DataError(msg)
    if not names:
        msg = f"{path}: has no header. Its first line must name the columns, for example 'image,tags'."
        raise DataError(msg)
    return names


def _read_parquet(path: Path) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def small(kind: Any) -> bool:  # pictures stored inside the table are not read
        return not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_struct(kind))

    try:
        schema = pq.read_schema(path)
        names = [field.name for field in schema if small(field.type)]
        values = pq.read_table(path, columns=names).to_pydict()
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        msg = f"{path}: cannot be read as Parquet ({reason}). Write it again, or use CSV."
        raise DataError(msg) from error
    n_rows = len(next(iter(values.values()), []))
    return Columns(path, values, list(range(1, n_rows + 1)))
