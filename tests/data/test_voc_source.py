"""VocSource on real data and on small devkits made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tagmask.data.voc.source import VOC_CLASSES, VocSource
from tagmask.errors import DataError, UnknownNameError, UnreadableMaskError
from tagmask.types import Box, Sample

XML = """<annotation><object><name>dog</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>2.0</ymin><xmax>4</xmax><ymax>6</ymax></bndbox></object>
<object><name>cow</name><part><name>head</name></part></object>{more}</annotation>"""


@pytest.fixture
def devkit(tmp_path: Path, draw: Any, draw_mask: Any) -> Path:
    """VOCdevkit/VOC2012 with images a, b, c; lists; XML (a: dog + cow, b: cow, c: none); masks of a and b."""
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for value, name in enumerate("abc"):
        draw(base / "JPEGImages" / f"{name}.jpg", value)
    draw_mask(base / "SegmentationClass" / "a.png", (0, 12, 255))
    draw_mask(base / "SegmentationClass" / "b.png", (10, 12))
    write(base / "Annotations" / "a.xml", XML.format(more=""))
    write(base / "Annotations" / "b.xml", "<annotation><object><name>cow</name></object></annotation>")
    write(base / "Annotations" / "c.xml", "<annotation/>")
    write(base / "ImageSets" / "Segmentation" / "train.txt", "a\nb\n")
    write(base / "ImageSets" / "Segmentation" / "val.txt", "c\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def tags(samples: tuple[Sample, ...]) -> dict[str, tuple[int, ...]]:
    return {sample.id: sample.tags for sample in samples}


# -- real data ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_image_is_opened")
def test_msrc_as_it_is(shared: Path) -> None:
    source = VocSource(root=shared / "data" / "msrc").open()
    assert {name: len(rows) for name, rows in source.splits.items()} == {"train": 275, "val": 97}
    assert len(source.classes.names) == 17
    assert source.problems == ()
    horse = source.classes.label("horse")
    assert sum(horse in sample.tags for sample in source.split("train")) == 2
    assert sum(horse in sample.tags for sample in source.split("val")) == 0
    assert all(source.has_mask(sample) for rows in source.splits.values() for sample in rows)


def test_msrc_masks_agree_with_its_tags(shared: Path) -> None:
    """A tag is a class of at least 0.5 % of the image (its README); all tags are in the masks."""
    source = VocSource(root=shared / "data" / "msrc").open()
    for sample in source.split("val"):
        mask = source.read_mask(sample)
        shares = np.bincount(mask.ravel(), minlength=256)[1:255] / mask.size
        assert sample.tags == tuple(int(label) + 1 for label in np.flatnonzero(shares >= 0.005))


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc12_mini_from_three_roots(shared: Path, below: str) -> None:
    source = VocSource(root=shared / "data" / "voc12-mini" / below).open()
    assert {name: len(rows) for name, rows in source.splits.items()} == {"train": 13, "val": 15}
    assert source.classes.foreground == VOC_CLASSES
    first = source.split("train")[0]
    assert (first.id, [source.classes.names[tag] for tag in first.tags]) == ("2007_000032", ["aeroplane", "person"])


def test_voc12_mini_tags_from_masks_equal_its_table(shared: Path) -> None:
    root = shared / "data" / "voc12-mini"
    from_table, from_masks = (VocSource(root=root, tags=origin).open() for origin in ("table", "masks"))
    assert from_table.splits == from_masks.splits
    assert from_table.fingerprint == from_masks.fingerprint


# -- tags ---------------------------------------------------------------------------------------------------


def test_tags_and_boxes_from_xml_with_difficult_objects(devkit: Path) -> None:
    source = VocSource(root=devkit).open()
    assert tags(source.split("train")) == {"a": (10, 12), "b": (10,)}
    assert tags(source.split("val")) == {"c": ()}
    assert source.split("train")[0].boxes == (Box(12, 0, 1, 4, 6),)
    assert source.weak().split("train")[0].boxes == ()


def test_tags_from_masks_leave_images_without_mask_out(devkit: Path) -> None:
    source = VocSource(root=devkit, tags="masks").open()
    assert tags(source.split("train")) == {"a": (12,), "b": (10, 12)}
    assert [problem.id for problem in source.problems] == ["c"]


def test_a_table_beside_the_devkit_comes_first(devkit: Path) -> None:
    write(devkit / "labels.csv", "image,tags\na.jpg,cat\nb,cat|dgo\nb,dog\n../x,dog\n")
    source = VocSource(root=devkit).open()
    assert tags(source.split("train")) == {"a": (8,), "b": (8, 12)}
    assert source.split("train")[0].boxes == (Box(12, 0, 1, 4, 6),)  # boxes still come from the XML
    reasons = " / ".join(problem.reason for problem in source.problems)
    for part in ("(such as 'b'): the tags", "points outside", "unknown tag 'dgo'", "no row for 'c'"):
        assert part in reasons


def test_no_mask_is_opened_unless_tags_come_from_masks(devkit: Path, opened_images: list[str]) -> None:
    VocSource(root=devkit).open()
    assert opened_images == []
    VocSource(root=devkit, tags="masks").open()
    assert [Path(path).name for path in opened_images] == ["a.jpg", "a.png", "b.jpg", "b.png"]


def test_broken_xml_costs_the_image_only_when_tags_come_from_it(devkit: Path) -> None:
    write(devkit / "VOCdevkit/VOC2012/Annotations/b.xml", "<annotation><object>")
    source = VocSource(root=devkit).open()
    assert tags(source.split("train")) == {"a": (10, 12)}
    assert "b.xml" in source.problems[0].reason


def test_own_classes_in_a_file(devkit: Path) -> None:
    write(devkit / "classes.txt", "cow\ndog\n")
    source = VocSource(root=devkit).open()
    assert source.classes.names == ("background", "cow", "dog")
    assert tags(source.split("train")) == {"a": (1, 2), "b": (1,)}
    with pytest.raises(UnknownNameError, match="unknown tag"):
        VocSource(root=devkit, classes=("ship", "house")).open()


def test_nothing_to_take_tags_from(tmp_path: Path, draw: Any) -> None:
    draw(tmp_path / "JPEGImages" / "a.jpg")
    with pytest.raises(DataError, match=r"no tags.*labels\.csv, Annotations/, SegmentationClass/"):
        VocSource(root=tmp_path).open()
    with pytest.raises(DataError, match="Annotations/ not found"):
        VocSource(root=tmp_path, tags="xml").open()


# -- lists --------------------------------------------------------------------------------------------------


def test_sbd_lists_name_image_and_mask(devkit: Path, draw_mask: Any) -> None:
    base = devkit / "VOCdevkit" / "VOC2012"
    draw_mask(base / "SegmentationClassAug" / "c.png", (0, 3))
    lines = "/JPEGImages/a.jpg /SegmentationClass/a.png\n/JPEGImages/c.jpg /SegmentationClassAug/c.png\n"
    write(base / "ImageSets" / "Segmentation" / "train_aug.txt", lines)
    source = VocSource(root=devkit, train_list="train_aug", val_list="train").open()
    assert [sample.id for sample in source.split("train")] == ["a", "c"]
    assert [sample.id for sample in source.split("val")] == ["b"]  # a is in train already
    assert "'a' occurs again" in source.problems[0].reason
    np.testing.assert_array_equal(np.unique(source.read_mask(source.split("train")[1])), [0, 3])
    by_path = VocSource(root=devkit, train_list=str(base / "ImageSets/Segmentation/train_aug.txt")).open()
    assert len(by_path.split("train")) == 2


def test_masks_of_another_folder(devkit: Path, draw_mask: Any) -> None:
    draw_mask(devkit / "VOCdevkit/VOC2012/SegmentationClassAug/a.png", (7,))
    source = VocSource(root=devkit, masks="SegmentationClassAug").open()
    assert source.read_mask(source.split("train")[0]).max() == 7


def test_lists_with_missing_images_spaces_and_flags(devkit: Path, draw: Any) -> None:
    base = devkit / "VOCdevkit" / "VOC2012"
    draw(base / "JPEGImages" / "my cow 1.jpg")
    write(base / "Annotations" / "my cow 1.xml", "<annotation/>")
    write(base / "ImageSets" / "Segmentation" / "train.txt", "\ufeffa 1\r\nmy cow 1\r\n\r\ngone -1\r\n")
    source = VocSource(root=devkit).open()
    assert [sample.id for sample in source.split("train")] == ["a", "my cow 1"]
    assert [problem.id for problem in source.problems] == ["gone"]


def test_unknown_lists_offer_the_nearest(devkit: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"split list 'trian'.*Did you mean 'train'"):
        VocSource(root=devkit, train_list="trian").open()
    with pytest.raises(UnknownNameError, match=r"split list 'vall'.*Did you mean 'val'"):
        VocSource(root=devkit, val_split="vall").open()


def test_without_lists_images_are_held_out(devkit: Path) -> None:
    for name in ("train", "val"):
        (devkit / f"VOCdevkit/VOC2012/ImageSets/Segmentation/{name}.txt").unlink()
    source = VocSource(root=devkit, val_fraction=0.4).open()
    assert sorted(sample.id for rows in source.splits.values() for sample in rows) == ["a", "b", "c"]
    assert len(source.split("val")) >= 1


# -- places -------------------------------------------------------------------------------------------------


def test_two_years_want_a_choice(devkit: Path, draw: Any) -> None:
    old = devkit / "VOCdevkit" / "VOC2007"
    draw(old / "JPEGImages" / "z.jpg")
    write(old / "Annotations" / "z.xml", XML.format(more=""))
    with pytest.raises(DataError, match=r"2007 and 2012.*data\.year=2012"):
        VocSource(root=devkit).open()
    assert [sample.id for sample in VocSource(root=devkit, year=2007).open().split("train")] == ["z"]
    with pytest.raises(UnknownNameError, match="year '2008'"):
        VocSource(root=devkit, year=2008).open()


def test_not_this_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no JPEGImages/"):
        VocSource(root=tmp_path).open()


def test_a_broken_image_costs_its_mask(devkit: Path) -> None:
    (devkit / "VOCdevkit/VOC2012/JPEGImages/a.jpg").write_bytes(b"")
    source = VocSource(root=devkit).open()
    with pytest.raises(UnreadableMaskError, match=r"a\.jpg: is empty"):
        source.read_mask(source.split("train")[0])


def test_settings_survive_a_recipe(devkit: Path) -> None:
    settings = VocSource(root=devkit, classes=("cow", "dog"), year=2012, tags="masks")
    assert VocSource.model_validate(json.loads(settings.model_dump_json())) == settings


def test_broken_masks_are_found_when_they_are_read(devkit: Path, draw_mask: Any) -> None:
    folder = devkit / "VOCdevkit/VOC2012/SegmentationClass"
    draw_mask(folder / "a.png", (0, 21))
    draw_mask(folder / "b.png", (0, 1), size=(3, 4))
    source = VocSource(root=devkit).open()
    for sample, said in zip(source.split("train"), ("class number 21", "mask is 4x3"), strict=True):
        with pytest.raises(DataError, match=said):
            source.read_mask(sample)
