"""Annotations in a file per image, or in one XML: LabelMe, VOC, YOLO, CVAT. Read for their tags alone."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from tagmask.data.files import files_below
from tagmask.data.table.columns import Columns
from tagmask.data.table.exports import Row, columns_of
from tagmask.data.table.names import tag_names
from tagmask.data.table.usual_names import SPLIT_NAMES
from tagmask.errors import DataError
from tagmask.types import Problem

YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml")
_FILES_TO_JUDGE = 20


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


def read_per_image(folder: Path) -> Columns:
    """Tags from a file per image: LabelMe's NAME.json, or XML as VOC has it. An image without one is not annotated.

    Where the uppermost folders are called as splits are, they are the splits.

    Raises:
        DataError: no such file.
    """
    rows: list[Row] = []
    splits, problems = [], []
    for path in files_below(folder, suffixes=(".json", ".xml")):
        try:
            row = _labelme(path) if path.suffix.lower() == ".json" else _voc_xml(path)
        except DataError as error:
            problems.append(Problem("data", path.stem, str(path), f"{error}; image left out"))
            continue
        if row is not None:
            name, tags = row
            place = path.parent.relative_to(folder)
            rows.append(((place / name.replace("\\", "/").rpartition("/")[2]).as_posix(), tags))
            splits.append(place.parts[0] if place.parts and place.parts[0].casefold() in SPLIT_NAMES else "")
    if not rows:
        msg = (
            f"{folder}: holds no LabelMe (JSON with 'shapes') and no VOC (XML) file. Name their folder: data.tags_file."
        )
        raise DataError(msg)
    columns = columns_of(folder, "LabelMe", rows)
    values = {**columns.values, "split": splits} if any(splits) else columns.values
    return Columns(folder, values, columns.lines, (*problems, *columns.problems))


def has_per_image_files(folder: Path) -> bool:
    """Whether a file of :func:`read_per_image` is among the first that lie beside images."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in (".json", ".xml"))
    for path in islice(files, _FILES_TO_JUDGE):
        if not any(path.with_suffix(suffix).is_file() for suffix in (".jpg", ".JPG", ".jpeg", ".png", ".bmp")):
            continue
        try:
            if (_labelme(path) if path.suffix.lower() == ".json" else _voc_xml(path)) is not None:
                return True
        except DataError:
            continue
    return False


def _labelme(path: Path) -> Row | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"cannot be read as JSON ({error})"
        raise DataError(msg) from error
    if not (isinstance(document, Mapping) and isinstance(document.get("shapes"), list) and "imagePath" in document):
        return None
    tags = [*tag_names(document["shapes"], ""), *tag_names(document.get("flags") or {}, "")]
    return str(document["imagePath"] or f"{path.stem}.jpg"), tags


def _voc_xml(path: Path) -> Row | None:
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        msg = f"cannot be read as XML ({error})"
        raise DataError(msg) from error
    if root.tag != "annotation":
        return None
    names = [(item.findtext("name") or "").strip() for item in root.iter("object")]
    return path.stem, [name for name in names if name]


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
            for image in files_below(folder):
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
