"""A table of images and tags, and a folder of images: what practitioners have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tagmask.data.files import ImageFile, ImageFolder
from tagmask.data.lookup import ImageLookup
from tagmask.data.masks import MaskFolder, MaskSettings
from tagmask.data.source import TRAIN, VAL, Collector
from tagmask.data.table.find import ROBOFLOW, find_table
from tagmask.data.table.read import read_columns
from tagmask.data.table.roles import TableLayout
from tagmask.data.table.tag_table import TagRow, TagTable, group_rows, read_tag_table, united_tags
from tagmask.data.tags import TagResolver, joined_hint, make_classes
from tagmask.errors import DataError, UnknownNameError
from tagmask.types import ClassList, DataSource

USUAL_IMAGE_FOLDERS = ("images", "JPEGImages", "imgs", "img")


@dataclass(frozen=True)
class _Part:
    """One table, and where its images are looked for."""

    path: Path
    table: TagTable
    lookup: ImageLookup

    def ids(self, root: Path) -> Callable[[ImageFile], str]:
        """Ids of files: below the image folder; below ``root`` for images beside a table that lies deeper.

        Roboflow has such tables, in the folder of each split, and the same names in all of them.
        """
        folder = self.path.parent
        if folder == root:
            return lambda file: file.id
        return lambda file: file.id_below(root) if file.path == folder / file.relative else file.id


class TableSource(MaskSettings):
    """Tags from one column (``separator`` between them) or from one 0/1 column per class.

    Ids are paths below the image folder, without suffix. Text (CSV, TSV), Excel, Parquet, JSON and JSON lines are read,
    and the exports of Label Studio, FiftyOne, VIA, CVAT, LabelMe and YOLO for their tags.
    """

    file_keys: ClassVar[tuple[str, ...]] = ("classes", "tags_file", "val_tags_file", "images", "masks")

    format: Literal["table"] = "table"
    tags_file: str | None = Field(None, description="null: labels.csv or the like, or the only table in root")
    val_tags_file: str | None = Field(None, description="a second table with the validation images")
    images: str | None = Field(None, description="image folder; null: images/ where there is one, and root")
    image_column: str | None = Field(None, description="null: found among the usual names, as all columns")
    tags_column: str | None = None
    class_columns: Literal["auto"] | tuple[str, ...] | None = Field(
        None, description="columns of yes and no, one per class; 'auto': all columns that hold nothing else"
    )
    separator: Annotated[str, Field(min_length=1, description="between the tags of one image")] = "|"
    split_column: str | None = None
    presence_column: str | None = Field(
        None, description="0 there denies the tag of the row, in tables with a row per tag"
    )
    groups: str | None = Field(
        None, description="column of what goes together (patient, tile, scene): held out together or not at all"
    )
    mask_column: str | None = None
    masks: str | None = Field(None, description="mask folder; null: masks/ where there is one")

    def open(self) -> DataSource:
        """Load the samples; no image is opened.

        Raises:
            DataError: no table, one that can be read in two ways, or no usable row.
            UnknownNameError: a column or split that does not exist, or tags of which none is a class.
        """
        root = self.folder()
        masks = self._masks(root)
        parts = [self._read(root, path, masks) for path in self._paths(root)]
        names = list(dict.fromkeys(name for part in parts for name in part.table.names))
        if not parts[0].table.from_columns:
            names.sort()
        collector = Collector(self, "table")
        classes = self.chosen_classes([root / "classes.txt"]) or self._classes(names, parts[0], collector)
        resolver = TagResolver(classes, str(parts[0].path), collector.problems)
        for number, part in enumerate(parts):
            has_val = len(parts) > 1 or not {self._plain(name) for name in part.table.splits}.isdisjoint(self.val_names)
            collector.problems.extend(part.table.problems)
            self._collect(collector, resolver, part, masks, None if not number else VAL, has_val=has_val)
        resolver.check()
        return self.finish(collector, classes, masks)

    def _classes(self, names: Sequence[str], part: _Part, collector: Collector) -> ClassList:
        """The tags of the table; where they look joined, that is said, for each pair of them would be a class."""
        hint = "" if part.table.from_columns else joined_hint(names)
        try:
            classes = make_classes(names, str(part.path))
        except DataError as error:
            msg = f"{error}. {hint}" if hint else str(error)
            raise DataError(msg) from error
        if hint:
            collector.note("", part.path, hint)
        return classes

    def _paths(self, root: Path) -> list[Path]:
        """The table, and the one of the validation images where there is one."""
        paths = [root / self.tags_file if self.tags_file else find_table(root)]
        if self.val_tags_file:
            return [*paths, root / self.val_tags_file]
        if not self.tags_file and paths[0].name == ROBOFLOW:  # Roboflow: a table in the folder of each split
            paths += [path for name in self.val_names if (path := root / name / ROBOFLOW).is_file()][:1]
        return paths

    def _read(self, root: Path, path: Path, masks: MaskFolder | None) -> _Part:
        layout = TableLayout(
            image_column=self.image_column,
            tags_column=self.tags_column,
            class_columns=self.class_columns,
            split_column=self.split_column,
            mask_column=self.mask_column,
            presence_column=self.presence_column,
            group_column=self.groups,
            separator=self.separator,
        )
        lookup = ImageLookup(self._image_folders(root, path), [masks.root] if masks else [])
        table = read_tag_table(read_columns(path, lookup.is_image), layout, lookup.is_image)
        splits = {self._plain(name) for name in table.splits}
        if splits and self.train_split not in splits and not self.val_tags_file:
            raise UnknownNameError("split", self.train_split, table.splits, f"{path}: set data.train_split:")
        return _Part(path, table, lookup)

    def _collect(
        self,
        collector: Collector,
        resolver: TagResolver,
        part: _Part,
        masks: MaskFolder | None,
        split: str | None,
        *,
        has_val: bool,
    ) -> None:
        """Samples of a table. Rows of one image are one sample with the tags of all of them."""
        by_row = [*([masks] if masks else []), self.mask_folder(self.folder())]
        matches = part.lookup.match(row.image for row in part.table.rows)
        for row in part.table.rows:
            if row.image not in matches.files:
                collector.skip(row.image, part.path, f"line {row.line}: {matches.reasons[row.image]}; row left out")
        collector.problems.extend(matches.problems(part.path))
        rows = ((matches.files[row.image].path, row) for row in part.table.rows if row.image in matches.files)
        groups, problems = group_rows(rows, part.path)
        id_of = part.ids(self.folder())
        for group in groups.values():
            file = matches.files[group[0].image]
            key = id_of(file)
            named = next((row for row in group if row.mask), None)
            mask = _mask(collector, by_row, named) if named else masks.path_of(key) if masks else None
            labels = resolver.resolve(united_tags(group), key, str(file.path))
            name = split or self._split(group[0], has_val=has_val)
            collector.add(name, file, labels, sample_id=key, mask_path=mask, group=group[0].group)
        collector.problems.extend(problems)

    def _split(self, row: TagRow, *, has_val: bool) -> str | None:
        """Split of a row; None (to be divided) for training rows where nothing is marked as validation."""
        split = self._plain(row.split)
        if split in self.val_names:
            return VAL
        if split and split != self.train_split:
            return split
        return TRAIN if has_val else None

    def _plain(self, split: str) -> str:
        """A split's name as the settings write it: 'Train' is 'train'."""
        known = {name.casefold(): name for name in (self.train_split, *self.val_names)}
        return known.get(split.casefold(), split)

    def _image_folders(self, root: Path, table: Path) -> list[ImageFolder]:
        """Where the names of a table may start from, the likeliest first."""
        if self.images is not None:
            return [ImageFolder(_existing(root / self.images, "data.images"))]
        usual = [root / name for name in USUAL_IMAGE_FOLDERS if (root / name).is_dir()]
        beside = [table.parent] if table.parent != root and table.parent.is_relative_to(root) else []
        return [ImageFolder(folder) for folder in [*beside, *usual[:1], root]]

    def _masks(self, root: Path) -> MaskFolder | None:
        if self.masks is not None:
            return self.mask_folder(_existing(root / self.masks, "data.masks"))
        return self.mask_folder(root / "masks") if (root / "masks").is_dir() else None


def _mask(collector: Collector, folders: Sequence[MaskFolder], row: TagRow) -> Path | None:
    for folder in folders:
        path = folder.named(row.mask)
        if path is not None:
            return path
    collector.skip(row.image, row.mask, f"line {row.line}: no mask '{row.mask}' in {folders[-1].root}; image kept")
    return None


def _existing(folder: Path, key: str) -> Path:
    if not folder.is_dir():
        msg = f"{key}: {folder} is no folder. Correct the name; it starts from data.root."
        raise DataError(msg)
    return folder
