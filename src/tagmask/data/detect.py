"""Which data format a folder is in, and the settings object of a format by its name."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tagmask import registry
from tagmask.data.coco.source import find_annotations, single_annotations
from tagmask.data.files import ImageFolder
from tagmask.data.localisation import ilsvrc
from tagmask.data.table.read import TABLE_FILES
from tagmask.data.voc.layout import find_bases
from tagmask.errors import DataError

EXPECTED = (
    "VOC: JPEGImages/ (or VOCdevkit/VOC2012/JPEGImages/); COCO: annotations/instances_train*.json; "
    "table: a CSV or Parquet file with an image and a tags column; folders: one folder of images per class; "
    "cub: images.txt and train_test_split.txt; ilsvrc: train/n01440764/; wsol: metadata/train/class_labels.txt"
)


def detect_format(root: Path | str) -> str:
    """'voc', 'coco', 'cub', 'wsol', 'ilsvrc', 'table' or 'folders', from what lies in ``root``. No image is opened.

    Raises:
        DataError: no such folder, or nothing fits; says what was found and what each format needs.
    """
    root = Path(root).expanduser()
    if root.is_file():
        msg = f"data.root: {root} is a file. Name its folder: data.root={root.parent} data.tags_file={root.name}."
        raise DataError(msg)
    if not root.is_dir():
        near = difflib.get_close_matches(root.name, _names(root.parent), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else " Name the folder of the data set."
        msg = f"data.root: {root} does not exist.{hint}"
        raise DataError(msg)
    if find_bases(root, "JPEGImages"):
        return "voc"
    if find_annotations(root, ("train", "val")) or single_annotations(root):
        return "coco"
    if any((base / "train_test_split.txt").is_file() for base in (root, root / "CUB_200_2011")):
        return "cub"
    if any((root / "metadata").glob("*/class_labels.txt")):
        return "wsol"
    if ilsvrc.looks_like(root):
        return "ilsvrc"
    if any(path.suffix.lower() in TABLE_FILES for path in root.iterdir()):
        return "table"
    images = False
    for image in ImageFolder(root).walk([]):
        if "/" in image.relative:
            return "folders"
        images = True
    if images:
        content = "only images, and nothing that says what is on them; add a labels.csv with the columns image,tags"
    else:
        content = f"no images; it holds {', '.join(_names(root)[:8]) or 'nothing'}"
    msg = f"{root}: no known data format: {content}. Expected one of: {EXPECTED}."
    raise DataError(msg)


def data_settings(name: str, /, **settings: Any) -> BaseModel:
    """The settings object of a format: ``data_settings("voc", root=path).open()`` loads a source.

    Raises:
        UnknownNameError: no such format.
        pydantic.ValidationError: an unknown key or a wrong value.
    """
    model: type[BaseModel] = registry.get("data", name, where="data.format")
    return model(**settings)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
