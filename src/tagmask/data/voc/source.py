"""PASCAL VOC layout: VOC 2007/2012, SBD's train_aug lists, and own data in that layout with a classes.txt.

Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010; Hariharan et al., "Semantic Contours
from Inverse Detectors" (SBD), ICCV 2011.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tagmask.data.files import ImageFile, ImageFolder
from tagmask.data.lookup import ImageLookup
from tagmask.data.masks import MaskSettings, PngMasks
from tagmask.data.source import TRAIN, VAL, Collector
from tagmask.data.table.read import read_columns
from tagmask.data.table.roles import TableLayout
from tagmask.data.table.tag_table import group_rows, read_tag_table, united_tags
from tagmask.data.tags import TagResolver, make_classes
from tagmask.data.voc.layout import (
    LIST_FOLDERS,
    ListEntry,
    enclosing_folders,
    find_base,
    list_file,
    read_list,
    split_lists,
)
from tagmask.data.voc.xml import VocObject, read_objects
from tagmask.errors import DataError, UnknownNameError
from tagmask.types import IGNORE_INDEX, Box, DataSource, Problem

log = logging.getLogger(__name__)

#: The 20 classes in the order of the mask labels 1..20, which is alphabetical.
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

Origin = Literal["table", "xml", "masks"]


class VocSource(MaskSettings):
    """VOC layout. ``root`` holds JPEGImages itself, or VOCdevkit/VOC2012, or VOC2012.

    Tags: ``table`` = ``tags_file``; ``xml`` = Annotations, all objects; ``masks`` = every class that has a pixel
    (opens the masks while loading: a documented source of tags); ``auto`` = the first of these that exists.
    """

    file_keys: ClassVar[tuple[str, ...]] = (
        "classes", "images", "masks", "annotations", "train_list", "val_list", "tags_file",
    )  # fmt: skip

    format: Literal["voc"] = "voc"
    year: int | None = Field(None, description="2007 or 2012, where both are there")
    images: str = "JPEGImages"
    masks: str = Field("SegmentationClass", description="SegmentationClassAug for SBD's masks")
    annotations: str = "Annotations"
    train_list: str | None = Field(None, description="file, or name in ImageSets/Segmentation; null: train_split")
    val_list: str | None = Field(None, description="the same; null: val_split")
    tags: Literal["auto", "table", "xml", "masks"] = "auto"
    tags_file: str = Field("labels.csv", description="table with an image and a tags column")
    separator: Annotated[str, Field(min_length=1, description="between the tags of one image")] = "|"

    def list_path(self, name: str) -> Path | None:
        """See :meth:`Source.list_path`: a name in ImageSets, or a path below ``root`` or the folder of the year."""
        places = self.places_of("list", name)
        return next((place for place in places if place.is_file()), places[0])

    def places_of(self, key: str, name: str) -> tuple[Path, ...]:
        """See :meth:`SourceSettings.places_of`."""
        root = self.root.expanduser()
        try:
            base = find_base(root, self.images, self.year)
        except (DataError, UnknownNameError):  # opening the data says what is wrong
            base = root
        if key == "classes":
            return super().places_of(key, name)
        if key == "tags_file":
            return tuple(folder / name for folder in (root, *enclosing_folders(base)))
        if key in ("images", "masks", "annotations"):
            return (base / name,)
        usual = split_lists(base).get(name, base / LIST_FOLDERS[0] / f"{name}.txt")
        below = (*super().places_of(key, name), base / name)
        return below if Path(name).suffix else (usual, *below)

    def open(self) -> DataSource:
        """Load the samples; no image is decoded, and no mask opened unless tags come from masks.

        Raises:
            DataError: not this layout, a table that is missing, no usable image.
            UnknownNameError: a list that does not exist, or tags of which none is a class.
        """
        root = self.folder()
        base = find_base(root, self.images, self.year)
        places = enclosing_folders(base)
        classes = self.chosen_classes([folder / "classes.txt" for folder in places])
        classes = classes or make_classes(VOC_CLASSES, "PASCAL VOC")
        images, masks = ImageFolder(base / self.images), self.mask_folder(base / self.masks)
        listed_masks = self.mask_folder(base)
        collector = Collector(self, "voc")
        origin, where = self._origin(root, base, places)
        log.info("%s: tags come from %s", root, where)
        rows = self._rows(where, images, collector) if origin == "table" else {}
        annotations = base / self.annotations
        resolver = TagResolver(classes, str(where), collector.problems)
        reader = PngMasks(len(classes.names), self.max_pixels, self.mask_labels(classes))
        tagger = _Tagger(origin, where, rows, annotations if annotations.is_dir() else None, resolver, reader)
        entries = self._entries(root, base, images, collector.problems)
        matches = ImageLookup([images]).match(entry.image for _, entry in entries)
        for split, entry in entries:
            file = matches.files.get(entry.image)
            if file is None:
                collector.skip(entry.image, base / self.images, f"{matches.reasons[entry.image]}; image left out")
                continue
            mask = listed_masks.named(entry.mask) if entry.mask else masks.path_of(file.id)
            try:
                tags, boxes = tagger.read(file, mask)
            except DataError as error:
                collector.skip(file.id, file.path, f"no tags: {error}; image left out")
                continue
            collector.add(split, file, tags, mask_path=mask, boxes=boxes)
        collector.problems.extend(matches.problems(base / self.images))
        resolver.check()
        return self.finish(collector, classes, masks)

    def _origin(self, root: Path, base: Path, places: list[Path]) -> tuple[Origin, Path]:
        """Where tags come from: the chosen kind, or the first that exists."""
        tables = (folder / self.tags_file for folder in (root, *places))
        table = next((path for path in tables if path.is_file()), None)
        candidates: dict[Origin, Path | None] = {
            "table": table,
            "xml": base / self.annotations if (base / self.annotations).is_dir() else None,
            "masks": base / self.masks if (base / self.masks).is_dir() else None,
        }
        for origin, path in candidates.items():
            if path is not None and self.tags in ("auto", origin):
                return origin, path
        names = {"table": self.tags_file, "xml": f"{self.annotations}/", "masks": f"{self.masks}/"}
        missing = ", ".join(names.values()) if self.tags == "auto" else names[self.tags]
        msg = f"{base}: no tags (data.tags={self.tags}): {missing} not found. Add it, or set data.tags_file."
        raise DataError(msg)

    def _rows(self, path: Path, images: ImageFolder, collector: Collector) -> dict[str, tuple[str, ...]]:
        """Tag names by image id out of the table, which is read as the format ``table`` does."""
        lookup = ImageLookup([images])
        layout = TableLayout(separator=self.separator)
        table = read_tag_table(read_columns(path, lookup.is_image), layout, lookup.is_image)
        matches = lookup.match(row.image for row in table.rows)
        rows = ((matches.files[row.image].id, row) for row in table.rows if row.image in matches.files)
        groups, problems = group_rows(rows, path)
        collector.problems.extend((*table.problems, *matches.problems(path), *problems))
        gone = [row for row in table.rows if row.image not in matches.files]
        if gone:  # the lists say which images count, so rows of others are no loss, and told in one line
            first = f"line {gone[0].line}: {matches.reasons[gone[0].image]}"
            collector.note(gone[0].image, path, f"{len(gone)} rows name no image of this folder, such as {first}")
        return {key: united_tags(group) for key, group in groups.items()}

    def _entries(
        self, root: Path, base: Path, images: ImageFolder, problems: list[Problem]
    ) -> list[tuple[str | None, ListEntry]]:
        """Lines of the lists with their split; all images, to be divided, where there is no list at all."""
        available = split_lists(base)
        if not available and self.train_list is None:
            return [(None, ListEntry(file.relative)) for file in images.walk(problems)]
        train = list_file(root, base, self.train_list or self.train_split, available)
        usual = next((name for name in self.val_names if name in available), None)
        if usual is None and self.val_list is None and self.val_split != VAL:
            usual = self.val_split  # asked for by name, so its absence is an error
        val_name = self.val_list or usual
        val = list_file(root, base, val_name, available) if val_name else None

        def exists(name: str) -> bool:
            return images.path_of(name) is not None

        split = TRAIN if val else None
        entries: list[tuple[str | None, ListEntry]] = [
            (split, entry) for entry in read_list(train, self.images, exists)
        ]
        if val:
            entries.extend((VAL, entry) for entry in read_list(val, self.images, exists))
        return entries


@dataclass(slots=True)
class _Tagger:
    """Tags and boxes of one image, from wherever they come."""

    origin: Origin
    where: Path
    rows: Mapping[str, tuple[str, ...]]
    annotations: Path | None
    resolver: TagResolver
    masks: PngMasks
    _labels: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        foreground = self.resolver.classes.foreground
        self._labels = {name: label for label, name in enumerate(foreground, start=1)}

    def read(self, file: ImageFile, mask: Path | None) -> tuple[tuple[int, ...], tuple[Box, ...]]:
        """(tags, boxes); raises DataError with the reason when the image has no tags to be read."""
        objects = self._objects(file)
        boxes = tuple(
            Box(self._labels[item.name], *item.box)
            for item in objects
            if item.box is not None and item.name in self._labels
        )
        if self.origin == "masks":
            return self._from_mask(file, mask), boxes
        if self.origin == "xml":
            names: tuple[str, ...] = tuple(dict.fromkeys(item.name for item in objects))
        elif file.id in self.rows:
            names = self.rows[file.id]
        else:
            msg = f"no row for '{file.id}' in {self.where}"
            raise DataError(msg)
        return self.resolver.resolve(names, file.id, str(file.path)), boxes

    def _objects(self, file: ImageFile) -> tuple[VocObject, ...]:
        if self.annotations is None:
            return ()
        path = self.annotations / f"{file.id}.xml"
        if self.origin != "xml" and not path.is_file():
            return ()  # boxes are an extra where tags come from elsewhere
        return read_objects(path)

    def _from_mask(self, file: ImageFile, mask: Path | None) -> tuple[int, ...]:
        if mask is None:
            msg = "no mask to take them from"
            raise DataError(msg)
        labels = np.unique(self.masks.read(mask, file.path))
        return tuple(int(label) for label in labels if label not in (0, IGNORE_INDEX))
