"""The health report finds what was planted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tagmask.data.folders.source import FoldersSource
from tagmask.data.health.check import check
from tagmask.data.health.report import HealthReport
from tagmask.data.table.source import TableSource
from tagmask.data.tags import joined_names
from tagmask.errors import DataError


@pytest.fixture
def report(tmp_path: Path, draw: Any, draw_mask: Any) -> HealthReport:
    """Two classes that always come together, copies over splits, a broken image, masks missing and wrong."""
    for value in range(8):
        draw(tmp_path / "images" / f"{value}.jpg", value, (10 + value, 20))
    shutil.copy(tmp_path / "images" / "0.jpg", tmp_path / "images" / "copy.jpg")
    (tmp_path / "images" / "bad.jpg").write_bytes(b"no")
    draw_mask(tmp_path / "masks" / "0.png", (0, 1), (10, 20))
    draw_mask(tmp_path / "masks" / "1.png", (0, 9), (11, 20))
    rows = [f"{value},train|rail,train" for value in range(5)] + ["5,rail,train", "6,Rail,train", "7,,train"]
    rows += ["copy,train,val", "bad,rail,val", "gone,rail,val"]
    (tmp_path / "labels.csv").write_text("image,tags,split\n" + "\n".join(rows) + "\n")
    seen: list[tuple[int, int]] = []
    made = check(TableSource(root=tmp_path).open(), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10)
    return made


def test_counts(report: HealthReport) -> None:
    assert report.images == {"train": 8, "val": 2}
    assert report.classes == ("background", "Rail", "rail", "train")
    assert report.class_counts["train"] == {"train": 5, "val": 1}
    assert report.untagged == {"train": 1, "val": 0}
    assert report.co_occurrence == ((1, 0, 0), (0, 7, 5), (0, 5, 6))
    assert report.sizes is not None
    assert report.sizes.height == (10, 13, 17)
    assert report.sizes.width == (20, 20, 20)
    assert report.sizes.distinct == 8


def test_findings(report: HealthReport) -> None:
    assert [problem.id for problem in report.unreadable] == ["bad"]
    assert [problem.id for problem in report.broken_masks] == ["1"]
    assert report.missing_masks == {"train": 6, "val": 2}
    assert report.duplicates == (("0", "copy"),)
    assert [problem.id for problem in report.problems] == ["gone"]


@pytest.mark.parametrize(
    "said",
    [
        "expect poor masks: Rail (1)",
        "no score on val: Rail.",
        "'Rail' and 'rail' differ only in spelling",
        "1 images are exact copies",
        "in several splits, e.g. 0 = copy",
        "different tags, e.g. 0 = copy",
        "1 of 10 images cannot be read",
        "1 masks cannot be used",
        "without a mask (6 of 8 train, 2 of 2 val)",
    ],
)
def test_warnings_in_plain_words(report: HealthReport, said: str) -> None:
    assert any(said in text for text in report.warnings), report.warnings


def test_classes_that_often_come_together_are_no_warning(report: HealthReport) -> None:
    assert report.co_occurrence[2][1] == 5  # of 6: below the limit of 90 %
    assert not any("appears with" in text for text in report.warnings)


def test_text_and_json(report: HealthReport) -> None:
    text = "\n".join(report.lines())
    for part in ("8 train, 2 val images, 3 classes", "rail + train: 5 images", "gone: line 12", "masks: 2 of 8 train"):
        assert part in text
    assert all("\n" not in line for line in report.lines())
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["images"] == {"train": 8, "val": 2}


def test_classes_that_always_come_together(tmp_path: Path, draw: Any) -> None:
    for value in range(8):
        draw(tmp_path / f"{value}.jpg", value)
    rows = [f"{value},boat|water" for value in range(6)] + ["6,water", "7,water"]
    (tmp_path / "labels.csv").write_text("image,tags\n" + "\n".join(rows) + "\n")
    made = check(TableSource(root=tmp_path).open())
    (text,) = [text for text in made.warnings if "appears with" in text]
    assert text.startswith("'boat' appears with 'water' in 6 of its 6 images")


def test_a_set_in_order_has_no_warning_and_no_masks(tmp_path: Path, draw: Any) -> None:
    for value in range(12):
        split = "train" if value < 10 else "val"
        draw(tmp_path / split / ("cow" if value % 2 else "dog") / f"{value}.jpg", value)
    made = check(FoldersSource(root=tmp_path).open())
    assert made.warnings == ()
    assert made.missing_masks is None
    assert any("masks: none" in line for line in made.lines())


def test_msrc_is_in_order(shared: Path) -> None:
    from tagmask.data.voc.source import VocSource

    made = check(VocSource(root=shared / "data" / "msrc").open())
    assert (made.unreadable, made.broken_masks, made.duplicates, made.problems) == ((), (), (), ())
    assert made.sizes is not None
    assert (made.sizes.width[2], made.sizes.height[2]) == (320, 320)
    assert any("horse (2)" in text for text in made.warnings)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cow,dog", "cow"], ("cow,dog", ",")),
        (["cow;dog"], ("cow;dog", ";")),
        (["cow|dog"], ("cow|dog", "|")),
        (["cow", "dog", "cow dog"], ("cow dog", " ")),
        (["cow", "cow/dog", "dog/sheep"], ("cow/dog", "/")),
        (["haze primary", "clear primary road", "clear road"], ("haze primary", " ")),
        (["cow + dog", "dog"], None),
        (["traffic light", "traffic sign", "car"], None),
        (["traffic light", "light"], None),
        (["red car", "blue car", "red bus", "blue bus"], None),
        (["cow", "dog"], None),
        ([], None),
    ],
)
def test_joined_names(names: list[str], expected: tuple[str, str] | None) -> None:
    joined = joined_names(names)
    assert (joined is None) == (expected is None)
    if expected is not None:
        assert joined is not None
        assert joined[1] == expected[1]


@pytest.mark.parametrize("separator", [",", " ", ";", "/"])
def test_joined_tags_are_noticed_with_the_setting_that_splits_them(table_set: Path, separator: str) -> None:
    rows = [("a", ("cow",)), ("b", ("cow", "dog")), ("c", ("dog",)), ("d", ())]
    text = "".join(f'{name},"{separator.join(tags)}"\n' for name, tags in rows)
    (table_set / "labels.csv").write_text(f"image,tags\n{text}")
    source = TableSource(root=table_set, val_fraction=0).open()
    (note,) = source.problems
    assert f"data.separator='{separator}'" in note.reason
    assert not note.left_out
    assert any(f"data.separator='{separator}'" in warning for warning in check(source).warnings)
    split = TableSource(root=table_set, val_fraction=0, separator=separator).open()
    assert split.classes.foreground == ("cow", "dog")
    assert split.problems == ()


def test_joined_tags_that_are_too_many_classes_name_the_setting(table_set: Path, draw: Any) -> None:
    text = "".join(f'"x{n}","tag {n},tag {n + 1}"\n' for n in range(300))
    (table_set / "labels.csv").write_text(f"image,tags\n{text}")
    with pytest.raises(DataError, match=r"do not fit an 8-bit mask.*data\.separator=','"):
        TableSource(root=table_set).open()
