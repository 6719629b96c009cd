"""Folders that are no classes: what their names say, and the command that reads what lies in them instead."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

from tagmask.data.files import ImageFile, ImageFolder
from tagmask.data.table.columns import plain_name
from tagmask.data.table.find import files_in, tables_in
from tagmask.data.table.read import OTHER_TABLES
from tagmask.errors import DataError

IMAGE_FOLDERS = frozenset({
    "image", "images", "img", "imgs", "data", "dataset", "photo", "photos", "picture", "pictures", "pics", "jpegimages",
    "original", "frames",
})  # fmt: skip
MASK_FOLDERS = frozenset({
    "mask", "masks", "label", "labels", "annotation", "annotations", "gt", "groundtruth", "segmentation",
    "segmentations", "segmentationclass", "segmentationmasks", "maskpng",
})  # fmt: skip
SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
NO_CLASSES = IMAGE_FOLDERS | MASK_FOLDERS | SPLIT_FOLDERS


def refuse_no_classes(root: Path, names: Collection[str], files: Collection[ImageFile]) -> None:
    """Raise DataError where the folders are parts of another layout and no classes; it ends in what to do.

    Args:
        root: the data set.
        names: the folders that would be the classes.
        files: all images.
    """
    no_classes = [name for name in sorted(names) if plain_name(name) in NO_CLASSES]
    if no_classes:
        shown = " and ".join(map(repr, no_classes))
        is_are = "is no class" if len(no_classes) == 1 else "are no classes"
        msg = f"{root}: {shown} {is_are}, but would be read as such. {_remedy(root, no_classes, names, files)}"
        raise DataError(msg)
    if len(names) > 1 or not files:
        return
    (name,) = names
    if all(len(file.relative.split("/")) > 2 for file in files):
        msg = f"{root}: '{name}' would be the only class; its folders look like the classes. {_check(root / name)}"
        raise DataError(msg)
    tables = [path for path in files_in(root) if path.suffix.lower() in OTHER_TABLES or _is_list(path)]
    if tables:
        msg = f"{root}: '{name}' would be the only class, but the file {_read_table(root, tables[0])}"
        raise DataError(msg)


def _remedy(root: Path, no_classes: list[str], names: Collection[str], files: Collection[ImageFile]) -> str:
    images = next((name for name in no_classes if plain_name(name) in IMAGE_FOLDERS), None)
    masks = next((name for name in no_classes if plain_name(name) in MASK_FOLDERS), None)
    splits = [name for name in no_classes if plain_name(name) in SPLIT_FOLDERS]
    inner = [path for name in (".", *no_classes) for path in _tables(root / name)]
    if inner:
        return f"The file {_read_table(root, inner[0])}"
    if images and any(file.relative.startswith(f"{images}/") and file.relative.count("/") > 1 for file in files):
        return _check(root / images)
    if images and masks:
        settings = f"data.images={images} data.masks={masks} data.tags=masks {_mask_settings(root / masks)}"
        return f"{_ADD_TABLE}, or take the tags from the masks: {_check(root)} data.format=voc {settings}"
    if masks and len(names) > len(no_classes):
        return f"If it holds the masks: {_check(root)} data.format=folders data.masks={masks}"
    if splits and not images:
        train = next((name for name in splits if plain_name(name).startswith("train")), splits[0])
        val = next((name for name in splits if name != train), "val")
        return f"Name the splits: {_check(root)} data.format=folders data.train_split={train} data.val_split={val}"
    return f"{_ADD_TABLE}, or move the images into a folder per class"


def _mask_settings(folder: Path) -> str:
    """What the numbers of masks may be, after a look at the first one."""
    first = next(iter(ImageFolder(folder).walk([])), None)
    try:
        with Image.open(first.path if first else folder) as image:
            binary = image.format == "JPEG" or set(np.unique(np.array(image.convert("L"))).tolist()) <= {0, 255}
    except (OSError, ValueError, SyntaxError):
        binary = False
    if binary:
        return "'data.classes=[NAME]' 'data.mask_values={0: background, 255: NAME}'"
    return "'data.classes=[NAME, NAME]'"


_ADD_TABLE = "Nothing says what is on the images: add a labels.csv with the columns image,tags"


def _read_table(root: Path, path: Path) -> str:
    name = shlex.quote(path.relative_to(root).as_posix())
    if path.suffix.lower() in OTHER_TABLES:
        return f"{name} is not read: save it as .xlsx or as CSV (UTF-8)"
    return f"{name} may hold the tags: {_check(root)} data.format=table data.tags_file={name}"


def _tables(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        *tables_in(folder),
        *(path for path in files_in(folder) if path.suffix.lower() in OTHER_TABLES or _is_list(path)),
    ]


def _is_list(path: Path) -> bool:
    """Whether a text file begins with the name of an image."""
    if path.suffix.lower() != ".txt":
        return False
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            words = stream.readline(500).lower().replace(",", " ").replace(";", " ").split()
    except OSError:
        return False
    return any(word.endswith((".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")) for word in words)


def _check(root: Path) -> str:
    return f"tagmask data check {shlex.quote(str(root))}"
