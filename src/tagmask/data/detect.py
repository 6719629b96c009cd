"""Which data format a folder is in, and the settings object of a format by its name."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tagmask import registry
from tagmask.data.coco.source import find_annotations, single_annotations
from tagmask.data.files import IMAGE_SUFFIXES, ImageFolder
from tagmask.data.folders.layout import NO_CLASSES
from tagmask.data.localisation import ilsvrc
from tagmask.data.lookup import ImageLookup
from tagmask.data.table.columns import plain_name
from tagmask.data.table.find import has_table, is_coco_file, tables_in
from tagmask.data.table.read import read_columns
from tagmask.data.table.roles import TableLayout
from tagmask.data.table.tag_table import read_tag_table
from tagmask.data.voc.layout import find_bases
from tagmask.errors import DataError, UnknownNameError

log = logging.getLogger(__name__)
_OF_TABLES = frozenset(
    {"tags_file", "val_tags_file", "image_column", "tags_column", "class_columns", "split_column", "groups"}
)
_OF_COCO = frozenset({"annotations", "val_annotations", "val_images", "mask_style"})
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
EXPECTED = (
    "VOC: JPEGImages/ (or VOCdevkit/VOC2012/JPEGImages/); COCO: annotations/instances_train*.json; "
    "table: a CSV, Excel, JSON or Parquet file with an image and a tags column; folders: a folder of images per class; "
    "cub: images.txt and train_test_split.txt; ilsvrc: train/n01440764/; wsol: metadata/train/class_labels.txt"
)


def detect_format(root: Path | str, settings: Collection[str] = ()) -> str:
    """'voc', 'coco', 'cub', 'wsol', 'ilsvrc', 'table' or 'folders', from what lies in ``root``. No image is opened.

    Args:
        root: the data set.
        settings: keys of the data's settings: who names a table or a COCO file has said what the data is.

    Raises:
        DataError: no such folder, or nothing fits; says what was found and what each format needs.
    """
    root = Path(root).expanduser()
    if root.is_file():
        named = file_settings(root)
        key = "annotations" if "annotations" in named else "tags_file"
        msg = f"data.root: {root} is a file. Name its folder: data.root={named['root']} data.{key}={named[key]}."
        raise DataError(msg)
    if not root.is_dir():
        near = difflib.get_close_matches(root.name, _names(root.parent), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else " Name the folder of the data set."
        msg = f"data.root: {root} does not exist.{hint}"
        raise DataError(msg)
    if find_bases(root, "JPEGImages"):
        return "voc"
    if not _OF_TABLES.isdisjoint(settings):
        return "table"
    if not _OF_COCO.isdisjoint(settings) or find_annotations(root, ("train", "val")) or single_annotations(root):
        return "coco"
    if any((base / "train_test_split.txt").is_file() for base in (root, root / "CUB_200_2011")):
        return "cub"
    if any((root / "metadata").glob("*/class_labels.txt")):
        return "wsol"
    if ilsvrc.looks_like(root):
        return "ilsvrc"
    if has_table(root) and not _tables_are_notes(root):
        return "table"
    images = False
    for image in ImageFolder(root).walk([]):
        if "/" in image.relative:
            return "folders"
        images = True
    if images:
        content = (
            "only images, and nothing that says what is on them; add a labels.csv with the columns image,tags, or name "
            f"a table elsewhere: tagmask run --images {root} --tags FILE"
        )
    else:
        content = f"no images; it holds {', '.join(_names(root)[:8]) or 'nothing'}"
    msg = f"{root}: no known data format: {content}. Expected one of: {EXPECTED}."
    raise DataError(msg)


def file_settings(path: Path) -> dict[str, str]:
    """Settings of the data that one file describes: a table or an annotation file, and the folder of its images.

    Raises:
        DataError: an image or an archive.
    """
    if path.suffix.lower() in (*IMAGE_SUFFIXES, *_ARCHIVES):
        what = "an archive: unpack it" if path.suffix.lower() in _ARCHIVES else "an image"
        msg = f"{path}: is {what}. Name the folder of the images, or the table of their tags."
        raise DataError(msg)
    folder = path.absolute().parent
    # A table in a folder of its own (annotations/labels.csv) speaks of images beside that folder.
    has_images = next(ImageFolder(folder).walk([]), None) is not None
    root = folder if has_images or next(ImageFolder(folder.parent).walk([]), None) is None else folder.parent
    name = path.absolute().relative_to(root).as_posix()
    shown = path.parent if root == folder else path.parent.parent
    if is_coco_file(path):
        return {"format": "coco", "root": str(shown), "annotations": name}
    return {"format": "table", "root": str(shown), "tags_file": name}


def _tables_are_notes(root: Path) -> bool:
    """Whether the tables of a folder speak of no image while several folders look like classes."""
    folders = {image.relative.split("/")[0] for image in ImageFolder(root).walk([]) if image.relative.count("/") == 1}
    if len({name for name in folders if plain_name(name) not in NO_CLASSES}) < 2:
        return False
    lookup = ImageLookup([ImageFolder(root)])
    for path in tables_in(root):
        try:
            if read_tag_table(read_columns(path, lookup.is_image), TableLayout(), lookup.is_image).rows:
                return False
        except DataError as error:
            log.info("%s is no table of images: %s", path, error)
        except UnknownNameError:
            continue
    return True


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
