"""Which format a folder is in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tagmask.data.detect import data_settings, detect_format
from tagmask.data.voc.source import VocSource
from tagmask.errors import DataError, UnknownNameError


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["JPEGImages/a.jpg", "labels.csv"], "voc"),
        (["VOCdevkit/VOC2007/JPEGImages/a.jpg"], "voc"),
        (["VOC2012/JPEGImages/a.jpg"], "voc"),
        (["annotations/instances_train2017.json", "train2017/a.jpg"], "coco"),
        (["annotations/instances_default.json", "images/a.jpg"], "coco"),
        (["train/_annotations.coco.json", "train/a.jpg"], "coco"),
        (["labels.csv", "images/a.jpg"], "table"),
        (["x.parquet", "a.jpg"], "table"),
        (["cow/a.jpg", "dog/b.jpg"], "folders"),
        (["train/cow/a.jpg", "loose.jpg"], "folders"),
    ],
)
def test_layouts(tmp_path: Path, files: list[str], expected: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert detect_format(tmp_path) == expected
    assert type(data_settings(expected, root=tmp_path)).__name__.lower().startswith(expected)


def test_what_fits_nothing_says_what_would(tmp_path: Path, draw: Any) -> None:
    with pytest.raises(DataError, match=r"no images; it holds nothing\. Expected one of: VOC.*COCO.*table.*folders"):
        detect_format(tmp_path)
    draw(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"only images.*labels\.csv"):
        detect_format(tmp_path)
    with pytest.raises(DataError, match=r"a\.jpg: is an image\. Name the folder"):
        detect_format(tmp_path / "a.jpg")
    (tmp_path / "t.csv").write_text("image,tags\na,cow\n")
    with pytest.raises(DataError, match=r"is a file\. Name its folder: data\.root=.* data\.tags_file=t\.csv"):
        detect_format(tmp_path / "t.csv")
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"does not exist. Did you mean 'photos'"):
        detect_format(tmp_path / "fotos")


def test_settings_by_name(tmp_path: Path) -> None:
    assert isinstance(data_settings("voc", root=tmp_path), VocSource)
    with pytest.raises(UnknownNameError, match="Did you mean 'coco'"):
        data_settings("cocoo", root=tmp_path)
