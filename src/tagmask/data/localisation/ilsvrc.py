"""ImageNet's localisation challenge: a folder of training images per class, validation images with boxes.

Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015. 1,000 classes are more than masks
have numbers for: recipes end at the maps (``refine: []``, ``segment: null``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from tagmask.data.files import ImageFile, ImageFolder
from tagmask.data.localisation.lists import numbers, rows
from tagmask.data.localisation.object_masks import ObjectMasks
from tagmask.data.source import TRAIN, VAL, Collector, SourceSettings
from tagmask.data.voc.xml import read_objects
from tagmask.errors import DataError
from tagmask.types import Box, ClassList, DataSource

WNID = re.compile(r"n\d{8}")
_TRAIN = ("Data/CLS-LOC/train", "train", "ILSVRC2012_img_train")
_VAL = ("Data/CLS-LOC/val", "val", "ILSVRC2012_img_val")
_XML = ("Annotations/CLS-LOC/val", "ILSVRC2012_bbox_val_v3/val", "annotations/val", "val_annotations", "bbox/val")
_LISTS = ("LOC_val_solution.csv", "../LOC_val_solution.csv")
NamedBox = tuple[str, tuple[int, int, int, int]]


class IlsvrcSource(SourceSettings):
    """ILSVRC as it is unpacked, by the challenge or by Kaggle. Folders that are null are looked for at usual places.

    A validation image's class is its folder, where there is one, else that of its boxes. Boxes come from the XML files,
    or from Kaggle's list (``ImageId,PredictionString``: class x0 y0 x1 y1, repeated). ``masks`` (SEM's, say) are PNGs
    that are white where the object is; they serve the IoU curve and PxAP.
    """

    file_keys: ClassVar[tuple[str, ...]] = ("classes", "train", "val", "annotations", "boxes", "masks")

    format: Literal["ilsvrc"] = "ilsvrc"
    train: str | None = Field(None, description="training images, a folder per class")
    val: str | None = Field(None, description="validation images")
    annotations: str | None = Field(None, description="XML files of the validation images")
    boxes: str | None = Field(None, description="list of boxes instead of XML files")
    masks: str | None = Field(None, description="grey masks of the validation images' objects, named as the images")

    def places_of(self, key: str, name: str) -> tuple[Path, ...]:
        """See :meth:`SourceSettings.places_of`: all but the class list lies below ILSVRC, where that is there."""
        if key in ("classes", "list"):
            return super().places_of(key, name)
        return (find_base(self.root.expanduser()) / name,)

    def open(self) -> DataSource:
        """Load the samples; no image is opened.

        Raises:
            DataError: no training folder, or no image in it.
        """
        base = find_base(self.folder())
        train = _place(base, self.train, _TRAIN)
        if train is None:
            msg = f"{base}: no training images ({', '.join(_TRAIN)}). Set data.train."
            raise DataError(msg)
        wnids = sorted(path.name for path in train.iterdir() if path.is_dir() and WNID.fullmatch(path.name))
        if not wnids:
            msg = f"{train}: no folder is called as a class is (n01440764). Unpack each archive into its own."
            raise DataError(msg)
        classes = ClassList(("background", *wnids), maskless=True)
        collector = Collector(self, "ilsvrc")
        has_val = _place(base, self.val, _VAL) is not None
        for wnid in wnids:
            for file in ImageFolder(train / wnid).walk(collector.problems):
                key = f"{wnid}/{file.id}"
                placed = ImageFile(file.path, f"{wnid}/{file.relative}", file.n_bytes)
                collector.add(TRAIN if has_val else None, placed, (classes.label(wnid),), sample_id=key)
        if has_val:
            self._validation(base, classes, collector)
        source = collector.finish(classes, has_mask=lambda sample: False)
        return replace(source, object_reader=ObjectMasks(self.max_pixels, value=1) if self.masks else None)

    def _validation(self, base: Path, classes: ClassList, collector: Collector) -> None:
        folder, masks = _place(base, self.val, _VAL), _place(base, self.masks, ())
        mask_folder = ImageFolder(masks, (".png",)) if masks is not None else None
        xml = _place(base, self.annotations, _XML)
        box_list = _place(base, self.boxes, _LISTS)
        if folder is None:
            return
        label_of = {name: label for label, name in enumerate(classes.names)}
        boxes_by_stem = _read_list(box_list) if box_list is not None else {}
        for file in ImageFolder(folder).walk(collector.problems):
            stem, parent = file.path.stem, file.path.parent.name
            try:
                objects = boxes_by_stem[stem] if stem in boxes_by_stem else _read_xml(xml, stem, parent)
            except DataError as error:
                collector.skip(file.id, file.path, f"no boxes: {error}; image left out")
                continue
            names = [parent] if parent in label_of else list(dict.fromkeys(name for name, _ in objects))
            labels = [label_of[name] for name in names if name in label_of]
            if len(labels) != 1:
                reason = (
                    f"its class is not clear: {', '.join(names) or 'no box and no folder names it'}; image left out"
                )
                collector.skip(file.id, file.path, reason)
                continue
            boxes = tuple(Box(labels[0], *corners) for name, corners in objects if name == names[0])
            mask = mask_folder.path_of(stem) if mask_folder else None
            collector.add(VAL, file, (labels[0],), mask_path=mask, boxes=boxes)


def find_base(root: Path) -> Path:
    """``root``, or ILSVRC in it (Kaggle's archive)."""
    return root / "ILSVRC" if (root / "ILSVRC" / "Data").is_dir() else root


def looks_like(root: Path) -> bool:
    """Whether a folder is of this layout: a training folder with folders called as classes are."""
    train = _place(find_base(root), None, _TRAIN)
    return train is not None and any(WNID.fullmatch(path.name) for path in train.iterdir() if path.is_dir())


def _place(base: Path, chosen: str | None, usual: Iterable[str]) -> Path | None:
    if chosen is not None:
        if not (base / chosen).exists():
            msg = f"{base / chosen}: does not exist. Correct its name; it starts from {base}."
            raise DataError(msg)
        return base / chosen
    return next((base / name for name in usual if (base / name).exists()), None)


def _read_xml(folder: Path | None, stem: str, wnid: str) -> list[NamedBox]:
    """Objects of one image; pixels in these files count from 0 and the last one belongs to the box."""
    if folder is None:
        return []
    places = (folder / f"{stem}.xml", folder / wnid / f"{stem}.xml")
    path = next((place for place in places if place.is_file()), places[0])
    return [
        (item.name, (item.box[0] + 1, item.box[1] + 1, item.box[2] + 1, item.box[3] + 1))
        for item in read_objects(path)
        if item.box is not None
    ]


def _read_list(path: Path) -> dict[str, list[NamedBox]]:
    boxes: dict[str, list[NamedBox]] = {}
    for line, (name, text, *_) in rows(path, 2, ","):
        cells = text.split()
        if line == 1 and name == "ImageId":
            continue
        if len(cells) % 5:
            msg = f"{path}: line {line}: expected class x0 y0 x1 y1, repeated, got '{text[:60]}'"
            raise DataError(msg)
        objects = []
        for start in range(0, len(cells), 5):
            x0, y0, x1, y1 = (int(value) for value in numbers(cells[start + 1 : start + 5], path, line))
            objects.append((cells[start], (x0, y0, x1 + 1, y1 + 1)))
        boxes[Path(name).stem] = objects
    return boxes
