"""A table of images and tags: which column is what, and its rows."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from tagmask.data.files import has_image_suffix
from tagmask.data.table.columns import Columns, IsImage, cell_text
from tagmask.data.table.names import tag_names
from tagmask.data.table.roles import Roles, TableLayout, choose_roles
from tagmask.data.table.usual_names import OFF, ON, UNSURE
from tagmask.data.tags import is_background
from tagmask.types import Problem

K = TypeVar("K", bound=Hashable)
_WORDS: dict[Literal["on", "off", "unsure"], frozenset[str]] = {"on": ON, "off": OFF, "unsure": UNSURE}


@dataclass(frozen=True, slots=True)
class TagRow:
    """One row: tag names as written, without doubles of the separator or spaces around them."""

    line: int
    image: str
    tags: tuple[str, ...]
    split: str = ""
    mask: str = ""
    group: str = ""


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


def read_tag_table(columns: Columns, layout: TableLayout, is_image: IsImage = has_image_suffix) -> TagTable:
    """Interpret a table's columns.

    Args:
        columns: the table.
        layout: which columns to use.
        is_image: whether a cell names an image; tells the image column where no header does.

    Raises:
        UnknownNameError: a column that was asked for, or the image or tags column, is not there.
        DataError: several columns may be the tags; the message ends in the settings that choose one.
    """
    roles = choose_roles(columns, layout, is_image)
    images = [cell_text(cell) for cell in columns.column(roles.image)]
    blank = [""] * len(images)
    splits = [cell_text(cell) for cell in columns.column(roles.split)] if roles.split else blank
    masks = [cell_text(cell) for cell in columns.column(roles.mask)] if roles.mask else blank
    groups = [cell_text(cell) for cell in columns.column(layout.group_column)] if layout.group_column else blank
    problems = list(columns.problems)
    problems += [Problem("data", "", str(columns.path), note, left_out=False) for note in roles.notes]
    if roles.classes:
        tags, switches = _from_class_columns(columns, roles.classes, images)
        problems += switches
        names = tuple(name for name in roles.classes if not is_background(name))
    else:
        tags, names = _from_tags_columns(columns, roles, layout.separator)
    rows = zip(columns.lines, images, tags, splits, masks, groups, strict=True)
    named = [TagRow(*row) for row in rows if row[1]]
    problems += _nameless(columns, images)
    return TagTable(tuple(named), names, tuple(problems), from_columns=bool(roles.classes))


def group_rows(rows: Iterable[tuple[K, TagRow]], path: Path) -> tuple[dict[K, list[TagRow]], list[Problem]]:
    """Rows by image: a table may have a row per object, or per image and tag.

    Args:
        rows: what tells the images apart, and the row.
        path: the table, for the problems.

    Returns:
        The rows of each image in their order; a line each on images with several rows and on those in two splits.
    """
    groups: dict[K, list[TagRow]] = {}
    for key, row in rows:
        groups.setdefault(key, []).append(row)
    several = [group for group in groups.values() if len(group) > 1]
    problems = []
    if several:
        name, n_rows = several[0][0].image, sum(map(len, several))
        reason = f"{len(several)} images have {n_rows} rows (such as '{name}'): the tags of an image's rows are united"
        problems.append(Problem("data", "", str(path), reason, left_out=False))
    torn = [group for group in several if len({row.split for row in group}) > 1]
    if torn:
        reason = f"{len(torn)} images are in two splits (such as '{torn[0][0].image}'): the first row counts"
        problems.append(Problem("data", torn[0][0].image, str(path), reason, left_out=False))
    return groups, problems


def united_tags(rows: Iterable[TagRow]) -> tuple[str, ...]:
    """Tag names of all rows of an image, each once."""
    return tuple(dict.fromkeys(name for row in rows for name in row.tags))


def _nameless(columns: Columns, images: Sequence[str]) -> list[Problem]:
    lines = [str(line) for line, image in zip(columns.lines, images, strict=True) if not image]
    if not lines:
        return []
    shown = ", ".join(lines[:5]) + (" ..." if len(lines) > 5 else "")
    reason = f"{len(lines)} rows without an image are left out (lines {shown}). Write its name into each row."
    return [Problem("data", "", str(columns.path), reason)]


def _from_tags_columns(columns: Columns, roles: Roles, separator: str) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # rows repeat: one tuple for all that are equal
    of_text: dict[str, tuple[str, ...]] = {}  # and so do texts, which are split once

    def names_of(value: Any) -> tuple[str, ...]:
        if not isinstance(value, str):
            return tag_names(value, separator)
        if value not in of_text:
            of_text[value] = tag_names(value, separator)
        return of_text[value]

    presence = columns.column(roles.presence) if roles.presence else [1] * len(columns.lines)
    cells = zip(presence, *(columns.column(name) for name in roles.tags), strict=True)
    tags = []
    for present, *values in cells:
        names = tuple(name for value in values for name in names_of(value)) if _is_on(present) else ()
        tags.append(shared.setdefault(names, names))
    return tags, tuple(sorted({name for names in shared for name in names if not is_background(name)}))


def _from_class_columns(
    columns: Columns, class_names: Sequence[str], images: Sequence[str]
) -> tuple[list[tuple[str, ...]], list[Problem]]:
    tags: list[list[str]] = [[] for _ in images]
    problems = []
    for name in class_names:
        unsure = counted = 0
        for row, cell in enumerate(columns.column(name)):
            kind = _kind(cell)
            unsure += kind == "unsure"
            counted += kind in ("count", "share")
            if kind in ("on", "count") or (kind == "share" and float(cell) >= 0.5):
                tags[row].append(name)
            elif kind == "odd":
                reason = f"line {columns.lines[row]}: '{cell}' in column '{name}' is neither 0 nor 1; taken as 0."
                problems.append(Problem("data", images[row], str(columns.path), reason))
        notes = [f"{unsure} cells say -1 or 'unknown', taken as 0"] * bool(unsure)
        notes += [f"{counted} cells hold other numbers, from 0.5 on taken as 1"] * bool(counted)
        if notes:
            reason = f"column '{name}': {'; '.join(notes)}"
            problems.append(Problem("data", "", str(columns.path), reason, left_out=False))
    return [tuple(names) for names in tags], problems


def _kind(cell: Any) -> Literal["on", "off", "unsure", "count", "share", "odd"]:
    """What a cell says of its class."""
    text = cell_text(cell).casefold()
    for kind, words in _WORDS.items():
        if text in words:
            return kind
    try:
        number = float(text)
    except ValueError:
        return "odd"
    return "odd" if not 0 <= number < float("inf") else "count" if number >= 1 else "share"


def _is_on(cell: Any) -> bool:
    """Whether a row's tag was confirmed: yes, or a share of at least a half."""
    kind = _kind(cell)
    return kind in ("on", "count", "odd") or (kind == "share" and float(cell) >= 0.5)
