"""A CSV or Parquet table of images and tags, and a folder of images: what practitioners have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tagmask.data.files import MASK_SUFFIXES, ImageFile, ImageFolder
from tagmask.data.source import TRAIN, VAL, Collector, SourceSettings
from tagmask.data.table.columns import read_columns
from tagmask.data.table.tag_table import TableLayout, TagRow, TagTable, read_tag_table
from tagmask.data.tags import TagResolver, make_classes
from tagmask.errors import DataError, UnknownNameError
from tagmask.types import DataSource

TABLE_FILES = (".csv", ".tsv", ".parquet")
USUAL_TABLES = ("labels", "tags", "annotations", "train", "data")
USUAL_IMAGE_FOLDERS = ("images", "JPEGImages", "imgs", "img")


class TableSource(SourceSettings):
    """Tags from one column (``separator`` between them) or from one 0/1 column per class.

    Ids are paths below the image folder, without suffix; the table may write names with or without it.
    """

    format: Literal["table"] = "table"
    tags_file: str | None = Field(None, description="the table; null: labels.csv, or the only table in root")
    val_tags_file: str | None = Field(None, description="a second table with the validation images")
    images: str | None = Field(None, description="image folder; null: images/ where there is one, and root")
    image_column: str | None = Field(None, description="null: found among the usual names, as all columns")
    tags_column: str | None = None
    class_columns: Literal["auto"] | tuple[str, ...] | None = Field(
        None, description="0/1 columns, one per class; 'auto': all columns that hold only 0 and 1"
    )
    separator: Annotated[str, Field(min_length=1, description="between the tags of one image")] = "|"
    split_column: str | None = None
    mask_column: str | None = None
    masks: str | None = Field(None, description="mask folder; null: masks/ where there is one")

    def open(self) -> DataSource:
        """Load the samples; no image is opened.

        Raises:
            DataError: no table, or no usable row.
            UnknownNameError: a column or split that does not exist, or tags of which none is a class.
        """
        root = self.folder()
        paths = [root / self.tags_file if self.tags_file else find_table(root)]
        if self.val_tags_file:
            paths.append(root / self.val_tags_file)
        tables = [self._read(path) for path in paths]
        names = list(dict.fromkeys(name for table in tables for name in table.names))
        if not tables[0].from_columns:
            names.sort()
        classes = self.chosen_classes([root / "classes.txt"]) or make_classes(names, str(paths[0]))
        collector = Collector(self, "table")
        resolver = TagResolver(classes, str(paths[0]), collector.problems)
        images, masks = self._image_folders(root), self._mask_folder(root)
        by_row = [ImageFolder(root, MASK_SUFFIXES)] if masks is None else [masks, ImageFolder(root, MASK_SUFFIXES)]
        for number, (path, table) in enumerate(zip(paths, tables, strict=True)):
            collector.problems.extend(table.problems)
            has_val = len(tables) > 1 or not table.splits.isdisjoint(self.val_names)
            for row in table.rows:
                try:
                    file = _find(images, row.image)
                except DataError as error:
                    collector.skip(row.image, path, f"line {row.line}: {error}; row left out")
                    continue
                mask = _mask(collector, by_row, row) if row.mask else masks.path_of(file.id) if masks else None
                tags = resolver.resolve(row.tags, file.id, str(file.path))
                split = VAL if number else self._split(row, has_val=has_val)
                collector.add(split, file, tags, mask_path=mask)
        resolver.check()
        return collector.finish(classes)

    def _read(self, path: Path) -> TagTable:
        layout = TableLayout(
            image_column=self.image_column,
            tags_column=self.tags_column,
            class_columns=self.class_columns,
            split_column=self.split_column,
            mask_column=self.mask_column,
            separator=self.separator,
        )
        table = read_tag_table(read_columns(path), layout)
        if table.splits and self.train_split not in table.splits and not self.val_tags_file:
            raise UnknownNameError("split", self.train_split, table.splits, f"{path}: set data.train_split:")
        return table

    def _split(self, row: TagRow, *, has_val: bool) -> str | None:
        """Split of a row; None (to be divided) for training rows where nothing is marked as validation."""
        if row.split in self.val_names:
            return VAL
        if row.split and row.split != self.train_split:
            return row.split
        return TRAIN if has_val else None

    def _image_folders(self, root: Path) -> list[ImageFolder]:
        if self.images is not None:
            return [ImageFolder(_existing(root / self.images, "data.images"))]
        usual = [root / name for name in USUAL_IMAGE_FOLDERS if (root / name).is_dir()]
        return [ImageFolder(folder) for folder in [*usual[:1], root]]

    def _mask_folder(self, root: Path) -> ImageFolder | None:
        if self.masks is not None:
            return ImageFolder(_existing(root / self.masks, "data.masks"), MASK_SUFFIXES)
        return ImageFolder(root / "masks", MASK_SUFFIXES) if (root / "masks").is_dir() else None


def find_table(root: Path) -> Path:
    """The table of a folder: the usual names first, else the only one.

    Raises:
        DataError: none, or several to choose from.
    """
    tables = sorted(path for path in root.iterdir() if path.suffix.lower() in TABLE_FILES)
    for stem in USUAL_TABLES:
        for path in tables:
            if path.stem.casefold() == stem:
                return path
    if len(tables) == 1:
        return tables[0]
    names = ", ".join(path.name for path in tables[:5])
    content = f"several tables ({names})" if tables else "no CSV or Parquet table"
    msg = f"{root}: {content}. Name the one with images and tags: data.tags_file=NAME."
    raise DataError(msg)


def _find(folders: Sequence[ImageFolder], name: str) -> ImageFile:
    """Look in the image folder, then in root (tables write 'images/a.jpg' as often as 'a.jpg')."""
    for folder in folders[:-1]:
        try:
            return folder.find(name)
        except DataError:
            continue
    return folders[-1].find(name)


def _mask(collector: Collector, folders: Sequence[ImageFolder], row: TagRow) -> Path | None:
    for folder in folders:
        path = folder.path_of(row.mask)
        if path is not None:
            return path
    collector.skip(row.image, row.mask, f"line {row.line}: no mask '{row.mask}' in {folders[-1].root}; image kept")
    return None


def _existing(folder: Path, key: str) -> Path:
    if not folder.is_dir():
        msg = f"{key}: {folder} is no folder. Correct the name; it starts from data.root."
        raise DataError(msg)
    return folder
