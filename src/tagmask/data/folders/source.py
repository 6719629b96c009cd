"""One folder per class: ``root/CLASS/*.jpg``, or ``root/train/CLASS/*.jpg`` beside ``root/val/CLASS/*.jpg``.

The images of a folder called ``background`` or ``none`` have no tag. Ids are paths below ``root``.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from tagmask.data.files import ImageFile, ImageFolder
from tagmask.data.folders.layout import refuse_no_classes
from tagmask.data.masks import MaskSettings
from tagmask.data.source import TRAIN, VAL, Collector
from tagmask.data.tags import TagResolver, is_background, make_classes
from tagmask.errors import DataError
from tagmask.types import DataSource, Problem


class FoldersSource(MaskSettings):
    """One folder per class. Where the top level holds ``train_split``, the class folders are inside it."""

    file_keys: ClassVar[tuple[str, ...]] = ("classes", "masks")

    format: Literal["folders"] = "folders"
    masks: str | None = Field(None, description="folder with masks, named and nested as the images are")

    def open(self) -> DataSource:
        """Load the samples; no image is opened.

        Raises:
            DataError: no class folder, no image in any, or folders of another layout (images/, masks/).
            UnknownNameError: not one folder is a class of the given class list.
        """
        root = self.folder()
        collector = Collector(self, "folders")
        placed: list[tuple[str | None, str, ImageFile]] = []
        for file in self._images(root, collector.problems):
            parts = file.relative.split("/")
            split, parts = self._split(root, parts)
            if len(parts) < 2:
                collector.skip(file.id, file.path, "lies in no class folder. Move it into one")
            else:
                placed.append((split, parts[0], file))
        names = sorted({name for _, name, _ in placed if not is_background(name)})
        if not names:
            msg = f"{root}: no class folder with images. Expected {root.name}/CLASS/IMAGE.jpg."
            raise DataError(msg)
        classes = self.chosen_classes([root / "classes.txt"])
        if classes is None:
            refuse_no_classes(root, {name for _, name, _ in placed}, [file for _, _, file in placed])
            classes = make_classes(names, str(root))
        resolver = TagResolver(classes, str(root), collector.problems)
        masks = self.mask_folder(root / self.masks) if self.masks else None
        for split, name, file in placed:
            tags = resolver.resolve([name], file.id, str(file.path))
            collector.add(split, file, tags, mask_path=masks.path_of(file.id) if masks else None)
        resolver.check()
        return self.finish(collector, classes, masks)

    def _images(self, root: Path, problems: list[Problem]) -> list[ImageFile]:
        mask_folder = root / self.masks if self.masks else None
        return [
            file
            for file in ImageFolder(root).walk(problems)
            if mask_folder is None or not file.path.is_relative_to(mask_folder)
        ]

    def _split(self, root: Path, parts: list[str]) -> tuple[str | None, list[str]]:
        """The split that the first folder names (None: to be divided) and the remaining parts."""
        if not (root / self.train_split).is_dir():
            return None, parts
        val = next((name for name in self.val_names if (root / name).is_dir()), None)
        if parts[0] == self.train_split:
            return (TRAIN if val else None), parts[1:]
        return (VAL if parts[0] == val else parts[0]), parts[1:]
