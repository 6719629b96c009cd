"""Lists of images: names with blanks, what tools append to them, encodings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tagmask.data.lists import ascending, match_ids, read_lines, split_line
from tagmask.data.voc.source import VocSource
from tagmask.errors import DataError

NAMES = {"my photo", "my photo 2", "a", "sub/b c", "v1.5 x"}


@pytest.mark.parametrize(
    ("line", "name", "more"),
    [
        ("my photo", "my photo", ""),
        ("my photo 2", "my photo 2", ""),
        ("my photo 2 1", "my photo 2", "1"),
        ("my photo  -1", "my photo", "-1"),
        ("a 3 7 12", "a", "3 7 12"),
        ("a /masks/a b.png", "a", "/masks/a b.png"),
        ("sub/b c\tmasks/b c.PNG", "sub/b c", "masks/b c.PNG"),
        ("no such photo", "no such photo", ""),
        ("a photo", "a photo", ""),
        ("gone -1", "gone", "-1"),
        ("gone.jpg masks/gone.png", "gone.jpg", "masks/gone.png"),
    ],
)
def test_the_longest_name_that_exists_counts(line: str, name: str, more: str) -> None:
    assert split_line(line, NAMES.__contains__) == (name, more)


def test_lines_to_ids_in_their_order_and_each_once() -> None:
    lines = [
        "sub\\b c.jpg",
        "./my photo.JPG",
        "my photo 1",
        "v1.5 x",
        "/a.png /m/a.png",
        "not here",
        "../a",
        "my photo",
    ]
    assert match_ids(lines, NAMES) == ["sub/b c", "my photo", "v1.5 x", "a", "not here", "../a"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, newline: str) -> None:
    text = newline.join(["my photo", "", "  kühe\u2028weide  ", ""])
    (tmp_path / "list.txt").write_bytes(text.encode(encoding))
    assert read_lines(tmp_path / "list.txt") == [(1, "my photo"), (3, "kühe\u2028weide")]


def test_unreadable_lists_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"list\.txt: no such list\. Write one"):
        read_lines(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_bytes("a\nkühe\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"list\.txt: cannot be read as UTF-8 text \(line 2"):
        read_lines(tmp_path / "list.txt")
    with pytest.raises(DataError, match=r"cannot be read"):
        read_lines(tmp_path)


def test_voc_lists_with_blanks_labels_and_masks(tmp_path: Path, draw: Any, draw_mask: Any) -> None:
    for name in ("my photo", "my photo 2", "plain"):
        draw(tmp_path / "JPEGImages" / f"{name}.jpg")
    draw_mask(tmp_path / "Aug" / "my photo 2.png")
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    lines = ["my photo 1", "/JPEGImages/my photo 2.jpg /Aug/my photo 2.png", "plain -1", "gone away", "", ""]
    (lists / "train.txt").write_text("\n".join(lines))
    (tmp_path / "labels.csv").write_text("image,tags\nmy photo,a\nmy photo 2,b\nplain,\n")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    source = VocSource(root=tmp_path, val_fraction=0).open()
    masks = {sample.id: sample.mask_path for sample in source.split("train")}
    assert masks == {"my photo": None, "my photo 2": tmp_path / "Aug" / "my photo 2.png", "plain": None}
    (lists / "train.txt").write_text("My Photo.JPG\nplain.png\n")
    source_of_others = VocSource(root=tmp_path, val_fraction=0).open()
    assert [sample.id for sample in source_of_others.split("train")] == ["my photo", "plain"]
    assert "2 names differ" in source_of_others.problems[-1].reason
    assert ["no file 'gone away'" in problem.reason for problem in source.problems] == [True]


def test_ids_ascend_by_the_numbers_in_them() -> None:
    ids = ["b/2", "a10", "b/10", "a9", "a", "2008_000002", "2007_000032"]
    assert [ids[index] for index in ascending(ids)] == ["2007_000032", "2008_000002", "a", "a9", "a10", "b/2", "b/10"]
