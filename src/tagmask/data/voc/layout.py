"""Where things are in a VOCdevkit: the image folder's parent, the split lists and their lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tagmask.data.lists import read_lines, split_line
from tagmask.errors import DataError, UnknownNameError

LIST_FOLDERS = ("ImageSets/Segmentation", "ImageSets/Main", "ImageSets")
_YEAR = re.compile(r"VOC\d{4}")


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One line of a split list: image name in the image folder, and its mask below the base if it names one."""

    image: str
    mask: str = ""


def find_bases(root: Path, images: str) -> list[Path]:
    """Every folder at or below ``root`` (two levels, VOCdevkit/VOCyear) that holds the image folder."""
    if (root / images).is_dir():
        return [root]
    years = [
        folder
        for parent in (root, root / "VOCdevkit")
        if parent.is_dir()
        for folder in sorted(parent.iterdir())
        if _YEAR.fullmatch(folder.name) and (folder / images).is_dir()
    ]
    return years


def find_base(root: Path, images: str, year: int | None) -> Path:
    """The folder that holds the image folder.

    Raises:
        DataError: none, or several years and none chosen.
        UnknownNameError: the chosen year is not there.
    """
    bases = find_bases(root, images)
    if not bases:
        msg = f"{root}: no {images}/ here or in VOCdevkit/VOC2012. Correct data.root, or set data.images."
        raise DataError(msg)
    if bases == [root]:
        return root
    by_year = {base.name.removeprefix("VOC"): base for base in bases}
    if year is not None:
        if str(year) not in by_year:
            raise UnknownNameError("year", str(year), by_year, f"{root}: data.year:")
        return by_year[str(year)]
    if len(bases) > 1:
        msg = f"{root}: holds VOC {' and '.join(by_year)}. Choose one: data.year={max(by_year)}."
        raise DataError(msg)
    return bases[0]


def enclosing_folders(base: Path) -> list[Path]:
    """Folders where classes.txt and the tags table may lie: the base, and those that hold the devkit."""
    if not _YEAR.fullmatch(base.name):
        return [base]
    folders = [base, base.parent]
    return [*folders, base.parent.parent] if base.parent.name == "VOCdevkit" else folders


def split_lists(base: Path) -> dict[str, Path]:
    """Split lists by name; those for segmentation win over those of the same name for other tasks."""
    lists: dict[str, Path] = {}
    for folder in LIST_FOLDERS:
        for path in sorted((base / folder).glob("*.txt")):
            lists.setdefault(path.stem, path)
    return lists


def list_file(root: Path, base: Path, name: str, available: dict[str, Path]) -> Path:
    """A list by its name, or by its path (absolute, or below ``root`` or ``base``).

    Raises:
        UnknownNameError: neither; offers the nearest list.
    """
    if name in available:
        return available[name]
    for folder in (root, base):
        if (folder / name).is_file():
            return folder / name
    raise UnknownNameError("split list", name, available, str(root))


def read_list(path: Path, images: str, exists: Callable[[str], bool]) -> Iterator[ListEntry]:
    """Lines of a list: 'ID', 'ID 1' (ImageSets/Main), or '/JPEGImages/ID.jpg /SegmentationClassAug/ID.png'.

    Names may hold blanks (see :func:`tagmask.data.lists.split_line`).

    Raises:
        DataError: not UTF-8 text.
    """
    for _, line in read_lines(path, remedy="Write one image name per line."):
        name, more = split_line(line, lambda name: exists(_below(name, images)))
        yield ListEntry(_below(name, images), more.lstrip("/") if "/" in more else "")


def _below(name: str, images: str) -> str:
    """'/JPEGImages/a.jpg' -> 'a.jpg': deeplab's lists start at the base, with a slash."""
    for prefix in (f"/{images}/", f"{images}/"):
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name
