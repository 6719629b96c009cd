"""PartsWorld, the embedded data set: procedural, deterministic, made to show the real problem of this field.

Every object has one part of its own class (the head) and parts it shares with another class (body, limbs,
tail); some classes come with a context that also appears without them. A tag classifier needs the heads only,
so its activation maps find little else. Layout on disk: VOC, plus part maps for analysis.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from tagmask.contracts.source import Source
from tagmask.data.files import without_suffix
from tagmask.data.partsworld.draw import PART_NAMES, Rendered, render
from tagmask.data.partsworld.scene import CLASS_NAMES, CONTEXT_OF_LABEL, SPLITS, SceneSettings, Split
from tagmask.data.table.read import read_columns
from tagmask.data.table.roles import TableLayout
from tagmask.data.table.tag_table import read_tag_table
from tagmask.errors import DataError, UnreadableMaskError
from tagmask.storage.files import user_cache, write_error
from tagmask.storage.pictures import voc_palette
from tagmask.types import Box, ClassList, DataSource, Sample, UInt8Array

__all__ = [
    "CLASSES",
    "PART_NAMES",
    "PartsWorldSource",
    "Rendered",
    "read_part_map",
    "render",
    "write_partsworld",
]

CLASSES = ClassList(("background", *CLASS_NAMES))
VERSION = 1
_MARKER = "partsworld.json"
BOX_COLUMNS = ("image", "class", "x0", "y0", "x1", "y1")
_JPEG_QUALITY = 95
Progress = Callable[[int, int], None]


class PartsWorldSource(SceneSettings, Source):
    """Settings of the embedded data set; :meth:`open` generates it once and reuses it.

    ``cache_dir`` is where generated sets are kept, one folder per settings; null: the user's cache folder
    (``$XDG_CACHE_HOME`` or ``~/.cache``) under ``tagmask/partsworld``.
    """

    format: Literal["partsworld"] = "partsworld"
    cache_dir: Path | None = Field(default=None, description="where generated sets are kept")

    def fingerprint(self) -> str:
        """Hash of all that decides the pixels: settings but ``cache_dir``, and the generator's version."""
        text = json.dumps(self._description(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def folder(self) -> Path:
        """Where this set is, or will be, on disk."""
        root = self.cache_dir or user_cache() / "tagmask" / "partsworld"
        return root / self.fingerprint()[:16]

    def open(self) -> DataSource:
        """The data source, generated first if it is not in the cache (about 10 s on one core).

        Two processes may do this at once: each writes its own temporary folder, the first one to finish
        gives it the name, the other one's is dropped.

        Raises:
            RunError: the cache folder cannot be written.
        """
        folder = self.folder()
        if _marker_of(folder) != self._description():
            write_partsworld(folder, self)
        boxes = _read_boxes(folder) if self.variant == "single" else {}
        tags = _read_tags(folder)
        splits: dict[str, tuple[Sample, ...]] = {
            split: tuple(_sample(folder, name, tags[name], boxes.get(name, ())) for name in self._ids(split))
            for split in SPLITS
        }
        return DataSource(
            format=self.format,
            classes=CLASSES,
            splits=splits,
            fingerprint=self.fingerprint(),
            mask_reader=_read_mask,
        )

    def _description(self) -> dict[str, Any]:
        settings = SceneSettings.model_validate(self.model_dump(exclude={"cache_dir", "format"}))
        return {"partsworld": VERSION, "settings": settings.model_dump(mode="json")}

    def _ids(self, split: Split) -> list[str]:
        number = self.train if split == "train" else self.val
        return [f"{split}_{index:05d}" for index in range(number)]


def write_partsworld(directory: Path, settings: PartsWorldSource, *, progress: Progress | None = None) -> None:
    """Write the data set in VOC layout (see the README.txt it writes), all of it or nothing.

    Args:
        directory: new, empty, or an older PartsWorld, whose generated files are then replaced.
        settings: what to write; ``cache_dir`` is not looked at.
        progress: called with (images done, images in all).

    Raises:
        DataError: the directory holds something else.
        RunError: it cannot be written.
    """
    directory = Path(directory)
    _refuse_foreign(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name[:40]}-"))
        try:
            fresh.chmod(0o755)
            _fill(fresh, settings, progress)
            _move(fresh, directory, settings)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise write_error(directory, error) from error


def read_part_map(root: Path, sample_id: str) -> UInt8Array:
    """Part index of every pixel, uint8 [H, W]: 0 none, 1 head, 2 body, 3 limb, 4 tail. For analysis only.

    Args:
        root: folder of a PartsWorld (``sample.image_path.parent.parent``).
        sample_id: such as "train_00042".

    Raises:
        UnreadableMaskError: there is no such map, or it is broken.
    """
    return _read_labels(Path(root) / "PartMaps" / f"{sample_id}.png", len(PART_NAMES))


# -- writing -------------------------------------------------------------------------------------------------


def _fill(root: Path, settings: PartsWorldSource, progress: Progress | None) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "PartMaps", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    rows: list[tuple[str, str]] = []
    boxes: list[tuple[str, str, int, int, int, int]] = []
    for split in SPLITS:
        names = settings._ids(split)
        for index, name in enumerate(names):
            rendered = render(settings, split, index)
            _save_images(root, name, rendered)
            rows.append((f"{name}.jpg", "|".join(CLASSES.names[label] for label in rendered.labels)))
            boxes += [(name, CLASSES.names[b.label], b.x0, b.y0, b.x1, b.y1) for b in rendered.boxes]
            if progress is not None:
                progress(len(rows), settings.train + settings.val)
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    _save_table(root / "labels.csv", ("image", "tags"), rows)
    if settings.variant == "single":
        _save_table(root / "boxes.csv", BOX_COLUMNS, boxes)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES.names))
    (root / "README.txt").write_text(_readme(settings))
    (root / _MARKER).write_text(json.dumps(settings._description(), indent=1) + "\n")


