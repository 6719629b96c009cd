"""The same four rows in every kind of file, and every way in which people write tags into columns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tagmask.data.table.read import read_columns
from tagmask.data.table.source import TableSource
from tagmask.errors import DataError, TagmaskError, UnknownNameError
from tagmask.types import DataSource

#: What ``table_set`` holds: cow, dog + cow, none, dog.
TAGS = {"a": (1,), "b": (1, 2), "c": (), "d": (2,)}
ROWS = [("a.jpg", "cow"), ("b", "dog|cow"), ("c.jpg", ""), ("d", "dog")]


def opened(root: Path, **keywords: Any) -> DataSource:
    return TableSource(root=root, **{"val_fraction": 0.0, **keywords}).open()


def tags(source: DataSource) -> dict[str, tuple[int, ...]]:
    return {sample.id: sample.tags for sample in source.split("train")}


def notes(source: DataSource) -> str:
    return " / ".join(problem.reason for problem in source.problems)


def save_sheet(path: Path, rows: list[tuple[Any, ...]], *, title: str = "", others: int = 0) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    for _ in range(bool(title)):
        sheet.append([title])
        sheet.append([])
    for row in rows:
        sheet.append(row)
    for number in range(others):
        book.create_sheet(f"notes {number}").append(["by", "Anna"])
    book.save(path)


def in_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def text(content: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(content, encoding="utf-8")

    return write


LISTS = [{"file_name": name, "labels": [tag for tag in text.split("|") if tag]} for name, text in ROWS]
KINDS: dict[str, Callable[[Path], None]] = {
    "labels.xlsx": lambda path: save_sheet(path, [("image", "tags"), *ROWS]),
    "titled.xlsx": lambda path: save_sheet(path, [("Image", "Tags"), *ROWS], title="Our farm, 2026", others=1),
    "bare.xlsx": lambda path: save_sheet(path, [(name, tag or None) for name, tag in ROWS]),
    "labels.jsonl": text("".join(json.dumps(row) + "\n" for row in LISTS)),
    "utf16.jsonl": lambda path: path.write_bytes("\r\n".join(json.dumps(row) for row in LISTS).encode("utf-16")),
    "records.json": lambda path: in_json(path, LISTS),
    "inside.json": lambda path: in_json(path, {"version": 1, "data": LISTS}),
    "columns.json": lambda path: in_json(path, {key: [row[key] for row in LISTS] for key in LISTS[0]}),
    "pandas.json": lambda path: in_json(
        path, {key: {str(i): row[key] for i, row in enumerate(LISTS)} for key in LISTS[0]}
    ),
    "split.json": lambda path: in_json(
        path, {"columns": list(LISTS[0]), "index": [0, 1, 2, 3], "data": [list(row.values()) for row in LISTS]}
    ),
    "pandas-index.json": lambda path: in_json(path, {str(i): row for i, row in enumerate(LISTS)}),
    "by-image.json": lambda path: in_json(path, {row["file_name"]: row["labels"] for row in LISTS}),
    "labels.tsv": text("image\ttags\n" + "".join("\t".join(row) + "\n" for row in ROWS)),
    "utf16.csv": lambda path: path.write_bytes(
        ("image\ttags\r\n" + "".join("\t".join(row) + "\r\n" for row in ROWS)).encode("utf-16")
    ),
    "unmarked.csv": lambda path: path.write_bytes("image,tags\na,cow\nb,dog|cow\nc,\nd,dog\n".encode("utf-16-be")),
    "commented.csv": text("# made by hand\n# 2026\nimage,tags\na,cow\nb,dog|cow\nc,\nd,dog\n"),
    "hash.tsv": text("#image\ttags\na\tcow\nb\tdog|cow\nc\t\nd\tdog\n"),
    "blanks.csv": text("a.jpg cow\nb.jpg dog cow\nc.jpg\nd.jpg   dog\n"),
    "blanks-header.csv": text("image tags\na.jpg cow\nb.jpg dog cow\nc.jpg\nd.jpg dog\n"),
    "ragged.csv": text("image,tags\na,cow\nb,dog,cow\nc,\nd,dog\n"),
    "valued.csv": text("image,tag,value\na,cow,1\na,dog,0\nb,cow,1\nb,dog,1\nc,dog,0\nd,dog,1\n"),
    "bars.csv": text("image|tags\na|cow\nb|dog\nb|cow\nc|\nd|dog\n"),
    "bare.csv": text("a.jpg,cow\nb.jpg,dog|cow\nc.jpg,\nd.jpg,dog\n"),
    "bare-no-suffix.csv": text("a,cow\nb,dog|cow\nc,\nd,dog\n"),
    "german.csv": text("Bild;Schlagwörter\na.jpg;cow\nb.jpg;dog|cow\nc.jpg;\nd.jpg;dog\n"),
    "russian.csv": text("файл,теги\na,cow\nb,dog|cow\nc,\nd,dog\n"),
    "spaced.csv": text("File Name,Class Labels\na,cow\nb,dog|cow\nc,\nd,dog\n"),
    "python-lists.csv": text("image,tags\na,['cow']\nb,\"['dog', 'cow']\"\nc,[]\nd,['dog']\n"),
    "json-lists.csv": text('image,tags\na,"[""cow""]"\nb,"[""dog"",""cow""]"\nc,[]\nd,"[""dog""]"\n'),
    "numbered.csv": text("image,tag1,tag2\na,cow,\nb,dog,cow\nc,,\nd,dog,\n"),
    "long.csv": text("filename,class,xmin,ymin\nb,dog,1,2\na,cow,1,2\nb,cow,3,4\nc,,,\nd,dog,5,6\n"),
    "retinanet.csv": text(
        "a.jpg,1,2,3,4,cow\nb.jpg,1,2,3,4,cow\nb.jpg,1,2,3,4,dog\nc.jpg,,,,,\nd.jpg,1,2,3,4,dog\n"
    ),
    "denied.csv": text(
        "ImageID,Source,LabelName,Confidence\na,v,cow,1\na,v,dog,0\nb,v,cow,1\nb,v,dog,1\nc,v,dog,0\nd,v,dog,1\n"
    ),
    "indexed.csv": text(",image,cow,dog\n0,a,1,0\n1,b,1,1\n2,c,0,0\n3,d,0,1\n"),
    "unsure.csv": text("Path,Sex,Age,cow,dog\na,F,4,1.0,\nb,M,0,1.0,1.0\nc,F,3,-1.0,0\nd,F,5,,1.0\n"),
    "counts.csv": text("image,cow,dog\na,3,0\nb,1,12\nc,0,0\nd,0,1\n"),
    "words.csv": text("image,cow,dog\na,yes,no\nb,Ja,x\nc,?,-\nd,absent,present\n"),
    "booleans.xlsx": lambda path: save_sheet(
        path, [("image", "cow", "dog"), ("a", True, False), ("b", 1, 1.0), ("c", None, 0), ("d", 0, "x")]
    ),
    "hugging-face.jsonl": text(
        "".join(
            json.dumps({"file_name": row["file_name"], "objects": {"bbox": [], "categories": row["labels"]}}) + "\n"
            for row in LISTS
        )
    ),
}  # fmt: skip


@pytest.mark.usefixtures("no_image_is_opened")
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_the_same_tags(table_set: Path, name: str) -> None:
    (table_set / "labels.csv").unlink()
    KINDS[name](table_set / name)
    source = opened(table_set)
    assert source.classes.names == ("background", "cow", "dog")
    assert tags(source) == TAGS
    assert not any(problem.left_out for problem in source.problems), source.problems


def test_parquet_with_numbers_for_names(tmp_path: Path, draw: Any) -> None:
    for number in (1, 2, 10):
        draw(tmp_path / f"{number:04d}.jpg", number)
    pq.write_table(pa.table({"id": [1.0, 2.0, 10.0], "cow": [True, False, True]}), tmp_path / "t.parquet")
    source = opened(tmp_path)
    assert tags(source) == {"0001": (1,), "0002": (), "0010": (1,)}
    assert "3 names differ" in notes(source)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("image,photographer,what\na,Anna,cow\nb,Bert,dog\n", "data.tags_column=photographer or data.tags_column=what"),
        ("image,what,checked\na,cow,1\nb,dog,0\n", "data.tags_column=what or data.class_columns=[checked]"),
        ("image,price\na,3.5\nb,4.5\n", "data.tags_column=price"),
        ("a.jpg,1,0\nb.jpg,0,1\n", "image,CLASS1,CLASS2"),
        ("one,two,tags\na.jpg,b.jpg,cow\nb.jpg,a.jpg,dog\n", "data.image_column=one"),
    ],
)
def test_two_readings_are_refused_with_the_setting_that_chooses(table_set: Path, text: str, remedy: str) -> None:
    (table_set / "labels.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        opened(table_set)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_named_setting_reads_what_was_refused(table_set: Path) -> None:
    (table_set / "labels.csv").write_text("image,photographer,what is on it\na,Anna,cow\nb,Bert,dog\n")
    assert tags(opened(table_set, tags_column="what is on it")) == {"a": (1,), "b": (2,)}
    (table_set / "labels.csv").write_text("image,what,cow\na,x,1\nb,y,0\n")
    assert tags(opened(table_set, class_columns=("cow",))) == {"a": (1,), "b": ()}
    with pytest.raises(UnknownNameError, match="Did you mean 'cow'"):
        opened(table_set, class_columns=("caw",))


def test_what_is_read_by_a_rule_is_said(table_set: Path) -> None:
    def note(text: str, **keywords: Any) -> str:
        (table_set / "labels.csv").write_text(text)
        source = opened(table_set, **keywords)
        assert not any(problem.left_out for problem in source.problems)
        return notes(source)

    assert "column 'Tier' is read as the tags" in note("Bild,Tier\na.jpg,cow\n")
    assert "left aside: 'Sex', 'Age'" in note("Path,Sex,Age,cow,dog\na,F,40,1,0\nb,F,41,0,1\n")
    assert "'dog': 1 cells say -1" in note("image,cow,dog\na,1,-1\nb,0,1\n")
    assert "'cow': 2 cells hold other numbers" in note("image,cow\na,3\nb,0.2\n", class_columns=("cow",))
    assert "1 images have 2 rows (such as 'a')" in note("image,tags\na,cow\na,dog\n")
    assert "1 images are in two splits" in note("image,tags,split\na,cow,train\na,dog,val\nb,dog,train\n")
    assert note("image,tags\na,cow\nb,dog\n") == ""


def test_a_column_that_may_deny_tags_is_named(table_set: Path) -> None:
    (table_set / "labels.csv").write_text("image,tag,seen\na,cow,yes\na,dog,no\nb,dog,yes\n")
    source = opened(table_set)
    assert tags(source) == {"a": (1, 2), "b": (2,)}
    assert "data.presence_column=seen" in notes(source)
    assert tags(opened(table_set, presence_column="seen")) == {"a": (1,), "b": (2,)}
    (table_set / "labels.csv").write_text("image,tag,truncated\na,cow,1\na,dog,0\nb,dog,1\n")
    assert "presence_column" not in notes(opened(table_set))


def test_splits_are_known_by_their_words(table_set: Path) -> None:
    (table_set / "labels.csv").write_text("Bild;Tier;Teil\na;cow;Train\nb;cow;VAL\nc;;test\nd;dog;train\n")
    source = opened(table_set)
    assert {name: [s.id for s in rows] for name, rows in source.splits.items()} == {
        "train": ["a", "d"], "val": ["b"], "test": ["c"],
    }  # fmt: skip


def test_a_header_that_is_also_an_image_stays_a_header(table_set: Path, draw: Any) -> None:
    draw(table_set / "images" / "image.jpg")
    draw(table_set / "images" / "cow.jpg")
    (table_set / "labels.csv").write_text("image,cow,dog\na,1,0\nimage,0,1\ncow,1,1\n")
    assert tags(opened(table_set)) == {"a": (1,), "image": (2,), "cow": (1, 2)}


def test_rows_without_a_name_are_listed(table_set: Path) -> None:
    save_sheet(table_set / "merged.xlsx", [("image", "tags"), ("a", "cow"), (None, "dog"), ("b", "dog")])
    source = opened(table_set, tags_file="merged.xlsx")
    assert tags(source) == {"a": (1,), "b": (2,)}
    assert "1 rows without an image are left out (lines 3)" in notes(source)


def test_other_sheets_are_named(table_set: Path) -> None:
    save_sheet(table_set / "t.xlsx", [("image", "tags"), ("a", "cow")], others=2)
    assert "the sheet 'Sheet' is read, not 'notes 0', 'notes 1'" in notes(opened(table_set, tags_file="t.xlsx"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.xlsx", b"PK nonsense", "as an Excel workbook"),
        ("t.xls", b"\xd0\xcf\x11\xe0", ".xls files are not read. Save the table as .xlsx"),
        ("t.json", b"{", "as JSON"),
        ("t.json", b"3", "holds no table"),
        ("t.json", b'{"a.jpg": ["cow"], "a.jpg": ["dog"]}', "the key 'a.jpg' stands twice"),
        ("t.json", b'{"images": [], "annotations": [], "categories": []}', "data.format=coco data.annotations=t.json"),
        ("t.jsonl", b"\n[1]\n", "holds no JSON object"),
        ("t.xml", b"<a>", "as XML"),
        ("t.xml", b"<a/>", "is no 'CVAT for images' XML"),
    ],
)
def test_files_that_are_no_table_are_one_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_columns(tmp_path / name)
    assert said in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_torn_line_of_json_costs_that_line(table_set: Path) -> None:
    (table_set / "t.jsonl").write_text(
        '{"image": "a", "tags": ["cow"]}\n{"image": "b", "ta\n{"image": "d", "tags": "dog"}'
    )
    source = opened(table_set, tags_file="t.jsonl")
    assert tags(source) == {"a": (1,), "d": (2,)}
    assert "line 2 is no JSON object" in notes(source)


TOKENS = [b"null", b"-1", b"1e999", b"NaN", b"[]", b"{}", b"\0", b"\xff", b'{"a":{"b":[1]}}', b"../..", b"/etc/passwd"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(KINDS)), places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20)), max_size=4))
def test_damage_anywhere_is_a_source_or_one_line(table_set: Path, name: str, places: list[tuple[float, int]]) -> None:
    KINDS[name](table_set / name)
    content = bytearray((table_set / name).read_bytes())
    for place, what in places:
        start = int(place * len(content))
        content[start : start + what % 3] = TOKENS[what % len(TOKENS)] if what % 2 else b""
    (table_set / name).write_bytes(content)
    message = ""
    try:
        samples = opened(table_set, tags_file=name).split("train")
    except TagmaskError as error:
        message, samples = str(error), ()
    (table_set / name).unlink()
    assert "\n" not in message
    assert all(sample.image_path.is_relative_to(table_set) for sample in samples)
