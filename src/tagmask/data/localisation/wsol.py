"""The lists of wsolevaluation: any images, with boxes (CUB, ILSVRC) or masks (OpenImages) for their evaluation.

Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020. In a folder per split:
``image_ids.txt`` (image), ``class_labels.txt`` (image,label from 0), ``image_sizes.txt`` (image,width,height) and, for
what is evaluated, ``localization.txt``: image,x0,y0,x1,y1 (a line per box), or image,mask,ignore mask (a line per
mask). Boxes are taken as half-open.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from tagmask.data.files import ImageFile, ImageFolder
from tagmask.data.localisation.lists import numbers, rows
from tagmask.data.localisation.object_masks import ObjectMasks
from tagmask.data.source import TRAIN, VAL, Collector, SourceSettings
from tagmask.errors import DataError, UnknownNameError
from tagmask.types import Box, ClassList, DataSource

LABELS, BOXES, IDS = "class_labels.txt", "localization.txt", "image_ids.txt"


class WsolListsSource(SourceSettings):
    """Images below ``images``, lists in ``metadata/SPLIT/``. Its splits are train, val and test: ``val_split: test``
    scores what the published figures are for.

    More than 254 classes are allowed; then no masks can be made of the maps.
    """

    file_keys: ClassVar[tuple[str, ...]] = ("classes", "images", "metadata", "masks")

    format: Literal["wsol"] = "wsol"
    images: str = Field(".", description="folder that the image names start from")
    metadata: str = Field("metadata", description="folder with a folder of lists per split")
    masks: str = Field(".", description="folder that mask names start from")

    def open(self) -> DataSource:
        """Load the samples; no image is opened.

        Raises:
            DataError: a list is missing or says what it cannot, or no image is there.
            UnknownNameError: no folder of lists for a split.
        """
        root = self.folder()
        lists = root / self.metadata
        names = (
            [folder.name for folder in sorted(lists.iterdir()) if (folder / LABELS).is_file()]
            if (lists.is_dir())
            else []
        )
        if not names:
            msg = (
                f"{lists}: no folder with {LABELS} in it. Set data.metadata to the folder that holds train/ and test/."
            )
            raise DataError(msg)
        if self.train_split not in names:
            raise UnknownNameError("split", self.train_split, names, f"{lists}: data.train_split:")
        usual = next((name for name in self.val_names if name in names), None)
        if usual is None and self.val_split != VAL:
            raise UnknownNameError("split", self.val_split, names, f"{lists}: data.val_split:")
        splits = {TRAIN: lists / self.train_split} | ({VAL: lists / usual} if usual else {})
        labels = {split: _labels(folder / LABELS) for split, folder in splits.items()}
        classes = self._class_list(max(label for by_name in labels.values() for label in by_name.values()))
        collector, images = Collector(self, "wsol"), ImageFolder(root / self.images)
        masks = _Truth(root / self.masks, self.max_pixels)
        for split, folder in splits.items():
            boxes = masks.read(folder)
            for name in _names(folder):
                label = labels[split].get(name)
                if label is None:
                    collector.skip(name, folder / LABELS, f"'{name}' has no class; image left out")
                    continue
                try:
                    file = images.find(name)
                except DataError as error:
                    collector.skip(name, folder, f"{error}; image left out")
                    continue
                objects = tuple(Box(label + 1, *corners) for corners in boxes.get(name, ()))
                place = split if len(splits) > 1 else None
                collector.add(place, file, (label + 1,), mask_path=masks.first_of(file, name), boxes=objects)
        return collector.finish(classes, masks=masks.reader() if masks.first else None)

    def _class_list(self, highest: int) -> ClassList:
        classes = self.chosen_classes([self.folder() / "classes.txt"])
        if classes is None:
            digits = len(str(highest))
            return ClassList(("background", *(f"class {i:0{digits}}" for i in range(highest + 1))), maskless=True)
        if highest + 1 >= len(classes.names):
            msg = f"{LABELS} holds label {highest}, but the class list has {len(classes.foreground)} classes (from 0)"
            raise DataError(msg)
        return classes


class _Truth:
    """What ``localization.txt`` says: boxes, or masks that are gathered here by image name."""

    def __init__(self, root: Path, max_pixels: int) -> None:
        self.root, self.max_pixels = root, max_pixels
        self.first: dict[str, Path] = {}
        self.parts: dict[str, tuple[Path, ...]] = {}
        self.ignored: dict[str, tuple[Path, ...]] = {}
        self.image_names: dict[str, str] = {}  # sample id -> image name

    def read(self, folder: Path) -> dict[str, list[tuple[int, int, int, int]]]:
        """Boxes by image name; a split without the list has none."""
        path = folder / BOXES
        boxes: dict[str, list[tuple[int, int, int, int]]] = {}
        if not path.is_file():
            return boxes
        for line, cells in rows(path, 2, ","):
            name, *rest = cells
            if len(rest) == 4:
                x0, y0, x1, y1 = numbers(rest, path, line)
                boxes.setdefault(name, []).append((math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)))
                continue
            mask, ignore = self.root / rest[0], self.root / rest[1] if len(rest) > 1 and rest[1] else None
            if name in self.first:
                self.parts[name] = (*self.parts.get(name, ()), mask)
            else:
                self.first[name] = mask
            if ignore is not None and ignore not in self.ignored.get(name, ()):
                self.ignored[name] = (*self.ignored.get(name, ()), ignore)
        return boxes

    def first_of(self, file: ImageFile, name: str) -> Path | None:
        """The first mask of an image; its others are for the reader."""
        self.image_names[file.id] = name
        return self.first.get(name)

    def reader(self) -> ObjectMasks:
        """What reads the masks, by sample id."""
        parts = {key: self.parts[name] for key, name in self.image_names.items() if name in self.parts}
        ignored = {key: self.ignored[name] for key, name in self.image_names.items() if name in self.ignored}
        return ObjectMasks(self.max_pixels, parts, ignored)


def _names(folder: Path) -> list[str]:
    """Image names in the order of the list of images, else of the list of classes."""
    path = folder / IDS if (folder / IDS).is_file() else folder / LABELS
    return [cells[0] for _, cells in rows(path, 1, ",")]


def _labels(path: Path) -> dict[str, int]:
    labels: dict[str, int] = {}
    for line, (name, label, *_) in rows(path, 2, ","):
        value = numbers([label], path, line)[0]
        if value < 0 or value != int(value):
            msg = f"{path}: line {line}: a class is a whole number from 0, not {label}"
            raise DataError(msg)
        labels[name] = int(value)
    if not labels:
        msg = f"{path}: is empty"
        raise DataError(msg)
    return labels
