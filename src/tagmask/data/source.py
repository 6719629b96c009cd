"""What all data formats share: settings, splits, the collecting of samples, the fingerprint."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from tagmask.contracts.source import Source
from tagmask.data.files import ImageFile
from tagmask.data.hold_out import hold_out
from tagmask.data.near_duplicates import image_hashes, near_duplicates, united
from tagmask.data.tags import make_classes, read_classes
from tagmask.errors import DataError
from tagmask.storage.images import MAX_PIXELS
from tagmask.types import Box, ClassList, DataSource, MaskReader, Problem, Sample

log = logging.getLogger(__name__)
TRAIN, VAL = "train", "val"
#: Images of which near duplicates are looked for when data is opened; each is read once.
MOST_COMPARED = 5000
Band = Annotated[int, Field(ge=1)]


class SourceSettings(Source):
    """Settings of every data format. All file names but ``root`` are relative to ``root`` (or absolute)."""

    #: Settings that name a file or a folder.
    file_keys: ClassVar[tuple[str, ...]] = ("classes",)

    root: Path = Field(description="folder of the data set")
    classes: str | tuple[str, ...] | None = Field(
        None, description="file with one class name per line, or the names; null: what the format knows"
    )
    train_split: str = Field(TRAIN, description="name of the training split in the data")
    val_split: str = Field(VAL, description="name of the validation split in the data")
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="share held out for validation where the data has no validation split"
    )
    stratified: bool = Field(False, description="hold out an image of every class that can spare one")
    near_duplicates: bool = Field(
        False, description="near duplicates are held out together or not at all; every image is opened once"
    )
    seed: int = Field(0, description="changes which images are held out")
    max_pixels: Annotated[int, Field(ge=1)] = Field(MAX_PIXELS, description="larger images are refused")
    channels: Band | Annotated[tuple[Band, ...], Field(min_length=1)] | None = Field(
        None, description="bands of the files to read, counted from 1, or how many; null: colours"
    )
    value_range: tuple[float, float] | Literal["auto"] = Field(
        "auto",
        description="what becomes 0 and 255 of values with more than 8 bits; auto: from the training images",
    )

    @field_validator("value_range")
    @classmethod
    def _ascending(cls, value: tuple[float, float] | Literal["auto"]) -> tuple[float, float] | Literal["auto"]:
        if value != "auto" and not (math.isfinite(value[0]) and math.isfinite(value[1]) and value[0] < value[1]):
            msg = f"two numbers, the smaller one first, such as [0, 4095], not {list(value)}"
            raise ValueError(msg)
        return value

    @property
    def bands(self) -> tuple[int, ...] | None:
        """``channels`` as the numbers of bands, from 1; None: colours."""
        return tuple(range(1, self.channels + 1)) if isinstance(self.channels, int) else self.channels

    @property
    def val_names(self) -> tuple[str, ...]:
        """Names under which the validation split is looked for."""
        return (VAL, "valid", "validation") if self.val_split == VAL else (self.val_split,)

    def folder(self) -> Path:
        """``root``, which must be a folder; raises DataError."""
        root = self.root.expanduser()
        if not root.is_dir():
            what = "is a file, not a folder" if root.is_file() else "does not exist"
            msg = f"data.root: {root} {what}. Name the folder of the data set."
            raise DataError(msg)
        return root

    def list_path(self, name: str) -> Path | None:
        """See :meth:`Source.list_path`."""
        return self.places_of("list", name)[0]

    def places_of(self, key: str, name: str) -> tuple[Path, ...]:
        """Where the file that a setting names may lie; what is there first counts. Formats add their own places."""
        del key
        return (self.root.expanduser() / Path(name).expanduser(),)

    def missing_files(self) -> dict[str, Path]:
        """See :meth:`Source.missing_files`. A name that a format has by itself may lead nowhere."""
        root = self.root.expanduser()
        if not root.is_dir():
            return {"root": root}
        missing: dict[str, Path] = {}
        for key in self.file_keys:
            name = getattr(self, key)
            if not isinstance(name, str) or name == type(self).model_fields[key].default:
                continue
            places = self.places_of(key, name)
            if not any(place.exists() for place in places):
                missing[key] = places[0]
        return missing

    def chosen_classes(self, candidates: Sequence[Path] = ()) -> ClassList | None:
        """The class list of the settings, else of the first candidate file that exists, else None."""
        if isinstance(self.classes, str):
            return read_classes(self.folder() / self.classes)
        if self.classes is not None:
            return make_classes(self.classes, "data.classes")
        return next((read_classes(path) for path in candidates if path.is_file()), None)


@dataclass(slots=True)
class Collector:
    """Gathers samples and problems of one source. A split of None means: to be divided at the end."""

    settings: SourceSettings
    format: str
    problems: list[Problem] = field(default_factory=list)
    _rows: list[tuple[str | None, Sample, ImageFile]] = field(init=False, default_factory=list)
    _places: dict[str, Path] = field(init=False, default_factory=dict)
    _groups: dict[str, list[str]] = field(init=False, default_factory=dict)

    def add(
        self,
        split: str | None,
        file: ImageFile,
        tags: tuple[int, ...],
        *,
        sample_id: str | None = None,
        mask_path: Path | None = None,
        boxes: tuple[Box, ...] = (),
        group: str = "",
    ) -> bool:
        """Take one image; False when it is a double or has a name that no artifact could carry.

        Images of one ``group`` are held out together or not at all; '': the image is of no group.
        """
        key = file.id if sample_id is None else sample_id
        if not _encodable(key):
            self.skip(_shown(key), _shown(str(file.path)), "the file name is not valid UTF-8. Rename the file")
            return False
        if key in self._places:
            first = self._places[key]
            reason = f"image id '{key}' occurs again (first: {first}); only the first one is used. Rename the other"
            self.skip(key, file.path, reason)
            return False
        self._places[key] = file.path
        self._rows.append((split, Sample(key, file.path, tags, mask_path, boxes), file))
        if group:
            self._groups.setdefault(group, []).append(key)
        return True

    def ids(self) -> list[str]:
        """Ids of all samples so far."""
        return list(self._places)

    def has_masks(self) -> bool:
        """Whether any sample has a mask file."""
        return any(sample.mask_path for _, sample, _ in self._rows)

    def skip(self, sample_id: str, path: Path | str, reason: str) -> None:
        """List an image that is left out."""
        self.problems.append(Problem("data", sample_id, str(path), reason))

    def note(self, sample_id: str, path: Path | str, reason: str) -> None:
        """List what was read otherwise than it is written; nothing is left out."""
        self.problems.append(Problem("data", sample_id, str(path), reason, left_out=False))

    def finish(
        self,
        classes: ClassList,
        *,
        masks: MaskReader | None = None,
        has_mask: Callable[[Sample], bool] | None = None,
        mask_key: str = "",
    ) -> DataSource:
        """The source. ``masks`` read the truth; without any sample that has some, the source has no reader.

        Raises:
            DataError: no training image is left; names the first problem.
        """
        splits = self._divide()
        if not splits[TRAIN]:
            first = f" First problem: {self.problems[0].reason}" if self.problems else ""
            msg = f"{self.settings.root}: no usable training image (format {self.format}).{first}"
            raise DataError(msg)
        source = DataSource(
            format=self.format,
            classes=classes,
            splits=splits,
            fingerprint=self._fingerprint(classes, splits),
            problems=tuple(self.problems),
            max_pixels=self.settings.max_pixels,
            channels=self.settings.bands,
            value_range=None if self.settings.value_range == "auto" else self.settings.value_range,
            mask_reader=masks,
            mask_key=mask_key,
        )
        return source if has_mask is None else replace(source, has_mask=has_mask)

    def _divide(self) -> dict[str, tuple[Sample, ...]]:
        open_samples = [sample for split, sample, _ in self._rows if split is None]
        settings = self.settings
        validation = hold_out(
            open_samples,
            settings.val_fraction,
            settings.seed,
            stratified=settings.stratified,
            groups=self._together(open_samples) if settings.val_fraction > 0 else (),
        )
        if open_samples:
            log.info("no validation split in the data: %d of %d images held out", len(validation), len(open_samples))
        splits: dict[str, list[Sample]] = {TRAIN: [], VAL: []}
        for split, sample, _ in self._rows:
            name = split if split is not None else (VAL if sample.id in validation else TRAIN)
            splits.setdefault(name, []).append(sample)
        self._note_torn_groups({sample.id: name for name, samples in splits.items() for sample in samples})
        return {name: tuple(samples) for name, samples in splits.items()}

    def _together(self, samples: Sequence[Sample]) -> list[list[str]]:
        """Ids that must not be parted: images of one group, and near duplicates where those are asked for."""
        links: list[Sequence[str]] = list(self._groups.values())
        if self.settings.near_duplicates and len(samples) > MOST_COMPARED:
            reason = f"data.near_duplicates: {len(samples)} images are too many, up to {MOST_COMPARED} are compared"
            self.note("", self.settings.root, reason)
        elif self.settings.near_duplicates:
            links += near_duplicates(
                image_hashes(samples, max_pixels=self.settings.max_pixels, channels=self.settings.bands)
            )
        there = {sample.id for sample in samples}
        return united([key for key in ids if key in there] for ids in links)

    def _note_torn_groups(self, split_of: Mapping[str, str]) -> None:
        """Say when the data's own splits part a group."""
        torn = [group for group, ids in self._groups.items() if len({split_of[key] for key in ids}) > 1]
        if torn:
            reason = f"{len(torn)} groups have images in several splits, such as '{torn[0]}': validation is too kind"
            self.note("", self.settings.root, reason)

    def _fingerprint(self, classes: ClassList, splits: dict[str, tuple[Sample, ...]]) -> str:
        """sha256 of format, classes, splits, ids, tags, relative paths and sizes in bytes.

        No times and no absolute paths: a copy of the data set on another disk is the same data set.
        """
        digest = hashlib.sha256(json.dumps([self.format, classes.names], ensure_ascii=False).encode())
        files = {sample.id: file for _, sample, file in self._rows}
        for name, samples in splits.items():
            digest.update(f"\n\n{name}".encode())
            for sample in samples:
                file = files[sample.id]
                row = f"\n{sample.id}\0{sample.tags}\0{file.relative}\0{file.n_bytes}"
                digest.update(row.encode("utf-8", "backslashreplace"))
        return digest.hexdigest()


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
