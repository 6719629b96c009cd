"""CSV and Parquet as real programs write them: encodings, delimiters, missing columns, broken lines."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tagmask.data.table.read import read_columns
from tagmask.data.table.roles import TableLayout
from tagmask.data.table.tag_table import TagTable, read_tag_table
from tagmask.data.table.text import detect_delimiter
from tagmask.errors import DataError, UnknownNameError

PLAIN = "image,tags\nä ö.jpg,cow|dog\nb.jpg,\n"


def rows_of(path: Path, layout: TableLayout | None = None) -> TagTable:
    return read_tag_table(read_columns(path), layout or TableLayout())


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.encode(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r\n").encode("utf-8-sig"),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode(),
        PLAIN.encode("utf-16"),
        ("sep=;\r\n" + PLAIN.replace(",", ";")).encode(),
        PLAIN.replace("\n", "\n\n").encode(),
        PLAIN.rstrip("\n").encode(),
        b'"image","tags"\n"\xc3\xa4 \xc3\xb6.jpg","cow|dog"\n"b.jpg",""\n',
    ],
    ids=["plain", "bom", "crlf", "bom+crlf", "semicolons", "tabs", "utf16", "excel", "blank", "no end", "quoted"],
)
def test_every_dialect_gives_the_same_rows(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    table = rows_of(tmp_path / "t.csv")
    assert [(row.image, row.tags) for row in table.rows] == [("ä ö.jpg", ("cow", "dog")), ("b.jpg", ())]
    assert table.names == ("cow", "dog")
    assert table.problems == ()


def test_latin_1_is_read_and_reported(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(PLAIN.encode("latin-1"))
    table = rows_of(tmp_path / "t.csv")
    assert table.rows[0].image == "ä ö.jpg"
    (problem,) = table.problems
    assert "line 2" in problem.reason
    assert "Latin-1" in problem.reason


def test_commas_between_tags_do_not_mislead_the_delimiter(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image;tags\na;cow,dog\nb;cow,dog\n")
    assert rows_of(tmp_path / "t.csv", TableLayout(separator=",")).rows[0].tags == ("cow", "dog")
    assert detect_delimiter("image,tags\na,cow;dog\nb,x;y\n") == ","


def test_missing_columns_offer_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("imgae,tags\na,cow\n")
    with pytest.raises(UnknownNameError, match=r"t\.csv.*'image'.*Did you mean 'imgae'"):
        rows_of(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("image,tgas,note\na,cow,old\n")
    with pytest.raises(DataError, match=r"which column.*Set data\.tags_column=tgas or data\.tags_column=note"):
        rows_of(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("image\na\n")
    with pytest.raises(UnknownNameError, match=r"no tags column and no 0/1 columns; set data.tags_column:.*'tags'"):
        rows_of(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("image,tgas\na,cow\n")
    with pytest.raises(UnknownNameError, match=r"column 'tagz'.*Did you mean 'tgas'"):
        rows_of(tmp_path / "t.csv", TableLayout(tags_column="tagz"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("\ufeff \r\n", "is empty"),
        ('image,tags\na,"cow\nb,dog\n', "line 3"),
        ("image,tags,tags\na,b,c\n", "'tags' twice"),
    ],
    ids=["empty", "only a bom", "open quote", "column twice"],
)
def test_broken_tables_are_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_columns(tmp_path / "t.csv")
    assert said in str(caught.value)
    assert "t.csv" in str(caught.value)


def test_a_row_of_another_width_is_left_out_and_listed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,tags,by\na,cow,x\nb,cow,dog,x\nc\nd,dog,x,\n")
    table = rows_of(tmp_path / "t.csv")
    assert [row.image for row in table.rows] == ["a", "d"]
    assert [(problem.id, problem.reason[:6]) for problem in table.problems] == [("b", "line 3"), ("c", "line 4")]
    (tmp_path / "t.csv").write_text("image,tags\na,cow\nb,cow,dog\nc\nd,dog,\n")
    table = rows_of(tmp_path / "t.csv")
    assert [(row.image, row.tags) for row in table.rows] == [("a", ("cow",)), ("b", ("cow", "dog")), ("d", ("dog",))]
    assert [problem.left_out for problem in table.problems] == [True, False]
    assert "1 rows have more cells than the header" in table.problems[1].reason


def test_class_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,zebra,cow,count\na,1,0,7\nb,TRUE,1.0,2\nc,0,,3\n")
    table = rows_of(tmp_path / "t.csv")
    assert [row.tags for row in table.rows] == [("zebra",), ("zebra", "cow"), ()]
    assert table.names == ("zebra", "cow")
    chosen = rows_of(tmp_path / "t.csv", TableLayout(class_columns=("cow",)))
    assert [row.tags for row in chosen.rows] == [(), ("cow",), ()]
    counts = rows_of(tmp_path / "t.csv", TableLayout(class_columns=("count",)))
    assert [row.tags for row in counts.rows] == [("count",)] * 3
    (tmp_path / "odd.csv").write_text("id,big\na,very\nb,-3\nc,0\n")
    odd = rows_of(tmp_path / "odd.csv", TableLayout(class_columns=("big",)))
    assert [row.tags for row in odd.rows] == [(), (), ()]
    assert [problem.id for problem in odd.problems] == ["a", "b"]
    with pytest.raises(UnknownNameError, match="Did you mean 'zebra'"):
        rows_of(tmp_path / "t.csv", TableLayout(class_columns=("zebr",)))


def test_parquet_lists_texts_and_embedded_pictures(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"file_name": ["a", "b", "c"], "labels": [["cow", "dog"], [], None], "image": [b"\xff"] * 3}),
        tmp_path / "lists.parquet",
    )
    table = rows_of(tmp_path / "lists.parquet")
    assert [(row.image, row.tags) for row in table.rows] == [("a", ("cow", "dog")), ("b", ()), ("c", ())]
    pq.write_table(pa.table({"image": ["a"], "tags": ["cow|dog"]}), tmp_path / "text.parquet")
    assert rows_of(tmp_path / "text.parquet").rows[0].tags == ("cow", "dog")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"broken\.parquet.*Parquet"):
        read_columns(tmp_path / "broken.parquet")


NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="|"), min_size=1, max_size=12
).map(str.strip).filter(bool)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(NAMES, st.lists(NAMES, max_size=3)), min_size=1, max_size=6),
    delimiter=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_whatever_csv_writes_comes_back(
    tmp_path: Path, rows: list[tuple[str, list[str]]], delimiter: str, encoding: str, newline: str
) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=newline, quoting=csv.QUOTE_ALL)
    writer.writerow(["image", "tags"])
    writer.writerows((name, "|".join(tags)) for name, tags in rows)
    (tmp_path / "t.csv").write_bytes(stream.getvalue().encode(encoding))
    table = rows_of(tmp_path / "t.csv")
    assert [(row.image, row.tags) for row in table.rows] == [(name, tuple(tags)) for name, tags in rows]