def _save_images(root: Path, name: str, rendered: Rendered) -> None:
    Image.fromarray(rendered.image).save(root / "JPEGImages" / f"{name}.jpg", quality=_JPEG_QUALITY, subsampling=0)
    for folder, labels in (("SegmentationClass", rendered.mask), ("PartMaps", rendered.parts)):
        picture = Image.fromarray(labels)
        picture.putpalette(_PALETTE)
        picture.save(root / folder / f"{name}.png")


_PALETTE = voc_palette()


def _save_table(path: Path, header: tuple[str, ...], rows: list[Any]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")


def _readme(settings: PartsWorldSource) -> str:
    contexts = ", ".join(f"{CLASS_NAMES[label - 1]}: {name}" for label, name in CONTEXT_OF_LABEL.items())
    return f"""PartsWorld, a procedural data set of tagmask (generator version {VERSION}).

JPEGImages/             images
SegmentationClass/      masks, palette PNG, values = line numbers of classes.txt from 0
ImageSets/Segmentation/ train.txt, val.txt
labels.csv              image, tags (separated by |)
PartMaps/               for analysis only: {", ".join(f"{i} {name}" for i, name in enumerate(PART_NAMES))}
boxes.csv               variant "single" only: half-open pixel boxes, x0 <= x < x1

Contexts: {contexts}.
Settings: {json.dumps(settings._description()["settings"])}
"""


def _move(fresh: Path, directory: Path, settings: PartsWorldSource) -> None:
    """Give the finished folder its name; where an older set is, replace its entries one by one."""
    try:
        os.rename(fresh, directory)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return
    if _marker_of(directory) == settings._description():
        return
    (directory / _MARKER).unlink(missing_ok=True)
    # The marker goes last: a folder with it is complete.
    for entry in sorted(fresh.iterdir(), key=lambda entry: entry.name == _MARKER):
        target = directory / entry.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(entry, target)
    if settings.variant != "single":
        (directory / "boxes.csv").unlink(missing_ok=True)


def _refuse_foreign(directory: Path) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        msg = f"{directory} is a file. Name a new folder for PartsWorld."
        raise DataError(msg)
    if any(directory.iterdir()) and _marker_of(directory) is None:
        msg = f"{directory} is not empty and holds no PartsWorld. Name a new or an empty folder."
        raise DataError(msg)


# -- reading -------------------------------------------------------------------------------------------------


def _marker_of(directory: Path) -> dict[str, Any] | None:
    """What a folder's marker says it holds; None where there is no (readable) marker."""
    try:
        description = json.loads((directory / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return description if isinstance(description, dict) else None


def _sample(folder: Path, name: str, tags: tuple[int, ...], boxes: tuple[Box, ...]) -> Sample:
    return Sample(
        id=name,
        image_path=folder / "JPEGImages" / f"{name}.jpg",
        tags=tags,
        mask_path=folder / "SegmentationClass" / f"{name}.png",
        boxes=boxes,
    )


def _read_tags(folder: Path) -> dict[str, tuple[int, ...]]:
    rows = read_tag_table(read_columns(folder / "labels.csv"), TableLayout()).rows
    return {without_suffix(row.image): tuple(sorted(CLASSES.label(tag) for tag in row.tags)) for row in rows}


def _read_boxes(folder: Path) -> dict[str, tuple[Box, ...]]:
    boxes: dict[str, tuple[Box, ...]] = {}
    table = read_columns(folder / "boxes.csv")
    for image, name, *corners in zip(*(table.column(key) for key in BOX_COLUMNS), strict=True):
        boxes[image] = (*boxes.get(image, ()), Box(CLASSES.label(name), *(int(value) for value in corners)))
    return boxes


def _read_mask(sample: Sample) -> UInt8Array:
    if sample.mask_path is None:
        msg = f"{sample.id}: this view of PartsWorld has no masks"
        raise DataError(msg)
    return _read_labels(sample.mask_path, len(CLASSES.names))


def _read_labels(path: Path, n_labels: int) -> UInt8Array:
    try:
        with Image.open(path) as picture:
            labels = np.array(picture, dtype=np.uint8)
    except OSError as error:
        msg = f"{path}: cannot be read ({error}). Delete its data set and make it again."
        raise UnreadableMaskError(msg) from error
    if labels.ndim != 2 or int(labels.max(initial=0)) >= n_labels:
        msg = f"{path}: holds values other than 0..{n_labels - 1}. Delete its data set and make it again."
        raise UnreadableMaskError(msg)
    return labels
