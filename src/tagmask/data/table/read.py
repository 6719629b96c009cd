"""One reader for every kind of table, by its suffix."""

from __future__ import annotations

from pathlib import Path

from tagmask.data.files import has_image_suffix
from tagmask.data.table.columns import Columns, IsImage
from tagmask.data.table.json_table import read_json_lines, read_json_table
from tagmask.data.table.parquet import read_parquet
from tagmask.data.table.per_image import YOLO_FILES, read_cvat, read_per_image, read_yolo
from tagmask.data.table.text import read_text_table
from tagmask.data.table.workbook import read_workbook
from tagmask.errors import DataError

TEXT_TABLES = (".csv", ".tsv", ".tab")
#: Suffixes of files that are tables for sure; JSON and XML may be anything, so their content decides.
TABLE_FILES = (*TEXT_TABLES, ".parquet", ".xlsx", ".xlsm", ".jsonl", ".ndjson")
#: Tables that are not read, and what to do instead.
OTHER_TABLES = (".xls", ".xlsb", ".ods", ".numbers", ".feather", ".arrow", ".pkl", ".pickle", ".db", ".sqlite", ".mat")


def read_columns(path: Path, is_image: IsImage = has_image_suffix) -> Columns:
    """Read a table, whatever its kind.

    Args:
        path: the table; for annotations in a file per image their folder.
        is_image: whether a cell names an image; a first row with such a cell is no header.

    Raises:
        DataError: missing, empty, broken, or of a kind that is not read; names the line where there is one.
    """
    if path.is_dir():
        return read_per_image(path)
    if not path.is_file():
        msg = f"{path}: no such table. Correct the name (data.tags_file) or put the file there."
        raise DataError(msg)
    suffix = path.suffix.lower()
    if suffix in OTHER_TABLES:
        msg = f"{path}: {suffix} files are not read. Save the table as .xlsx or as CSV (UTF-8), and name that file."
        raise DataError(msg)
    if path.name.lower() in YOLO_FILES:
        return read_yolo(path)
    match suffix:
        case ".parquet":
            return read_parquet(path)
        case ".xlsx" | ".xlsm":
            return read_workbook(path, is_image)
        case ".json":
            return read_json_table(path)
        case ".jsonl" | ".ndjson":
            return read_json_lines(path)
        case ".xml":
            return read_cvat(path)
    return read_text_table(path, is_image)
