"""Pseudo masks that a person has corrected: a folder of the recipe, and what was edited inside the run directory.

An edited refine/masks/ID.png is copied to corrections/masks/ID.png, where it outlives a refine stage that is redone.
Only the segmentation network reads corrections: nothing before it depends on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tagmask.data.files import MASK_SUFFIXES, ImageFolder
from tagmask.data.lookup import ImageLookup
from tagmask.errors import DataError, InputError, RunError
from tagmask.runs.context import TRAIN
from tagmask.runs.stage_names import REFINE
from tagmask.runs.workspace import Workspace
from tagmask.settings.recipe import Recipe
from tagmask.storage.arrays import SCHEMA
from tagmask.storage.files import artifact_name, atomic_write
from tagmask.storage.images import size_for_mask
from tagmask.storage.label_masks import read_mask_png
from tagmask.storage.records import read_json, write_json
from tagmask.types import DataSource, Sample, UInt8Array

CORRECTIONS = "corrections"
#: What the refine stage left, in its folder: by file name the size in bytes and a hash.
RECORD = "masks.json"
SETTING = "segment.corrections"
_SHOWN = 3


@dataclass(frozen=True)
class Corrections:
    """Masks of training images that a person has made, in place of pseudo masks.

    Args:
        paths: corrected masks, file by image id.
        n_classes: classes with the background.
        max_pixels: of the data; larger images are not opened.
        unused: names of files in the recipe's folder that are no training image's.
        source: reads the data's own masks of ``real``.
        real: images whose mask of the data is learnt from; a corrected one goes before it.
    """

    paths: Mapping[str, Path] = field(default_factory=dict)
    n_classes: int = 0
    max_pixels: int = 0
    unused: tuple[str, ...] = ()
    source: DataSource | None = None
    real: frozenset[str] = frozenset()

    @property
    def ids(self) -> frozenset[str]:
        """Images with a mask of a person's: corrected, or one of the data's own."""
        return self.real | self.paths.keys()

    def read(self, sample: Sample) -> UInt8Array:
        """Labels of one mask, uint8 [H, W], at the size of the image's file.

        Raises:
            UnreadableMaskError: broken, a colour picture, of another size, or with a number that is no class.
        """
        if sample.id not in self.paths and self.source is not None:
            return self.source.read_mask(sample)
        size = size_for_mask(sample.image_path, max_pixels=self.max_pixels)
        return read_mask_png(self.paths[sample.id], size, self.n_classes)

    def check(self, samples: Iterable[Sample]) -> tuple[list[str], list[str]]:
        """Read all corrected masks; returns the ids of those that do not fit their image's tags.

        First those with a class that is not among the tags, then those with not one of the tags, where there are some:
        other numbers than those of the class list, perhaps.

        Raises:
            InputError: one cannot be used; says why, and which.
        """
        beyond, without = [], []
        for sample in samples:
            if sample.id not in self.paths:
                continue
            try:
                mask = self.read(sample)
            except DataError as error:
                msg = f"corrected mask {error}"
                raise InputError(msg) from error
            labels = {label for label in range(1, self.n_classes) if (mask == label).any()}
            if labels - set(sample.tags):
                beyond.append(sample.id)
            if sample.tags and labels.isdisjoint(sample.tags):
                without.append(sample.id)
        return beyond, without

    def state(self) -> str:
        """Number and hash of the corrected masks, '' without any: what a training on them depends on."""
        if not self.paths:
            return ""
        digest = hashlib.sha256()
        for sample_id, path in sorted(self.paths.items()):
            digest.update(f"{sample_id}\0{_file_hash(path)}\n".encode("utf-8", "backslashreplace"))
        return f"{len(self.paths)} masks ({digest.hexdigest()[:12]})"


NO_CORRECTIONS = Corrections()


def with_real_masks(corrections: Corrections, source: DataSource) -> Corrections:
    """The same, and the masks that a stage's view of the data has."""
    real = frozenset(sample.id for sample in source.splits.get(TRAIN, ()) if source.has_mask(sample))
    return replace(corrections, source=source, real=real)


