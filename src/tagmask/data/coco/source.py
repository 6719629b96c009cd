"""COCO instances JSON: tags from categories, masks painted only when they are asked for (docs/own-data.md).

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from tagmask.data.coco.annotations import CocoContent, Key, read_content
from tagmask.data.coco.masks import CocoMasks, MaskStyle
from tagmask.data.files import ImageFile, ImageFolder
from tagmask.data.lookup import ImageLookup, Matches
from tagmask.data.source import TRAIN, VAL, Collector, SourceSettings
from tagmask.data.table.find import is_coco_file
from tagmask.data.tags import make_classes
from tagmask.errors import DataError, UnknownNameError
from tagmask.types import Box, ClassList, DataSource


class CocoSource(SourceSettings):
    """COCO instances. Ids are paths below ``root``.

    A class is its category's rank by id; with ``classes`` only the named categories count, in that order. Images
    without any annotation stay, with no tags. Crowd regions give a tag but no mask pixels.
    """

    file_keys: ClassVar[tuple[str, ...]] = ("classes", "annotations", "val_annotations", "images", "val_images")

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
            self._collect(collector, masks, split, content, folder)
        if not masks.places:
            return collector.finish(masks.classes)
        return collector.finish(masks.classes, masks=masks, has_mask=masks.has_mask)

    def _collect(
        self, collector: Collector, masks: CocoMasks, split: str | None, content: CocoContent, folder: Path
    ) -> None:
        label = {name: number for number, name in enumerate(masks.classes.names)}
        root = self.folder()
        places = [folder] if self.images or not folder.is_relative_to(root) else dict.fromkeys((folder, root))
        lookup = ImageLookup([ImageFolder(place) for place in places])
        matches = lookup.match(name for _, name in content.entries)
        for file, keys in _keys_by_file(collector, content, matches):
            images = [content.images[key] for key in keys]
            known = [item for image in images for item in image.objects if label.get(item.category, 0) > 0]
            tags = tuple(sorted({label[item.category] for item in known}))
            boxes = tuple(Box(label[item.category], *item.box) for item in known if item.box and not item.crowd)
            key = file.id_below(root)
            if (
                collector.add(split, file, tags, sample_id=key, boxes=boxes)
                and content.has_outlines
                and all(image.outlined for image in images)
            ):
                masks.places[key] = (content.path, keys)
        collector.problems.extend(matches.problems(content.path))
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
        if self.annotations:
            train: Path | None = root / self.annotations
        else:
            train = _only(find_annotations(root, (self.train_split,)), root, "data.annotations")
            train = train or single_annotations(root)
        if train is None:
            msg = f"{root}: no COCO JSON such as annotations/instances_train.json. Set data.annotations=FILE."
            raise DataError(msg)
        if self.val_annotations:
            val: Path | None = root / self.val_annotations
        else:
            val = _only(find_annotations(root, self.val_names), root, "data.val_annotations")
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


def _keys_by_file(
    collector: Collector, content: CocoContent, matches: Matches
) -> list[tuple[ImageFile, tuple[Key, ...]]]:
    """Image ids of each file, in the order of the JSON; what cannot be told apart is left out and listed.

    An id that stands for two files leaves both out: whose annotations those are cannot be known. A file with two ids
    keeps the annotations of both.
    """
    files_of: dict[Key, dict[Path, str]] = {}
    for key, name in content.entries:
        if name in matches.files:
            files_of.setdefault(key, {})[matches.files[name].path] = name
    keys_of: dict[Path, tuple[ImageFile, dict[Key, None]]] = {}
    for key, name in content.entries:
        if name not in matches.files:
            collector.skip(name, content.path, f"{matches.reasons[name]}; image left out")
        elif len(files_of[key]) > 1:
            shown = " and ".join(list(files_of[key].values())[:2])
            reason = (
                f"the image id {key} is there more than once ({shown}): whose annotations are they? Images left out"
            )
            collector.skip(name, content.path, reason)
        else:
            file = matches.files[name]
            keys = keys_of.setdefault(file.path, (file, {}))[1]
            if keys:
                reason = f"image '{name}' occurs again (id {key}): the annotations of its ids are united"
                collector.note(name, content.path, reason)
            keys[key] = None
    return [(file, tuple(keys)) for file, keys in keys_of.values()]


def _only(paths: list[Path], root: Path, setting: str) -> Path | None:
    """The JSON of a split; raises DataError where several are called so, for each would give other tags."""
    if len(paths) > 1:
        names = [path.relative_to(root).as_posix() for path in paths]
        msg = f"{root}: several annotation files fit: {', '.join(names)}. Choose one: {setting}={names[-1]}."
        raise DataError(msg)
    return paths[0] if paths else None


def find_annotations(root: Path, splits: tuple[str, ...]) -> list[Path]:
    """JSONs of a split by the usual names: instances_SPLIT*.json, SPLIT.json, SPLIT/_annotations.coco.json."""
    for split in splits:
        for pattern, is_surely_coco in (
            (f"annotations/instances_{split}*.json", True),
            (f"instances_{split}*.json", True),
            (f"{split}/_annotations.coco.json", True),
            (f"annotations/{split}.json", False),
            (f"{split}.json", False),
        ):
            paths = sorted(path for path in root.glob(pattern) if is_surely_coco or is_coco_file(path))
            if paths:
                return paths
    return []


def single_annotations(root: Path) -> Path | None:
    """A JSON that is not divided into splits, as annotation tools write it; None where there are several."""
    patterns = ("annotations/instances_*.json", "instances*.json", "_annotations.coco.json")
    paths = sorted({path for pattern in patterns for path in root.glob(pattern)})
    if not paths:
        others = (path for folder in (root, root / "annotations") for path in sorted(folder.glob("*.json")))
        paths = [path for path in others if is_coco_file(path)]
    return paths[0] if len(paths) == 1 else None
