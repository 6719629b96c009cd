"""COCO instances JSON: tags from categories, masks painted only when they are asked for (docs/own-data.md).

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from tagmask.data.coco.annotations import CocoContent, read_content
from tagmask.data.coco.masks import CocoMasks, MaskStyle
from tagmask.data.files import ImageFolder
from tagmask.data.source import TRAIN, VAL, Collector, SourceSettings
from tagmask.data.tags import make_classes
from tagmask.errors import DataError, UnknownNameError
from tagmask.types import Box, ClassList, DataSource


class CocoSource(SourceSettings):
    """COCO instances. Ids are paths below ``root``.

    A class is its category's rank by id; with ``classes`` only the named categories count, in that order. Images
    without any annotation stay, with no tags. Crowd regions give a tag but no mask pixels.
    """

    format: Literal["coco"] = "coco"
    annotations: str | None = Field(None, description="JSON; null: annotations/instances_train*.json")
    val_annotations: str | None = Field(None, description="JSON; null: the one beside it for val_split, if any")
    images: str | None = Field(None, description="image folder; null: found from the JSON's name")
    val_images: str | None = Field(None, description="the same for validation")
    mask_style: MaskStyle = Field(
        "annotation_order", description="which object is on top: the later one (the benchmark's rule), or the smaller"
    )

    def open(self) -> DataSource:
        """Load the samples; no image is opened and no mask painted.

        Raises:
            DataError: no JSON, a broken one, no image folder, no usable image.
            UnknownNameError: a class of ``classes`` that is no category.
        """
        root = self.folder()
        parts = [(split, read_content(path), folder) for split, path, folder in self._files(root)]
        masks = CocoMasks(self._classes(parts[0][1]), self.mask_style, self.max_pixels)
        collector = Collector(self, "coco")
        for split, content, folder in parts:
            self._check_categories(content, masks.classes)
            self._collect(collector, masks, split, content, ImageFolder(folder))
        if not masks.places:
            return collector.finish(masks.classes)
        return collector.finish(masks.classes, masks=masks, has_mask=masks.has_mask)

    def _collect(
        self, collector: Collector, masks: CocoMasks, split: str | None, content: CocoContent, folder: ImageFolder
    ) -> None:
        label = {name: number for number, name in enumerate(masks.classes.names)}
        root = self.folder()
        inside = folder.root != root and folder.root.is_relative_to(root)
        prefix = folder.root.relative_to(root).as_posix() + "/" if inside else ""
        for image in content.images:
            try:
                file = folder.find(image.file_name)
            except DataError as error:
                collector.skip(image.file_name, content.path, f"{error}; image left out")
                continue
            known = [item for item in image.objects if label.get(item.category, 0) > 0]
            tags = tuple(sorted({label[item.category] for item in known}))
            boxes = tuple(Box(label[item.category], *item.box) for item in known if item.box and not item.crowd)
            key = prefix + file.id
            if collector.add(split, file, tags, sample_id=key, boxes=boxes) and content.has_outlines and image.outlined:
                masks.places[key] = (content.path, image.key)
        for reason in content.rejected:
            collector.skip("", content.path, reason)

    def _classes(self, content: CocoContent) -> ClassList:
        classes = self.chosen_classes()
        if classes is None:
            return make_classes(content.categories, str(content.path))
        for name in classes.foreground:
            if name not in content.categories:
                raise UnknownNameError("category", name, content.categories, f"{content.path}: data.classes:")
        return classes

    def _check_categories(self, content: CocoContent, classes: ClassList) -> None:
        """Where no classes were chosen, a validation JSON must not bring categories of its own."""
        for name in content.categories if self.classes is None else ():
            if name not in classes.names:
                raise UnknownNameError("category", name, classes.foreground, str(content.path))

    def _files(self, root: Path) -> list[tuple[str | None, Path, Path]]:
        """(split, JSON, image folder) of each part."""
        train = root / self.annotations if self.annotations else find_annotations(root, (self.train_split,))
        train = train or single_annotations(root)
        if train is None:
            msg = f"{root}: no COCO JSON such as annotations/instances_train.json. Set data.annotations=FILE."
            raise DataError(msg)
        val = root / self.val_annotations if self.val_annotations else find_annotations(root, self.val_names)
        if val is not None and val != train:
            return [
                (TRAIN, train, self._image_folder(root, train, self.images)),
                (VAL, val, self._image_folder(root, val, self.val_images or self.images)),
            ]
        return [(None, train, self._image_folder(root, train, self.images))]

    def _image_folder(self, root: Path, path: Path, folder: str | None) -> Path:
        if folder is not None:
            if (root / folder).is_dir():
                return root / folder
            msg = f"data.images: {root / folder} is no folder. Correct the name; it starts from data.root."
            raise DataError(msg)
        part = path.stem.removeprefix("instances_")
        candidates = [root / part, root / "images" / part, root / "images"]
        if path.parent.name != "annotations":
            candidates.append(path.parent)
        return next((place for place in candidates if place.is_dir()), root)


def find_annotations(root: Path, splits: tuple[str, ...]) -> Path | None:
    """The JSON of a split by the usual names: instances_SPLIT*.json, SPLIT.json, SPLIT/_annotations.coco.json."""
    for split in splits:
        for pattern in (
            f"annotations/instances_{split}*.json",
            f"instances_{split}*.json",
            f"{split}/_annotations.coco.json",
            f"annotations/{split}.json",
            f"{split}.json",
        ):
            matches = sorted(root.glob(pattern))
            if matches:
                return matches[-1]
    return None


def single_annotations(root: Path) -> Path | None:
    """A JSON that is not divided into splits, as annotation tools write it; None where there are several."""
    patterns = ("annotations/instances_*.json", "instances*.json", "_annotations.coco.json", "annotations.json")
    matches = sorted({path for pattern in patterns for path in root.glob(pattern)})
    return matches[0] if len(matches) == 1 else None
