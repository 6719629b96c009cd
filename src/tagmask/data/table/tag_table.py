"""A table of images and tags: which column is what, and its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tagmask.data.table.columns import Columns
from tagmask.data.tags import is_background
from tagmask.errors import UnknownNameError
from tagmask.types import Problem

IMAGE_COLUMNS = (
    "image", "images", "file_name", "filename", "file", "image_path", "filepath", "path", "image_name",
    "image_id", "img", "id", "name",
)  # fmt: skip
TAGS_COLUMNS = ("tags", "labels", "classes", "categories", "tag", "label", "class", "category")
SPLIT_COLUMNS = ("split", "subset", "partition", "set")
MASK_COLUMNS = ("mask", "mask_path", "mask_file")
_ON = frozenset({"1", "1.0", "true", "yes", "x"})
_OFF = frozenset({"0", "0.0", "false", "no", ""})


@dataclass(frozen=True, slots=True)
class TagRow:
    """One row: tag names as written, without doubles of the separator or spaces around them."""

    line: int
    image: str
    tags: tuple[str, ...]
    split: str = ""
    mask: str = ""


@dataclass(frozen=True)
class TagTable:
    """All rows, and every tag name: sorted for a tags column, in column order for 0/1 columns."""

    rows: tuple[TagRow, ...]
    names: tuple[str, ...]
    problems: tuple[Problem, ...]
    from_columns: bool = False

    @property
    def splits(self) -> set[str]:
        """Every split that a row names."""
        return {row.split for row in self.rows} - {""}


@dataclass(frozen=True)
class TableLayout:
    """Which columns to use; None = find it among the usual names."""

    image_column: str | None = None
    tags_column: str | None = None
    class_columns: Literal["auto"] | Sequence[str] | None = None
    split_column: str | None = None
    mask_column: str | None = None
    separator: str = "|"


def read_tag_table(columns: Columns, layout: TableLayout) -> TagTable:
    """Interpret a table's columns.

    Raises:
        UnknownNameError: a column that was asked for, or the image or tags column, is not there.
    """
    where = str(columns.path)
    image = layout.image_column or columns.first_of(IMAGE_COLUMNS)
    if image is None:
        raise UnknownNameError("column", "image", columns.values, f"{where}: set data.image_column:")
    images = [_text(cell) for cell in columns.column(image)]
    split = layout.split_column or columns.first_of(SPLIT_COLUMNS)
    mask = layout.mask_column or columns.first_of(MASK_COLUMNS)
    blank = [""] * len(images)
    splits = [_text(cell) for cell in columns.column(split)] if split else blank
    masks = [_text(cell) for cell in columns.column(mask)] if mask else blank
    tags_column = _tags_column(columns, layout)
    if tags_column is not None:
        tags, names = _from_tags_column(columns.column(tags_column), layout.separator)
        problems: list[Problem] = []
    else:
        class_names = _class_columns(columns, layout, {image, split, mask})
        tags, names, problems = _from_class_columns(columns, class_names, images)
    rows = zip(columns.lines, images, tags, splits, masks, strict=True)
    return TagTable(
        tuple(TagRow(*row) for row in rows), names, (*columns.problems, *problems), from_columns=tags_column is None
    )


def _tags_column(columns: Columns, layout: TableLayout) -> str | None:
    if layout.tags_column is not None or layout.class_columns is not None:
        return layout.tags_column
    return columns.first_of(TAGS_COLUMNS)


def _class_columns(columns: Columns, layout: TableLayout, used: set[str | None]) -> list[str]:
    if layout.class_columns is not None and layout.class_columns != "auto":
        return list(layout.class_columns)
    names = [name for name in columns.values if name not in used and _is_binary(columns.values[name])]
    if not names:
        where = f"{columns.path}: no tags column and no 0/1 columns; set data.tags_column:"
        raise UnknownNameError("column", "tags", columns.values, where)
    return names


def _from_tags_column(cells: list[Any], separator: str) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # rows repeat: one tuple for all that are equal
    tags = [shared.setdefault(names, names) for names in (split_tags(cell, separator) for cell in cells)]
    return tags, tuple(sorted({name for names in shared for name in names if not is_background(name)}))


def _from_class_columns(
    columns: Columns, class_names: list[str], images: list[str]
) -> tuple[list[tuple[str, ...]], tuple[str, ...], list[Problem]]:
    tags: list[list[str]] = [[] for _ in images]
    problems = []
    for name in class_names:
        for row, cell in enumerate(columns.column(name)):
            value = _text(cell).casefold()
            if value in _ON:
                tags[row].append(name)
            elif value not in _OFF:
                reason = f"line {columns.lines[row]}: '{value}' in column '{name}' is neither 0 nor 1; taken as 0."
                problems.append(Problem("data", images[row], str(columns.path), reason))
    return [tuple(names) for names in tags], tuple(n for n in class_names if not is_background(n)), problems


def split_tags(cell: Any, separator: str) -> tuple[str, ...]:
    """Tag names of one cell: a list as it is, a text split at the separator; empty cells have none."""
    parts = cell if isinstance(cell, list | tuple) else _text(cell).split(separator)
    return tuple(name for name in (_text(part) for part in parts) if name)


def _is_binary(values: list[Any]) -> bool:
    distinct = {_text(value).casefold() for value in values}
    return distinct <= (_ON | _OFF) and distinct != {""}


def _text(cell: Any) -> str:
    if cell is None or (isinstance(cell, float) and cell != cell):
        return ""
    return str(cell).strip()
