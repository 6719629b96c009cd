"""TableSource: rows to samples, and every row that cannot be one."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tagmask.data.table.source import TableSource
from tagmask.errors import DataError, UnknownNameError
from tagmask.types import DataSource, Sample


def write(root: Path, text: str, name: str = "labels.csv") -> None:
    (root / name).write_text(text, encoding="utf-8")


def opened(root: Path, **keywords: Any) -> DataSource:
    return TableSource(root=root, **{"val_fraction": 0.0, **keywords}).open()


def by_id(source: DataSource) -> dict[str, Sample]:
    return {sample.id: sample for split in source.splits.values() for sample in split}


@pytest.mark.usefixtures("no_image_is_opened")
def test_rows_become_samples_and_no_image_is_opened(table_set: Path) -> None:
    source = opened(table_set)
    assert source.classes.names == ("background", "cow", "dog")
    assert {key: sample.tags for key, sample in by_id(source).items()} == {
        "a": (1,), "b": (1, 2), "c": (), "d": (2,),
    }  # fmt: skip
    assert source.problems == ()
    assert source.mask_reader is None
    assert len(source.fingerprint) == 64


def test_names_with_and_without_suffix_and_folder(table_set: Path, draw: Any) -> None:
    draw(table_set / "images" / "sub" / "v1.5_x.png")
    write(table_set, "image,tags\nimages/a.jpg,cow\nb,cow\nsub/v1.5_x,dog\nsub\\v1.5_x.png,cow\n")
    source = opened(table_set)
    assert list(by_id(source)) == ["images/a", "b", "sub/v1.5_x"]
    assert by_id(source)["sub/v1.5_x"].tags == (1, 2)  # the same image, the Windows way
    (note,) = source.problems
    assert "1 images have 2 rows (such as 'sub/v1.5_x')" in note.reason


def test_unknown_tag_costs_the_tag_and_keeps_the_row(table_set: Path) -> None:
    write(table_set, "image,tags\na,cow|dgo\nb,dog\n")
    source = opened(table_set, classes=("cow", "dog"))
    assert by_id(source)["a"].tags == (1,)
    (problem,) = source.problems
    assert problem.id == "a"
    assert "'dgo'" in problem.reason
    assert "Did you mean 'dog'?" in problem.reason


def test_only_unknown_tags_is_an_error(table_set: Path) -> None:
    write(table_set, "image,tags\na,Cow\nb,Dog\nc,\n")
    with pytest.raises(UnknownNameError, match=r"unknown tag 'Cow'. Did you mean 'cow'"):
        opened(table_set, classes=("cow", "dog"))


def test_background_written_as_a_tag_means_no_tag(table_set: Path) -> None:
    write(table_set, "image,tags\na,cow|background\nb,none\n")
    source = opened(table_set)
    assert source.classes.names == ("background", "cow")
    assert [sample.tags for sample in source.split("train")] == [(1,), ()]


def test_rows_of_an_image_are_united_and_another_file_of_its_id_is_listed(table_set: Path, draw: Any) -> None:
    draw(table_set / "images" / "a.png")
    write(table_set, "image,tags\na.jpg,cow\nb,dog\na.jpg,dog\na.png,dog\n")
    source = opened(table_set)
    assert by_id(source)["a"].tags == (1, 2)
    assert by_id(source)["b"].tags == (2,)
    assert len(source.problems) == 2
    assert "image id 'a' occurs again" in source.problems[0].reason
    assert source.problems[0].left_out
    assert "united" in source.problems[1].reason
    assert not source.problems[1].left_out


def test_missing_image_is_listed_with_its_line(table_set: Path) -> None:
    write(table_set, "image,tags\na,cow\ngone.jpg,cow\n")
    source = opened(table_set)
    assert list(by_id(source)) == ["a"]
    assert source.problems[0].reason.startswith("line 3: no file 'gone.jpg'")


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "x/../../secret.jpg", "..\\secret.jpg", "C:\\secret.jpg", "ABSOLUTE", "../../etc/passwd"]
)
def test_names_that_leave_the_folder_are_refused(table_set: Path, draw: Any, name: str) -> None:
    secret = draw(table_set / "secret.jpg")
    (table_set / "images" / "x").mkdir()
    name = str(secret) if name == "ABSOLUTE" else name
    write(table_set, f"image,tags\na,cow\n{name},cow\n")
    source = opened(table_set, images="images")
    assert list(by_id(source)) == ["a"]
    assert "points outside the folder" in source.problems[0].reason


def test_mask_column_cannot_leave_the_folder(table_set: Path, draw_mask: Any) -> None:
    draw_mask(table_set.parent / "outside.png")
    write(table_set, "image,tags,mask\na,cow,../outside.png\n")
    source = opened(table_set)
    assert source.mask_reader is None
    assert source.problems[0].path == "../outside.png"


def test_no_usable_row_is_an_error_that_says_why(table_set: Path) -> None:
    write(table_set, "image,tags\ngone,cow\n")
    with pytest.raises(DataError, match=r"no usable training image.*no file 'gone'"):
        opened(table_set)


def test_masks_from_folder_and_column(table_set: Path, draw_mask: Any) -> None:
    draw_mask(table_set / "masks" / "a.png", (0, 1))
    draw_mask(table_set / "other" / "bb.png", (2, 2))
    write(table_set, "image,tags,mask\na,cow,\nb,dog|cow,other/bb.png\nd,dog,\n")
    source = opened(table_set)
    samples = by_id(source)
    assert [source.has_mask(samples[key]) for key in "abd"] == [True, True, False]
    np.testing.assert_array_equal(np.unique(source.read_mask(samples["a"])), [0, 1])
    np.testing.assert_array_equal(np.unique(source.read_mask(samples["b"])), [2])
    with pytest.raises(DataError, match=r"d\.jpg: has no mask"):
        source.read_mask(samples["d"])


def test_weak_view_has_no_way_to_a_mask(table_set: Path, draw_mask: Any) -> None:
    draw_mask(table_set / "masks" / "a.png", (0, 1))
    full = opened(table_set)
    weak = full.weak()
    assert by_id(full)["a"].mask_path is not None
    assert all(sample.mask_path is None and not weak.has_mask(sample) for sample in by_id(weak).values())
    with pytest.raises(DataError, match="no masks"):
        weak.read_mask(by_id(full)["a"])
    assert weak.fingerprint == full.fingerprint


def test_split_column(table_set: Path) -> None:
    write(table_set, "image,tags,split\na,cow,train\nb,cow,valid\nc,dog,test\nd,dog,train\n")
    source = opened(table_set, val_fraction=0.5)
    assert {name: [s.id for s in rows] for name, rows in source.splits.items()} == {
        "train": ["a", "d"], "val": ["b"], "test": ["c"],
    }  # fmt: skip
    with pytest.raises(UnknownNameError, match=r"split 'trian'.*Did you mean 'train'"):
        opened(table_set, train_split="trian")


def test_two_tables(table_set: Path) -> None:
    write(table_set, "image,tags\na,dog\nb,dog\n", "labels.csv")
    write(table_set, "image,tags\nc,cow\n", "val.csv")
    source = opened(table_set, val_tags_file="val.csv")
    assert source.classes.names == ("background", "cow", "dog")
    assert [sample.id for sample in source.split("val")] == ["c"]


def test_held_out_images_where_there_is_no_split(table_set: Path) -> None:
    splits = opened(table_set, val_fraction=0.5).splits
    assert {len(splits["train"]) + len(splits["val"]), len(splits["val"]) > 0} == {4, True}
    assert {tag for sample in splits["train"] for tag in sample.tags} == {1, 2}


def test_non_ascii_and_long_names(tmp_path: Path, draw: Any) -> None:
    long = "x" * 240
    decomposed = unicodedata.normalize("NFD", "Kühe/münchen")
    for name in ("日本/牛 の写真", long, decomposed):
        draw(tmp_path / "images" / f"{name}.png")
    composed = unicodedata.normalize("NFC", decomposed)
    write(tmp_path, f"image,tags\n日本/牛 の写真.png,牛\n{long},cow\n{composed},cow\n{'y' * 300},cow\n")
    source = opened(tmp_path)
    assert list(by_id(source)) == ["日本/牛 の写真", long, composed]
    assert all(sample.image_path.is_file() for sample in by_id(source).values())
    assert [problem.id for problem in source.problems] == ["y" * 300]


def test_several_tables_and_none(table_set: Path) -> None:
    (table_set / "labels.csv").rename(table_set / "x.csv")
    assert len(by_id(opened(table_set))) == 4
    write(table_set, "a,b\n", "y.csv")
    with pytest.raises(DataError, match=r"x\.csv, y\.csv.*data\.tags_file"):
        opened(table_set)
    for name in ("x.csv", "y.csv"):
        (table_set / name).unlink()
    with pytest.raises(DataError, match="no CSV, Excel, Parquet or JSON"):
        opened(table_set)


def test_wrong_places_are_named(table_set: Path) -> None:
    for keywords, said in (
        ({"images": "pics"}, "data.images"),
        ({"masks": "nope"}, "data.masks"),
        ({"tags_file": "nope.csv"}, "nope.csv"),
        ({"classes": "nope.txt"}, "nope.txt"),
    ):
        with pytest.raises(DataError, match=said):
            opened(table_set, **keywords)
    with pytest.raises(DataError, match=r"data\.root.*does not exist"):
        opened(table_set / "nope")
    with pytest.raises(ValidationError):
        TableSource(root=table_set, colour="red")  # type: ignore[call-arg]


def test_fingerprint_follows_the_content_not_the_place(table_set: Path, tmp_path_factory: Any, draw: Any) -> None:
    before = opened(table_set).fingerprint
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(table_set, copy)
    for path in copy.rglob("*.jpg"):
        os.utime(path, (0, 0))
    assert opened(copy).fingerprint == before
    assert opened(copy, classes=("cow", "dog", "cat")).fingerprint != before
    assert opened(copy, val_fraction=0.5).fingerprint != before
    write(copy, "image,tags\na.jpg,dog\nb,dog|cow\nc.jpg,\nd,dog\n")
    assert opened(copy).fingerprint != before
    draw(table_set / "images" / "a.jpg", 9, (20, 20))
    assert opened(table_set).fingerprint != before
