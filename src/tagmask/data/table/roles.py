"""Which column of a table is what: the image, the tags or the classes, the split, the mask.

Names decide first, what the cells hold second. Where two readings are possible, none is taken: the error says which
columns there are, and the settings that choose one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tagmask.data.table.columns import Columns, IsImage, cell_text, plain_name
from tagmask.data.table.names import is_switch
from tagmask.data.table.usual_names import (
    IMAGE_COLUMNS,
    MASK_COLUMNS,
    NO_CLASS_COLUMNS,
    OFF,
    ON,
    PRESENCE_COLUMNS,
    SPLIT_COLUMNS,
    SPLIT_NAMES,
    TAGS_COLUMNS,
    UNSURE,
)
from tagmask.errors import DataError, UnknownNameError

_ROWS_TO_JUDGE = 200
_LARGEST_COUNT = 100
_MOST_CHOICES = 5
_UNNAMED = re.compile(r"column \d+")  # such as the running number that pandas puts in front
_NUMBERED_TAG = re.compile(r"(tag|label|class|category|object)s?\d+")


@dataclass(frozen=True)
class TableLayout:
    """Which columns to use; None = find it, by the usual names and by what the cells hold."""

    image_column: str | None = None
    tags_column: str | None = None
    class_columns: Literal["auto"] | Sequence[str] | None = None
    split_column: str | None = None
    mask_column: str | None = None
    presence_column: str | None = None
    group_column: str | None = None
    separator: str = "|"


@dataclass(frozen=True)
class Roles:
    """Columns by what they hold: tags in ``tags`` (one or several columns of names) or in ``classes`` (one per class).

    ``presence`` denies a row's tag where it is 0; ``notes`` say what was decided without a name to go by.
    """

    image: str
    tags: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    split: str | None = None
    mask: str | None = None
    presence: str | None = None
    notes: tuple[str, ...] = ()


def choose_roles(columns: Columns, layout: TableLayout, is_image: IsImage) -> Roles:
    """The role of each column.

    Raises:
        UnknownNameError: no column that could be the image or the tags, or one asked for by name is missing.
        DataError: several columns could be the tags.
    """
    for name in (
        layout.image_column,
        layout.tags_column,
        layout.split_column,
        layout.mask_column,
        layout.presence_column,
        layout.group_column,
    ):
        if name is not None:
            columns.column(name)
    mask = layout.mask_column or next(iter(columns.usual(MASK_COLUMNS)), None)
    image = layout.image_column or _image_column(columns, is_image, mask)
    split = layout.split_column or _split_column(columns, {image, mask})
    used = {image, mask, split, layout.group_column}
    if layout.class_columns is not None and layout.class_columns != "auto":
        for name in layout.class_columns:
            columns.column(name)
        return Roles(image, classes=tuple(layout.class_columns), split=split, mask=mask)
    free = [name for name in columns.values if name not in used]
    tags: tuple[str, ...] = (layout.tags_column,) if layout.tags_column else ()
    if not tags and layout.class_columns is None:
        tags = _tags_columns(columns, free)
    if tags:
        others = [name for name in free if name not in tags]
        presence = layout.presence_column or next(
            (name for name in columns.usual(PRESENCE_COLUMNS) if name in others), None
        )
        notes = () if presence else _may_deny(columns, others, columns.values[image])
        return Roles(image, tags=tags, split=split, mask=mask, presence=presence, notes=notes)
    return _by_content(columns, free, Roles(image, split=split, mask=mask), only_classes=layout.class_columns == "auto")


def _image_column(columns: Columns, is_image: IsImage, mask: str | None) -> str:
    """The column with a usual name that holds images, else any that does, else the likeliest name."""
    usual = [name for name in columns.usual(IMAGE_COLUMNS) if name != mask]
    holding = [name for name in columns.values if name != mask and _holds(columns.values[name], is_image)]
    by_both = [name for name in usual if name in holding]
    if by_both:
        return by_both[0]
    if len(holding) == 1:
        return holding[0]
    if len(holding) > 1:
        msg = f"{columns.path}: the columns {_listed(holding)} hold images. Choose one: data.image_column={holding[0]}."
        raise DataError(msg)
    if usual:
        return usual[0]
    raise UnknownNameError("column", "image", columns.values, f"{columns.path}: set data.image_column:")


def _holds(cells: Sequence[Any], is_image: IsImage) -> bool:
    texts = [text for text in (cell_text(cell) for cell in cells[:_ROWS_TO_JUDGE]) if text]
    return bool(texts) and 2 * sum(is_image(text) for text in texts) > len(texts)


def _split_column(columns: Columns, used: set[str | None]) -> str | None:
    """The column with a usual name, or one that holds nothing but names of splits."""
    for name in (*columns.usual(SPLIT_COLUMNS), *columns.values):
        if name not in used and _names_splits(columns.values[name]):
            return name
    return next((name for name in columns.usual(SPLIT_COLUMNS[:4]) if name not in used), None)


def _names_splits(cells: Sequence[Any]) -> bool:
    for part in (cells[:_ROWS_TO_JUDGE], cells):  # the first rows rule most columns out
        words = {cell_text(cell).casefold() for cell in part if not isinstance(cell, list | dict)}
        if not words - {""} <= SPLIT_NAMES:
            return False
    return bool(words & {"train", "training"})


def _tags_columns(columns: Columns, free: Sequence[str]) -> tuple[str, ...]:
    usual = [name for name in columns.usual(TAGS_COLUMNS) if name in free]
    if usual:
        return (usual[0],)
    return tuple(name for name in free if _NUMBERED_TAG.fullmatch(plain_name(name)))


def _may_deny(columns: Columns, others: Sequence[str], images: Sequence[Any]) -> tuple[str, ...]:
    """A note on a column of yes and no beside the tags of a long table: its 0 may mean that the tag is not there."""
    if len({cell_text(cell) for cell in images}) == len(images):
        return ()
    for name in others:
        if plain_name(name) not in NO_CLASS_COLUMNS and _is_class_column(name, columns.values[name]):
            setting = f"data.presence_column={_quoted(name)}"
            return (f"the column '{name}' is not read; if its 0 means that the tag of the row is not there: {setting}",)
    return ()


def _by_content(columns: Columns, free: Sequence[str], roles: Roles, *, only_classes: bool) -> Roles:
    """Columns of yes and no are classes; else the only column of texts holds the tags."""
    classes = [name for name in free if _is_class_column("" if not columns.named else name, columns.values[name])]
    texts = [name for name in free if name not in classes and _is_text_column(columns.values[name])]
    may_be_classes = columns.named and (only_classes or not len(classes) == len(texts) == 1)
    if classes and may_be_classes:
        return _with(roles, classes=tuple(classes), notes=_left_aside(free, classes, columns))
    if len(texts) == 1 and not only_classes and not (classes and columns.named):
        note = f"the column '{texts[0]}' is read as the tags, the only one of words (data.tags_column=NAME for another)"
        return _with(roles, tags=(texts[0],), notes=(note,))
    if classes and not columns.named and not texts:
        places = ",".join(f"CLASS{place}" for place, _ in enumerate(classes, start=1))
        msg = f"{columns.path}: has no header, so its 0/1 columns have no names. Write a first line: image,{places}."
        raise DataError(msg)
    choices = [f"data.tags_column={_quoted(name)}" for name in texts]
    choices += [f"data.class_columns=[{', '.join(classes)}]"] if classes else []
    if not choices:
        numbers = [name for name in free if plain_name(name) not in NO_CLASS_COLUMNS]
        choices = [f"data.tags_column={_quoted(name)}" for name in numbers[:_MOST_CHOICES]]
    if choices:
        question = f"which column holds the tags? Its columns are {_listed(columns.values)}"
        header = "" if columns.named else "; or write a first line such as image,tag1,tag2"
        msg = f"{columns.path}: {question}. Set {' or '.join(choices)}{header}."
        raise DataError(msg)
    where = f"{columns.path}: no tags column and no 0/1 columns; set data.tags_column:"
    raise UnknownNameError("column", "tags", columns.values, where)


def _with(roles: Roles, *, notes: tuple[str, ...], tags: tuple[str, ...] = (), classes: tuple[str, ...] = ()) -> Roles:
    return Roles(roles.image, tags=tags, classes=classes, split=roles.split, mask=roles.mask, notes=notes)


def _left_aside(free: Sequence[str], classes: Sequence[str], columns: Columns) -> tuple[str, ...]:
    """One note on columns that are no class; empty ones go without saying."""
    others = [name for name in free if name not in classes and any(cell_text(cell) for cell in columns.values[name])]
    if not others:
        return ()
    return (f"no class columns, left aside: {_listed(others)}. Name what counts with data.class_columns=[NAME, NAME]",)


def _is_class_column(name: str, cells: Sequence[Any]) -> bool:
    """Yes and no in any words, -1 and blanks; or counts of objects, of which some are 0."""
    if _UNNAMED.fullmatch(name) or any(isinstance(cell, list | dict) for cell in cells):
        return False
    values = {cell_text(cell).casefold() for cell in cells}
    if values <= (ON | OFF | UNSURE) and values & (ON | {"0", "0.0", "-1", "-1.0", "no", "false"}):
        return plain_name(name) not in NO_CLASS_COLUMNS or values <= (ON | OFF)
    if plain_name(name) in NO_CLASS_COLUMNS or not values & (OFF | UNSURE) or len(values) == len(cells) > 2:
        return False  # a number of each row, or no row without the class
    numbers = [_number(value) for value in values - OFF - UNSURE]
    return all(value is not None and value.is_integer() and 0 < value <= _LARGEST_COUNT for value in numbers)


def _is_text_column(cells: Sequence[Any]) -> bool:
    texts = [cell for cell in cells if isinstance(cell, list | dict) or cell_text(cell)]
    numbers = [cell for cell in texts if not isinstance(cell, list | dict) and _number(cell_text(cell)) is not None]
    return bool(texts) and len(numbers) < len(texts) and not all(is_switch(cell) for cell in texts)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _listed(names: Sequence[str] | dict[str, Any]) -> str:
    shown = list(names)[:12]
    return ", ".join(map(repr, shown)) + (" ..." if len(names) > len(shown) else "")


def _quoted(name: str) -> str:
    return f"'{name}'" if re.search(r"[^\w./-]", name) else name
