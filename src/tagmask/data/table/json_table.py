"""Tables as JSON: a list of objects, an object of columns, an object of tags by image; JSON lines, an object a line.

What annotation tools export as JSON is read for its tags, too (see :mod:`tagmask.data.table.exports`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tagmask.data.files import has_image_suffix
from tagmask.data.table.columns import Columns
from tagmask.data.table.exports import read_export
from tagmask.data.table.usual_names import IMAGE_COLUMNS
from tagmask.data.text import read_text
from tagmask.errors import DataError
from tagmask.types import Problem

_FORMS = (
    'a list of objects [{"image": "a.jpg", "tags": ["cow"]}], an object of columns {"image": [...], "tags": [...]}, '
    'or an object of tags by image {"a.jpg": ["cow"]}'
)


def read_json_table(path: Path) -> Columns:
    """Columns of a JSON file.

    Raises:
        DataError: no JSON, a key twice, or of no known form; a COCO file names the setting that reads it.
    """
    document = load_json(path)
    export = read_export(path, document)
    if export is not None:
        return export
    if isinstance(document, Mapping):
        columns = _object_columns(path, document)
        if columns is not None:
            return columns
    if isinstance(document, Sequence) and document and all(isinstance(item, Mapping) for item in document):
        return _records(path, list(enumerate(document, start=1)), [])
    msg = f"{path}: holds no table. Write {_FORMS}."
    raise DataError(msg)


def read_json_lines(path: Path) -> Columns:
    """Columns of a file with an object a line; a line that is none is left out and listed.

    Raises:
        DataError: unreadable, or not one object in it.
    """
    records, problems = [], []
    for line, text in enumerate(_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            record = error
        if isinstance(record, Mapping):
            records.append((line, record))
        else:
            problems.append(Problem("data", "", str(path), f"line {line} is no JSON object: row left out"))
    if not records:
        msg = f'{path}: holds no JSON object. Write one a line: {{"image": "a.jpg", "tags": ["cow"]}}.'
        raise DataError(msg)
    return _records(path, records, problems)


def load_json(path: Path) -> Any:
    """The document of a JSON file.

    Raises:
        DataError: unreadable, no JSON, or an object that has a key twice (of which JSON readers drop the first).
    """
    try:
        return json.loads(_text(path), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        msg = f"{path}: cannot be read as JSON ({error}). Export it again."
        raise DataError(msg) from error


def _text(path: Path) -> str:
    try:
        return read_text(path)[0].lstrip("\ufeff")
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror or error}). Check the file and its rights."
        raise DataError(msg) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        msg = f"the key '{key}' stands twice in one object"
        raise ValueError(msg)
    return value


def _records(path: Path, records: list[tuple[int, Mapping[str, Any]]], problems: list[Problem]) -> Columns:
    names = list(dict.fromkeys(_name(key) for _, record in records for key in record))
    values: dict[str, list[Any]] = {name: [] for name in names}
    for _, record in records:
        cells = {_name(key): cell for key, cell in record.items()}
        for name, column in values.items():
            column.append(cells.get(name))
    return Columns(path, values, [line for line, _ in records], tuple(problems))


def _object_columns(path: Path, document: Mapping[str, Any]) -> Columns | None:
    """An object of columns (lists, or objects by row as pandas writes them), of tags by image, or around a list."""
    values = list(document.values())
    if set(document) >= {"columns", "data"} and isinstance(document["data"], list):  # pandas: orient="split"
        rows = [dict(zip(document["columns"], row, strict=False)) for row in document["data"]]
        return _records(path, list(enumerate(rows, start=1)), [])
    lists = [value for value in values if isinstance(value, list) and value and isinstance(value[0], Mapping)]
    if len(lists) == 1 and all(isinstance(item, Mapping) for item in lists[0]):
        return _records(path, list(enumerate(lists[0], start=1)), [])
    by_row = all(isinstance(value, Mapping) for value in values) and len({tuple(value) for value in values}) == 1
    if values and by_row and all(str(key).isdigit() for key in values[0]):  # pandas: orient="columns"
        columns = {_name(key): list(value.values()) for key, value in document.items()}
        return Columns(path, columns, list(range(1, len(values[0]) + 1)))
    if values and all(isinstance(value, Mapping) for value in values) and not _named_by_images(document):
        keys = dict.fromkeys(str(key) for value in values for key in value)
        if Columns(path, {key: [] for key in keys}, []).usual(IMAGE_COLUMNS):  # pandas: orient="index"
            return _records(path, list(enumerate(values, start=1)), [])
    equal = all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1
    if equal and Columns(path, dict(document), []).usual(IMAGE_COLUMNS):
        return Columns(path, {_name(key): value for key, value in document.items()}, _numbers(values[0]))
    if values and all(value is None or isinstance(value, str | list | int | Mapping) for value in values):
        tags = {"image": list(document), "tags": values}
        return Columns(path, tags, _numbers(values))
    return None


def _named_by_images(document: Mapping[str, Any]) -> bool:
    return 2 * sum(has_image_suffix(key) for key in document) > len(document)


def _name(key: Any) -> str:
    return " ".join(str(key).split())


def _numbers(rows: Sequence[Any]) -> list[int]:
    return list(range(1, len(rows) + 1))
