"""Folders of other layouts: read as what they are, or refused with a command; every command is tried here."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tagmask.cli.data import data_settings
from tagmask.data.detect import detect_format
from tagmask.errors import DataError, TagmaskError
from tagmask.types import DataSource

Layout = Callable[..., Path]


@pytest.fixture
def layout(tmp_path: Path, draw: Any) -> Layout:
    """``layout(*names)``: a data set with these files; images are drawn, other files are empty."""

    def make(*names: str) -> Path:
        for value, name in enumerate(names):
            path = tmp_path / "farm" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(path, value) if path.suffix in (".jpg", ".png") else path.touch()
        return tmp_path / "farm"

    return make


def opened(source: Path | str, *overrides: str) -> DataSource:
    settings = data_settings(str(source), ["data.val_fraction=0", *overrides])
    return settings.open()  # type: ignore[no-any-return]


def tags(source: DataSource) -> dict[str, tuple[str, ...]]:
    names = source.classes.names
    return {sample.id: tuple(names[tag] for tag in sample.tags) for sample in source.split("train")}


def command(root: Path) -> tuple[str, list[str]]:
    """The command that the refusal of a folder names: its source and its settings."""
    with pytest.raises(TagmaskError) as caught:
        opened(root)
    message = str(caught.value)
    assert "\n" not in message
    words = shlex.split(re.search(r"tagmask data check .*", message)[0].rstrip("."))  # type: ignore[index]
    return words[3], words[4:]


PHOTOS = [f"{name}.jpg" for name in "abcd"]
ROWS = "image,tags\na,cow\nb,dog\nc,\nd,cow|dog\n"
EXPECTED = {"a": ("cow",), "b": ("dog",), "c": (), "d": ("cow", "dog")}


@pytest.mark.parametrize("folder", ["images", "photos 2026", "data", "x"])
@pytest.mark.parametrize("table", ["labels.csv", "tags of 2026.tsv", "t.jsonl", "labels.json"])
def test_a_table_beside_one_folder_is_a_table(layout: Layout, folder: str, table: str) -> None:
    root = layout(*(f"{folder}/{name}" for name in PHOTOS), table)
    rows = [line.split(",") for line in ROWS.splitlines()[1:]]
    if table.endswith("json"):
        (root / table).write_text(json.dumps({f"{name}.jpg": text.split("|") for name, text in rows}))
    elif table.endswith("jsonl"):
        (root / table).write_text("".join(json.dumps({"image": a, "tags": b}) + "\n" for a, b in rows))
    else:
        (root / table).write_text(ROWS.replace(",", "\t") if table.endswith("tsv") else ROWS)
    assert detect_format(root) == "table"
    assert {key.rpartition("/")[2]: names for key, names in tags(opened(root)).items()} == EXPECTED


def test_a_table_file_is_checked_by_its_name(layout: Layout) -> None:
    root = layout(*(f"images/{name}" for name in PHOTOS), "other.csv", "annotations/labels.csv")
    for name in ("other.csv", "annotations/labels.csv"):
        (root / name).write_text(ROWS)
        assert tags(opened(root / name)) == EXPECTED
    (root / "coco.json").write_text(
        json.dumps({
            "images": [{"id": 1, "file_name": "a.jpg"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1}],
            "categories": [{"id": 1, "name": "cow"}],
        })
    )  # fmt: skip
    assert tags(opened(root / "coco.json")) == {"images/a": ("cow",)}
    for name, said in (("images/a.jpg", "is an image"), ("x.zip", "unpack it")):
        (root / name).touch()
        with pytest.raises(DataError, match=said):
            opened(root / name)


@pytest.mark.parametrize("folder", ["images", "Images", "data", "masks", "IMG", "photos"])
def test_a_lone_class_of_such_a_name_is_an_error(layout: Layout, folder: str) -> None:
    root = layout(*(f"{folder}/{name}" for name in PHOTOS))
    with pytest.raises(DataError, match=rf"'{folder}' is no class.*labels\.csv"):
        opened(root)
    assert opened(root, f"data.classes=[{folder}]").classes.foreground == (folder,)


def test_masks_beside_images(layout: Layout, draw_mask: Any) -> None:
    root = layout(*(f"images/{name}" for name in PHOTOS))
    for name in "abcd":
        draw_mask(root / "masks" / f"{name}.png", (0, 1))
    source, settings = command(root)
    settings = [text.replace("[NAME, NAME]", "[polyp]") for text in settings]
    assert set(tags(opened(source, *settings)).values()) == {("polyp",)}


def test_masks_beside_classes(layout: Layout, draw_mask: Any) -> None:
    root = layout(*(f"{tag}/{name}" for tag in ("cow", "dog") for name in PHOTOS))
    draw_mask(root / "masks" / "cow" / "a.png", (0, 1))
    source, settings = command(root)
    assert opened(source, *settings).classes.foreground == ("cow", "dog")


@pytest.mark.parametrize("above", ["images", "farm animals", "data"])
def test_classes_one_folder_deeper(layout: Layout, above: str) -> None:
    root = layout(*(f"{above}/{tag}/{name}" for tag in ("cow", "dog") for name in PHOTOS))
    source, settings = command(root)
    assert opened(source, *settings).classes.foreground == ("cow", "dog")


def test_splits_of_other_names(layout: Layout) -> None:
    root = layout(
        *(f"{split}/{tag}/{name}" for split in ("training", "testing") for tag in ("cow", "dog") for name in PHOTOS)
    )
    source, settings = command(root)
    assert {name: len(rows) for name, rows in opened(source, *settings).splits.items()} == {"train": 8, "val": 8}


@pytest.mark.parametrize("place", ["images/labels.csv", "masks/labels.csv", "images/list.txt"])
def test_a_table_inside_the_folder(layout: Layout, place: str) -> None:
    root = layout(*(f"images/{name}" for name in PHOTOS), "masks/x.jpg", place)
    (root / place).write_text(ROWS.replace("image,tags\n", "").replace(",", ".jpg,") if place.endswith("txt") else ROWS)
    source, settings = command(root)
    assert {key.rpartition("/")[2]: names for key, names in tags(opened(source, *settings)).items()} == EXPECTED


@pytest.mark.parametrize("folder", ["images", "x"])
def test_tables_that_are_not_read_say_so(layout: Layout, folder: str) -> None:
    root = layout(*(f"{folder}/{name}" for name in PHOTOS), "labels.xls")
    with pytest.raises(DataError, match=r"[Tt]he file labels\.xls is not read: save it as \.xlsx or as CSV"):
        opened(root)
    (root / "labels.xls").rename(root / "list.txt")
    (root / "list.txt").write_text("a.jpg,cow\nb.jpg,dog\n")
    source, settings = command(root)
    assert opened(source, *settings).classes.foreground == ("cow", "dog")
    (root / "list.txt").write_text("Taken in May.\n")
    if folder == "x":
        assert opened(root).classes.foreground == ("x",)


def test_notes_beside_class_folders_are_no_table(layout: Layout) -> None:
    root = layout(*(f"{tag}/{name}" for tag in ("cow", "dog") for name in PHOTOS), "weather.csv", "package.json")
    (root / "weather.csv").write_text("day,rain\n1,3.5\n2,0\n")
    (root / "package.json").write_text('{"name": "farm"}')
    assert detect_format(root) == "folders"
    (root / "weather.csv").write_text("image,tags\ncow/a.jpg,wet\n")
    assert detect_format(root) == "table"


def test_settings_say_what_the_data_is(layout: Layout) -> None:
    root = layout(*(f"images/{name}" for name in PHOTOS), "list.txt")
    (root / "list.txt").write_text(ROWS)
    assert tags(opened(root, "data.tags_file=list.txt")) == EXPECTED


def test_files_per_image_are_found(layout: Layout) -> None:
    root = layout(*(f"{split}/{name}" for split in ("train", "valid") for name in PHOTOS))
    for split in ("train", "valid"):
        for name in PHOTOS:
            text = f"<annotation><object><name>{'cow' if name < 'c' else 'dog'}</name></object></annotation>"
            (root / split / name).with_suffix(".xml").write_text(text)
    source = opened(root)
    assert {name: [sample.id for sample in rows] for name, rows in source.splits.items()} == {
        "train": [f"train/{name}" for name in "abcd"], "val": [f"valid/{name}" for name in "abcd"],
    }  # fmt: skip
    assert source.classes.foreground == ("cow", "dog")
