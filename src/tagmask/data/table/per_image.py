"""Annotations in a file per image, or in one XML: LabelMe, YOLO, CVAT. Read for their tags alone."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tagmask.data.files import IMAGE_SUFFIXES
from tagmask.data.table.columns import Columns
from tagmask.data.table.exports import Row, columns_of
from tagmask.data.table.names import tag_names
from tagmask.errors import DataError
from tagmask.types import Problem

YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml")


def read_cvat(path: Path) -> Columns:
    """Tags, boxes and outlines of CVAT's 'CVAT for images' XML.

    Raises:
        DataError: broken, or another XML.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        msg = f"{path}: cannot be read as XML ({error}). Export it again."
        raise DataError(msg) from error
    images = root.findall("image")
    if root.tag != "annotations" or not images:
        msg = f"{path}: is no 'CVAT for images' XML. Export the task in that format, or as COCO."
        raise DataError(msg)
    rows: list[Row] = [
        (image.get("name") or "", [item.get("label") or "" for item in image if item.get("label")]) for image in images
    ]
    return columns_of(path, "CVAT", rows)


def read_labelme(folder: Path) -> Columns:
    """Outlines and flags of LabelMe's files, NAME.json per image; an image without a file is not annotated.

    Raises:
        DataError: no such file.
    """
    rows: list[Row] = []
    problems = []
    for path in sorted(folder.rglob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            problems.append(Problem("data", path.stem, str(path), f"cannot be read as JSON ({error}); image left out"))
            continue
        if is_labelme(document):
            place = path.parent.relative_to(folder).as_posix()
            image = str(document.get("imagePath") or f"{path.stem}.jpg").replace("\\", "/").rpartition("/")[2]
            tags = [*tag_names(document["shapes"], ""), *tag_names(document.get("flags") or {}, "")]
            rows.append((image if place == "." else f"{place}/{image}", tags))
    if not rows:
        msg = f"{folder}: holds no file of LabelMe (JSON with 'shapes'). Name its folder: data.tags_file=FOLDER."
        raise DataError(msg)
    columns = columns_of(folder, "LabelMe", rows)
    return Columns(folder, columns.values, columns.lines, (*problems, *columns.problems))


def is_labelme(document: Any) -> bool:
    """Whether a document is LabelMe's file of one image."""
    return isinstance(document, Mapping) and isinstance(document.get("shapes"), list) and "imagePath" in document


def read_yolo(path: Path) -> Columns:
    """Classes of the label files of a YOLO data set (data.yaml), by split: images/a.jpg has labels/a.txt.

    An image without a label file, or with an empty one, has no object: that is YOLO's rule.

    Raises:
        DataError: no names, no image folder, or a broken file.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        names = settings["names"]
        names = dict(enumerate(names)) if isinstance(names, list) else {int(key): names[key] for key in names}
        folders = {split: settings[split] for split in ("train", "val", "test") if settings.get(split)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        msg = f"{path}: is no data.yaml of YOLO: it needs 'names' and 'train' ({' '.join(str(error).split())[:80]})."
        raise DataError(msg) from error
    values: dict[str, list[Any]] = {"image": [], "tags": [], "split": []}
    problems: list[Problem] = []
    for split, places in folders.items():
        for place in places if isinstance(places, list) else [places]:
            folder = _yolo_folder(path.parent, str(settings.get("path") or "."), str(place), split)
            for image in sorted(item for item in folder.rglob("*") if item.suffix.lower() in IMAGE_SUFFIXES):
                tags = [str(names[number]) for number in _yolo_classes(_yolo_labels(folder, image), names, problems)]
                values["image"].append(image.relative_to(path.parent).as_posix())
                values["tags"].append(tags)
                values["split"].append(split)
    return Columns(path, values, list(range(1, len(values["image"]) + 1)), tuple(problems))


def _yolo_folder(base: Path, root: str, place: str, split: str) -> Path:
    """The image folder of a split: where data.yaml says, or beside it (its paths are often those of elsewhere)."""
    name = place.replace("\\", "/").removeprefix("../").removeprefix("./")
    for folder in (base / root / place, base / place, base / name, base / split / "images", base / "images" / split):
        if folder.is_dir() and folder.resolve().is_relative_to(base.resolve()):
            return folder
    msg = f"{base}: no image folder '{place}' of data.yaml. Correct '{split}' in it."
    raise DataError(msg)


def _yolo_labels(folder: Path, image: Path) -> Path:
    parts = list(image.with_suffix(".txt").parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts)


def _yolo_classes(path: Path, names: Mapping[int, Any], problems: list[Problem]) -> Iterator[int]:
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        word = line.split()[0] if line.strip() else ""
        if word.isdecimal() and int(word) in names:
            yield int(word)
        elif word:
            reason = f"line {number}: '{word[:20]}' is no class number of data.yaml; the object is left out"
            problems.append(Problem("data", path.stem, str(path), reason))
