"""CUB-200-2011: birds of 200 species, one box each. Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", 2011.

5,994 training and 5,794 test images by ``train_test_split.txt``; the test images are ``val`` here. Boxes are x, y,
width and height in pixels and become half-open ones.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from tagmask.data.files import ImageFolder
from tagmask.data.localisation.lists import numbers, rows
from tagmask.data.localisation.object_masks import ObjectMasks
from tagmask.data.source import TRAIN, VAL, Collector, SourceSettings
from tagmask.data.tags import make_classes
from tagmask.errors import DataError
from tagmask.types import Box, DataSource

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt", "classes.txt")


class CubSource(SourceSettings):
    """CUB-200-2011 as it is unpacked. ``root`` is the folder of its lists, or the one above (CUB_200_2011).

    The masks of the separate ``segmentations`` archive are used where they lie beside the lists or above them.
    """

    file_keys: ClassVar[tuple[str, ...]] = ("classes", "images", "masks")

    format: Literal["cub"] = "cub"
    images: str = "images"
    masks: str = Field("segmentations", description="folder of grey masks, beside the lists or above them")

    def places_of(self, key: str, name: str) -> tuple[Path, ...]:
        """See :meth:`SourceSettings.places_of`: beside the lists, masks also above them."""
        (place,) = super().places_of(key, name)
        base = place_of_lists(self.root.expanduser())
        if key == "classes" or base is None:
            return (place,)
        return (base / name, *([base.parent / name] if key == "masks" else []))

    def open(self) -> DataSource:
        """Load the samples; no image is opened.

        Raises:
            DataError: a list is missing or says what it cannot, or no image is there.
        """
        base = find_lists(self.folder())
        names = [name for _, (_, name) in rows(base / "classes.txt", 2)]
        classes = self.chosen_classes() or make_classes(names, str(base / "classes.txt"))
        labels = _pairs(base / "image_class_labels.txt")
        training = _pairs(base / "train_test_split.txt")
        boxes = _boxes(base / "bounding_boxes.txt")
        images = ImageFolder(base / self.images)
        mask_folders = (ImageFolder(folder / self.masks, (".png",)) for folder in (base, base.parent))
        masks = next((folder for folder in mask_folders if folder.root.is_dir()), None)
        collector = Collector(self, "cub")
        for line, (number, name) in rows(base / "images.txt", 2):
            label = labels.get(number)
            if label is None or number not in training:
                collector.skip(name, base / "images.txt", f"line {line}: image {number} has no class or no split")
                continue
            if not 1 <= label < len(classes.names):
                msg = f"{base / 'image_class_labels.txt'}: image {number} has class {label} of {len(classes.names) - 1}"
                raise DataError(msg)
            try:
                file = images.find(name)
            except DataError as error:
                collector.skip(name, base / self.images, f"{error}; image left out")
                continue
            objects = tuple(Box(label, *corners) for corners in boxes.get(number, ()))
            split = TRAIN if training[number] else VAL
            mask = masks.path_of(file.id) if masks else None
            collector.add(split, file, (label,), mask_path=mask, boxes=objects)
        return collector.finish(classes, masks=ObjectMasks(self.max_pixels) if masks else None)


def place_of_lists(root: Path) -> Path | None:
    """The folder of the lists, ``root`` or CUB_200_2011 in it; None: neither holds them."""
    bases = (root, root / "CUB_200_2011")
    return next((base for base in bases if (base / LISTS[0]).is_file() and (base / LISTS[2]).is_file()), None)


def find_lists(root: Path) -> Path:
    """The folder of the lists: ``root``, or CUB_200_2011 in it.

    Raises:
        DataError: neither holds them.
    """
    base = place_of_lists(root)
    if base is not None:
        return base
    msg = f"{root}: no {', '.join(LISTS)} here or in CUB_200_2011/. Name the unpacked CUB_200_2011 as data.root."
    raise DataError(msg)


def _pairs(path: Path) -> dict[str, int]:
    return {cells[0]: int(numbers(cells[1:2], path, line)[0]) for line, cells in rows(path, 2)}


def _boxes(path: Path) -> dict[str, list[tuple[int, int, int, int]]]:
    boxes: dict[str, list[tuple[int, int, int, int]]] = {}
    for line, (number, *corners) in rows(path, 5):
        x, y, width, height = numbers(corners, path, line)
        box = (math.floor(x), math.floor(y), math.ceil(x + width), math.ceil(y + height))
        boxes.setdefault(number, []).append(box)
    return boxes
