"""The table of a folder, and whether a JSON or XML file is one."""

from __future__ import annotations

import re
from pathlib import Path

from tagmask.data.table.exports import is_coco
from tagmask.data.table.json_table import load_json
from tagmask.data.table.per_image import YOLO_FILES, has_per_image_files
from tagmask.data.table.read import OTHER_TABLES, TABLE_FILES
from tagmask.errors import DataError

USUAL_TABLES = ("labels", "tags", "annotations", "train", "data", "metadata")
ROBOFLOW = "_classes.csv"
_PEEK = 65_536
_LARGEST_JSON = 50 * 2**20


def find_table(root: Path) -> Path:
    """The table of a folder: the usual names first, else the only one; the folder itself for a file per image.

    Raises:
        DataError: none, or several to choose from.
    """
    tables = tables_in(root)
    for stem in USUAL_TABLES:
        usual = [path for path in tables if path.stem.casefold() == stem]
        if len(usual) == 1:
            return usual[0]
        if usual:
            tables = usual
            break
    if len(tables) == 1:
        return tables[0]
    if not tables and (root / "train" / ROBOFLOW).is_file():
        return root / "train" / ROBOFLOW
    if not tables and has_per_image_files(root):
        return root
    names = ", ".join(path.name for path in tables[:5])
    content = f"several tables ({names})" if tables else "no CSV, Excel, Parquet or JSON table"
    others = [path for path in files_in(root) if path.suffix.lower() in OTHER_TABLES]
    if not tables and others:
        content += f" ({others[0].name} is not read: save it as .xlsx or as CSV)"
    name = tables[0].name if tables else "NAME"
    msg = f"{root}: {content}. Name the one with images and tags: data.tags_file={name}."
    raise DataError(msg)


def has_table(root: Path) -> bool:
    """Whether :func:`find_table` finds one, or several to choose from."""
    return bool(tables_in(root)) or (root / "train" / ROBOFLOW).is_file() or has_per_image_files(root)


def tables_in(root: Path) -> list[Path]:
    """Files of a folder that are tables: by their suffix, or (JSON, XML) by what they hold."""
    return [
        path
        for path in files_in(root)
        if path.suffix.lower() in TABLE_FILES or path.name.lower() in YOLO_FILES or is_annotation_file(path)
    ]


def is_annotation_file(path: Path) -> bool:
    """Whether a JSON or XML file holds images and their tags (COCO aside, which has a format of its own)."""
    suffix = path.suffix.lower()
    if suffix not in (".json", ".xml"):
        return False
    try:
        with path.open("rb") as stream:
            head = stream.read(_PEEK).decode("utf-8", errors="replace")
    except OSError:
        return False
    if suffix == ".xml":
        return "<annotations>" in head and "<image " in head
    # An image's name, somewhere at the beginning: settings and notes in JSON have none.
    return bool(re.search(r"\.(jpe?g|png|tiff?|bmp|webp)\b", head, re.IGNORECASE) or '"labels"' in head) and not (
        is_coco_file(path) or _is_per_image(head)
    )


def is_coco_file(path: Path) -> bool:
    """Whether a JSON is a COCO instances file; large ones are judged by their beginning and end alone."""
    if path.suffix.lower() != ".json":
        return False
    try:
        if path.stat().st_size <= _LARGEST_JSON:
            return is_coco(load_json(path))
        with path.open("rb") as stream:
            ends = stream.read(_PEEK)
            stream.seek(-_PEEK, 2)
            ends += stream.read()
    except (OSError, DataError):
        return False
    return sum(f'"{key}"'.encode() in ends for key in ("images", "annotations", "categories")) > 1


def _is_per_image(head: str) -> bool:
    return '"shapes"' in head and '"imagePath"' in head


def files_in(root: Path) -> list[Path]:
    """Files of a folder by name; hidden ones and the locks of office programs are none."""
    return sorted(path for path in root.iterdir() if path.is_file() and not path.name.startswith((".", "~$")))