def find_corrections(workspace: Workspace, recipe: Recipe, source: DataSource) -> Corrections:
    """The corrected masks of a run: those of the recipe's folder, and those that were edited in the run directory.

    Where both have a mask of an image, the folder's counts. Only training images learn from a mask. A file may be
    called as its image or as the artifact of it, with ``data.mask_suffix`` behind or without.

    Raises:
        InputError: the folder is not there, or holds not one mask of a training image.
    """
    folder = recipe.segment.corrections if recipe.segment else None
    samples = source.splits.get(TRAIN, ())
    paths = {s.id: path for s in samples if (path := workspace.mask_path(s.id, CORRECTIONS)).is_file()}
    unused: tuple[str, ...] = ()
    if folder is not None:
        chosen, unused = _in_folder(folder, [sample.id for sample in samples], getattr(recipe.data, "mask_suffix", ""))
        paths |= chosen
    return Corrections(paths, len(source.classes.names), source.max_pixels, unused)


def _in_folder(folder: Path, ids: Sequence[str], ending: str) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Files of a folder by image id, and the names of the others."""
    if not folder.is_dir():
        msg = f"{SETTING}: {folder} is no folder. Name the one with the corrected masks."
        raise InputError(msg)
    files = ImageFolder(folder, MASK_SUFFIXES)
    # As the run directory writes names first: whoever copied masks from there has exactly these.
    paths = {key: path for key in ids if (path := files.path_of(artifact_name(key))) is not None}
    for behind in dict.fromkeys(("", ending)):
        names = {f"{key}{behind}": key for key in ids if key not in paths}
        matches = ImageLookup([files]).match(names)
        paths |= {names[name]: file.path for name, file in matches.files.items()}
    there = {file.path: file.relative for file in files.walk([])}
    for path in paths.values():
        there.pop(path, None)
    if not paths:
        such = f", such as {next(iter(there.values()))}" if there else ""
        msg = (
            f"{SETTING}: {folder} holds no mask of a training image ({len(there)} files{such}). Name each as its "
            "image, with the suffix .png"
        )
        raise InputError(msg)
    return paths, tuple(there.values())


def record_masks(workspace: Workspace) -> None:
    """Write down what the refine stage left, so that a file that is edited later is noticed."""
    folder = workspace.stage(REFINE) / "masks"
    files = sorted(folder.glob("*.png")) if folder.is_dir() else []
    masks = {path.name: [path.stat().st_size, _file_hash(path)] for path in files}
    write_json(workspace.stage(REFINE) / RECORD, {"schema": SCHEMA, "masks": masks})


def edited_masks(workspace: Workspace) -> dict[str, str]:
    """Files of refine/masks whose content is not what the stage left, by name, each with the hash of its content.

    Only files that are newer than the stage's record, or of another size, are read. Runs of versions without a record
    have none that could be told.

    Raises:
        RunError: one cannot be read.
    """
    record_path = workspace.stage(REFINE) / RECORD
    if not record_path.is_file():
        return {}
    written, masks = record_path.stat().st_mtime_ns, read_json(record_path)["masks"]
    edited = {}
    for name, (size, digest) in masks.items():
        path = workspace.stage(REFINE) / "masks" / name
        if not path.is_file():
            continue  # deleted to have it made again
        status = path.stat()
        if status.st_size == size and status.st_mtime_ns <= written:
            continue
        if (content := _file_hash(path)) != digest:
            edited[name] = content
    return edited


def adopt_edits(workspace: Workspace) -> list[str]:
    """Copy masks that were edited in refine/masks to corrections/masks; returns the names of those that are new there.

    Raises:
        RunError: one cannot be read or copied.
    """
    names = []
    for name, content in edited_masks(workspace).items():
        target = workspace.stage(CORRECTIONS) / "masks" / name
        if target.is_file() and _file_hash(target) == content:
            continue
        with atomic_write(target) as stream:
            stream.write((workspace.stage(REFINE) / "masks" / name).read_bytes())
        names.append(name)
    return names


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror or error})"
        raise RunError(msg) from error
