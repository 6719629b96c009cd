"""Masks as people have them: other numbers, other names, other files; and masks that contradict the tags."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tagmask.data.folders.source import FoldersSource
from tagmask.data.health.check import check
from tagmask.data.table.source import TableSource
from tagmask.data.voc.source import VocSource
from tagmask.errors import UnknownNameError, UnreadableMaskError
from tagmask.types import DataSource


def opened(root: Path, **keywords: Any) -> DataSource:
    return TableSource(root=root, **{"val_fraction": 0.0, **keywords}).open()


def mask(source: DataSource, name: str) -> list[int]:
    (sample,) = (sample for sample in source.split("train") if sample.id == name)
    return np.unique(source.read_mask(sample)).tolist()  # type: ignore[no-any-return]


@pytest.fixture
def binary(table_set: Path, draw_mask: Any) -> Path:
    """Masks of 0 and 255 for the images of one class."""
    for name in "abcd":
        draw_mask(table_set / "masks" / f"{name}.png", (0,) if name == "c" else (0, 255))
    (table_set / "labels.csv").write_text("image,tags\na,polyp\nb,polyp\nc,\nd,polyp\n")
    return table_set


def test_masks_of_0_and_255_are_noticed_and_read(binary: Path) -> None:
    doubt = next(text for text in check(opened(binary)).warnings if "255" in text)
    assert "3 of 3 masks of tagged images hold 255 and no class, such as a" in doubt
    assert "data.mask_values='{0: background, 255: polyp}'" in doubt
    source = opened(binary, mask_values={0: "background", 255: "polyp"})
    assert [mask(source, name) for name in "abc"] == [[0, 1], [0, 1], [0]]
    assert not any("255" in text for text in check(source).warnings)
    assert source.mask_key != opened(binary).mask_key == ""
    assert source.fingerprint == opened(binary).fingerprint


@pytest.mark.parametrize("mode", ["RGB", "JPEG", "JPEG grey", "16 bit", "1 bit"])
def test_binary_masks_in_other_files(binary: Path, mode: str) -> None:
    shutil.rmtree(binary / "masks")
    (binary / "masks").mkdir()
    white = np.zeros((6, 8), dtype=np.uint8)
    white[:, 4:] = 255
    for name in "ab":
        picture = Image.fromarray(white)
        if mode == "16 bit":
            Image.fromarray(white.astype(np.uint16)).save(binary / "masks" / f"{name}.png")
        elif mode == "1 bit":
            picture.point(lambda value: value > 0, mode="1").save(binary / "masks" / f"{name}.png")
        elif mode.startswith("JPEG"):
            picture.convert("L" if "grey" in mode else "RGB").save(binary / "masks" / f"{name}.jpg", quality=70)
        else:
            picture.convert("RGB").save(binary / "masks" / f"{name}.png")
    values = {0: "background", 1 if mode == "1 bit" else 255: "polyp"}
    source = opened(binary, mask_values=values)
    (sample, *_) = source.split("train")
    np.testing.assert_array_equal(source.read_mask(sample)[:, 4:], 1)
    np.testing.assert_array_equal(source.read_mask(sample)[:, :4], 0)


def test_jpeg_masks_alone_are_no_masks_and_that_is_said(binary: Path) -> None:
    for path in (binary / "masks").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    source = opened(binary)
    assert source.mask_reader is None
    (note,) = source.problems
    assert "not one of its 4 files is the mask of an image" in note.reason
    assert "JPEG blurs the numbers" in note.reason
    close = opened(binary, mask_values={0: "background", 1: "polyp"})
    with pytest.raises(UnreadableMaskError, match="JPEG blurs numbers that lie as close"):
        close.read_mask(close.split("train")[0])


def test_numbers_that_are_not_named_cost_the_mask(binary: Path, draw_mask: Any) -> None:
    draw_mask(binary / "masks" / "a.png", (0, 128, 255))
    source = opened(binary, mask_values={0: "background", 255: "polyp"})
    with pytest.raises(UnreadableMaskError, match=r"a\.png: holds the number 128, of which data\.mask_values"):
        mask(source, "a")
    assert mask(opened(binary, mask_values={0: "bg", 128: "ignore", 255: "polyp"}), "a") == [0, 1, 255]
    with pytest.raises(UnknownNameError, match=r"data\.mask_values: unknown class 'polip'.*'polyp'"):
        opened(binary, mask_values={0: "background", 255: "polip"})
    Image.fromarray(np.arange(144, dtype=np.uint8).reshape(6, 8, 3)).save(binary / "masks" / "a.png")
    with pytest.raises(UnreadableMaskError, match=r"a\.png: is a colour picture"):
        mask(source, "a")


def test_another_order_is_noticed_and_read(table_set: Path, draw_mask: Any) -> None:
    for name, labels in (("a", (0, 2)), ("b", (1, 2)), ("c", (0,)), ("d", (0, 1))):
        draw_mask(table_set / "masks" / f"{name}.png", labels)
    (doubt,) = (text for text in check(opened(table_set)).warnings if "lack a class" in text)
    assert "2 of 3 masks lack a class that is tagged, such as a: tagged cow, the mask holds dog" in doubt
    assert "data.mask_values='{0: background, 1: dog, 2: cow}'" in doubt
    source = opened(table_set, mask_values={0: "background", 1: "dog", 2: "cow"})
    assert [mask(source, name) for name in "abcd"] == [[0, 1], [1, 2], [0], [0, 2]]
    assert not any("lack a class" in text for text in check(source).warnings)


def test_masks_that_agree_say_nothing(table_set: Path, draw_mask: Any) -> None:
    for name, labels in (("a", (0, 1)), ("b", (1, 2, 255)), ("c", (0,)), ("d", (0, 2))):
        draw_mask(table_set / "masks" / f"{name}.png", labels)
    assert check(opened(table_set)).mask_doubts == ()


def test_masks_with_more_than_the_tags(table_set: Path, draw_mask: Any) -> None:
    for name in "abcd":
        draw_mask(table_set / "masks" / f"{name}.png", (0, 1, 2))
    (doubt,) = check(opened(table_set)).mask_doubts
    assert "3 of 4 masks hold classes that are not tagged, such as a: dog" in doubt


def test_instance_numbers_are_unusable_not_classes(table_set: Path) -> None:
    (table_set / "masks").mkdir()
    for name, number in (("a", 257), ("d", 26001)):
        picture = np.zeros((6, 8), dtype=np.uint16)
        picture[:, 4:] = number
        Image.fromarray(picture).save(table_set / "masks" / f"{name}.png")
    report = check(opened(table_set))
    assert [problem.id for problem in report.broken_masks] == ["a", "d"]
    assert "unknown class number 257" in report.broken_masks[0].reason


@pytest.mark.parametrize("ending", ["_mask", "_segmentation", ".mask", " copy"])
def test_names_with_an_ending(table_set: Path, draw_mask: Any, ending: str) -> None:
    for name in "abd":
        draw_mask(table_set / "masks" / f"{name}{ending}.png", (0, 1))
    (note,) = opened(table_set).problems
    assert f"not one of its 3 files is the mask of an image, such as a{ending}.png" in note.reason
    assert f"data.mask_suffix={ending}" in note.reason
    source = opened(table_set, mask_suffix=ending)
    assert [sample.id for sample in source.split("train") if source.has_mask(sample)] == ["a", "b", "d"]
    assert source.problems == ()


def test_a_folder_of_other_masks_is_noticed_in_every_format(table_set: Path, draw: Any, draw_mask: Any) -> None:
    draw_mask(table_set / "masks" / "other.png", (0, 1))
    assert "masks/: not one of its 1 files" in opened(table_set).problems[0].reason
    draw(table_set / "folders" / "cow" / "x.jpg")
    draw_mask(table_set / "folders" / "masks" / "y.png", (0, 1))
    folders = FoldersSource(root=table_set / "folders", masks="masks", val_fraction=0).open()
    assert "masks/: not one of its 1 files" in folders.problems[0].reason
    voc = VocSource(root=table_set, images="images", masks="masks", classes=("cow", "dog"), val_fraction=0).open()
    assert "masks/: not one of its 1 files" in voc.problems[0].reason


def test_masks_in_another_case(table_set: Path, draw_mask: Any) -> None:
    draw_mask(table_set / "masks" / "A.PNG", (0, 1))
    source = opened(table_set)
    assert mask(source, "a") == [0, 1]
    draw_mask(table_set / "masks" / "a.tif", (0, 2))
    assert mask(opened(table_set), "a") == [0, 2]


def test_tags_from_binary_masks(table_set: Path, draw_mask: Any) -> None:
    for name in "abcd":
        draw_mask(table_set / "masks" / f"{name}.png", (0,) if name == "c" else (0, 255))
    settings = {"images": "images", "masks": "masks", "tags": "masks", "classes": ("polyp",), "val_fraction": 0}
    source = VocSource(root=table_set, mask_values={0: "background", 255: "polyp"}, **settings).open()
    assert {sample.id: sample.tags for sample in source.split("train")} == {"a": (1,), "b": (1,), "c": (), "d": (1,)}
    assert [sample.tags for sample in VocSource(root=table_set, **settings).open().split("train")] == [()] * 4


def test_dark_images_are_noticed(table_set: Path) -> None:
    """12 bits in 16 are not: their range is known. An image with a thousandth of the others' values is."""
    deep = np.random.default_rng(0).integers(0, 4096, (6, 8), dtype=np.uint16)
    for name, values in {"e": deep, "f": deep // 1000}.items():
        Image.fromarray(values).save(table_set / "images" / f"{name}.png")
    (table_set / "labels.csv").write_text("image,tags\na,cow\ne,cow\nf,cow\n")
    report = check(opened(table_set, val_fraction=0))
    assert report.dark == ("f",)
    assert any("1 images are all but black, such as f. If their values" in text for text in report.warnings)
    assert "pixel values: 0 to 4095 become 0 to 255 (2 training images read)" in report.lines()
