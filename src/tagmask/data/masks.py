"""Masks of a data set as files: which file belongs to which image, and what its numbers mean."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from tagmask.data.files import MASK_SUFFIXES, ImageFolder, without_suffix
from tagmask.data.source import Collector, SourceSettings
from tagmask.data.tags import is_background
from tagmask.errors import UnknownNameError, UnreadableMaskError
from tagmask.storage.images import size_for_mask
from tagmask.storage.label_masks import read_mask_png
from tagmask.types import BACKGROUND, IGNORE_INDEX, ClassList, DataSource, Sample, UInt8Array

JPEG_SUFFIXES = (".jpg", ".jpeg")
_IGNORED = frozenset({"ignore", "void", "unlabeled", "unlabelled", "255"})


class MaskSettings(SourceSettings):
    """Settings of the formats that have masks as files of numbers."""

    mask_suffix: str = Field("", description="what a mask's name has behind the image's: '_mask' for a_mask.png")
    mask_values: Mapping[int, str] | None = Field(
        None, description="class of each number in the masks: {0: background, 255: polyp}; null: the class list's order"
    )

    def mask_labels(self, classes: ClassList) -> dict[int, int] | None:
        """Label of each stored number, None where the numbers are labels already.

        Raises:
            UnknownNameError: a name that is no class, 'background' or 'ignore'.
        """
        if self.mask_values is None:
            return None
        labels = {}
        for number, name in self.mask_values.items():
            if name in classes.foreground:
                labels[number] = classes.label(name)
            elif is_background(name):
                labels[number] = BACKGROUND
            elif name.casefold() in _IGNORED:
                labels[number] = IGNORE_INDEX
            else:
                choices = (*classes.foreground, "background", "ignore")
                raise UnknownNameError("class", name, choices, "data.mask_values")
        return labels

    def finish(self, collector: Collector, classes: ClassList, folder: MaskFolder | None) -> DataSource:
        """The source, with a reader of its masks where it has some."""
        labels = self.mask_labels(classes)
        if folder is not None:
            folder.note_unused(collector, collector.ids())
        if not collector.has_masks():
            return collector.finish(classes)
        reader = PngMasks(len(classes.names), self.max_pixels, labels)
        return collector.finish(classes, masks=reader, mask_key=repr(sorted(labels.items())) if labels else "")

    def mask_folder(self, folder: Path) -> MaskFolder:
        """Lookup in one folder; JPEG files count only where ``mask_values`` says between which numbers they blur."""
        return MaskFolder(folder, self.mask_suffix, MASK_SUFFIXES + JPEG_SUFFIXES * (self.mask_values is not None))


class MaskFolder:
    """Masks of one folder by the ids of their images.

    Args:
        root: the folder.
        ending: what stands behind the image's name in theirs.
        suffixes: which files count.
    """

    def __init__(self, root: Path, ending: str = "", suffixes: tuple[str, ...] = MASK_SUFFIXES) -> None:
        self.root, self.ending = root, ending
        self.files = ImageFolder(root, suffixes)
        self._by_fold: dict[str, list[Path]] | None = None
        self._used = 0

    def named(self, name: str) -> Path | None:
        """A mask by its own name, as a table may give it."""
        path = self.files.path_of(name)
        self._used += path is not None
        return path

    def path_of(self, image_id: str) -> Path | None:
        """The mask of an image: of its name, or the only one of its name in another case."""
        path = self.files.path_of(f"{image_id}{self.ending}")
        if path is None:
            if self._by_fold is None:
                self._by_fold = {}
                for file in self.files.walk([]):
                    self._by_fold.setdefault(file.id.casefold(), []).append(file.path)
            paths = self._by_fold.get(unicodedata.normalize("NFC", f"{image_id}{self.ending}").casefold(), [])
            path = paths[0] if len(paths) == 1 else None
        self._used += path is not None
        return path

    def note_unused(self, collector: Collector, ids: Collection[str]) -> None:
        """Say when there are masks and images, but not one mask is an image's; with the setting that would fit."""
        if self._used or not ids or not self.root.is_dir():
            return
        suffixes = (*MASK_SUFFIXES, *JPEG_SUFFIXES)
        names = [file.relative for file in ImageFolder(self.root, suffixes).walk([])]
        if not names:
            return
        reason = f"{self.root.name}/: not one of its {len(names)} files is the mask of an image, such as {names[0]}"
        collector.note("", self.root, f"{reason}.{_remedy(names, ids)}")


def _remedy(names: Collection[str], ids: Collection[str]) -> str:
    if all(name.lower().endswith(JPEG_SUFFIXES) for name in names):
        return (
            " JPEG blurs the numbers: save the masks as PNG, or say what they were: "
            "'data.mask_values={0: background, 255: NAME}'"
        )
    stems = {without_suffix(name) for name in names}
    for image_id in sorted(ids):
        endings = {stem[len(image_id) :] for stem in stems if stem.startswith(image_id)} - {""}
        fitting = [end for end in sorted(endings, key=len) if sum(f"{key}{end}" in stems for key in ids) * 2 > len(ids)]
        if fitting:
            return f" Set data.mask_suffix={fitting[0]}"
    return " Name them as the images are, or name their folder with data.masks"


@dataclass(frozen=True, slots=True)
class PngMasks:
    """Mask reader of all formats that keep masks as files; ``values`` is the label of each stored number."""

    n_classes: int
    max_pixels: int
    values: Mapping[int, int] | None = None

    def __call__(self, sample: Sample) -> UInt8Array:
        """uint8 [H, W]; raises UnreadableMaskError (also when the image itself cannot be read)."""
        if sample.mask_path is None:
            msg = f"{sample.image_path}: has no mask. Add one, or leave the image out of the evaluation."
            raise UnreadableMaskError(msg)
        return self.read(sample.mask_path, sample.image_path)

    def read(self, mask: Path, image: Path) -> UInt8Array:
        """Labels of one mask file, uint8 [H, W]; raises UnreadableMaskError."""
        return read_mask_png(mask, size_for_mask(image, max_pixels=self.max_pixels), self.n_classes, self.values)
