"""Tags out of what annotation tools write: Label Studio, FiftyOne, VIA, CVAT, LabelMe, YOLO, Roboflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tagmask.data.table.source import TableSource
from tagmask.errors import DataError
from tagmask.types import DataSource


@pytest.fixture
def photos(tmp_path: Path, draw: Any) -> Path:
    for value, name in enumerate("abcd"):
        draw(tmp_path / "images" / f"{name}.jpg", value)
    return tmp_path


def opened(root: Path, **keywords: Any) -> DataSource:
    return TableSource(root=root, **{"val_fraction": 0.0, **keywords}).open()


def tags(source: DataSource) -> dict[str, tuple[str, ...]]:
    names = source.classes.names
    return {sample.id: tuple(names[tag] for tag in sample.tags) for sample in source.split("train")}


def save(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def task(image: str, *results: Any, done: bool = True, cancelled: bool = False) -> dict[str, Any]:
    annotations = [{"was_cancelled": cancelled, "result": [{"value": value} for value in results]}]
    return {"id": 1, "data": {"note": "x", "image": image}, "annotations": annotations if done else []}


def test_label_studio(photos: Path) -> None:
    tasks = [
        task("/data/local-files/?d=farm/images/a.jpg", {"choices": ["cow"]}),
        task("/data/upload/1/images/b.jpg", {"x": 1, "rectanglelabels": ["dog"]}, {"polygonlabels": ["cow"]}),
        task("https://host.example/bucket/images/c.jpg?token=1"),
        task("images/d.jpg", {"choices": ["dog"]}, cancelled=True),
    ]
    save(photos / "project.json", tasks)
    source = opened(photos)
    assert tags(source) == {"a": ("cow",), "b": ("cow", "dog"), "c": ()}
    (problem,) = (problem for problem in source.problems if problem.left_out)
    assert problem.id == "images/d.jpg"
    assert "is not annotated in Label Studio" in problem.reason


def test_label_studio_short_form_and_csv(photos: Path) -> None:
    save(photos / "min.json", [{"image": "/data/upload/a.jpg", "id": 1, "choice": {"choices": ["cow", "dog"]}}])
    assert tags(opened(photos)) == {"a": ("cow", "dog")}
    (photos / "min.csv").write_text('image,id,choice,annotator\n/data/upload/b.jpg,1,"{""choices"": [""dog""]}",7\n')
    assert tags(opened(photos, tags_file="min.csv")) == {"b": ("dog",)}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"a": 0, "b": [0, 1], "c": []}, {"a": ("cow",), "b": ("cow", "dog"), "c": ()}),
        ({"a": "cow", "b": ["dog"]}, {"a": ("cow",), "b": ("dog",)}),
        ({"a": [{"label": 1, "bounding_box": [0, 0, 1, 1]}], "b": {"label": "cow"}}, {"a": ("dog",), "b": ("cow",)}),
    ],
)
def test_fiftyone(photos: Path, labels: Any, expected: Any) -> None:
    (photos / "images").rename(photos / "data")
    save(photos / "labels.json", {"classes": ["cow", "dog"], "labels": {**labels, "d": None}})
    source = opened(photos)
    assert {key.removeprefix("data/"): names for key, names in tags(source).items()} == expected
    assert [problem.id for problem in source.problems if problem.left_out] == ["d"]


def test_via(photos: Path) -> None:
    images = {
        "a.jpg12": {"filename": "a.jpg", "regions": [{"region_attributes": {"animal": "cow"}}], "file_attributes": {}},
        "b.jpg13": {"filename": "b.jpg", "regions": {"0": {"region_attributes": {"animal": {"cow": 1, "dog": True}}}}},
        "c.jpg14": {"filename": "c.jpg", "regions": [], "file_attributes": {}},
    }  # fmt: skip
    for document in (images, {"_via_img_metadata": images, "_via_settings": {}}):
        save(photos / "via.json", document)
        assert tags(opened(photos)) == {"a": ("cow",), "b": ("cow", "dog"), "c": ()}


def test_cvat(photos: Path) -> None:
    (photos / "annotations.xml").write_text(
        '<?xml version="1.0"?><annotations><meta/><image id="0" name="a.jpg"><tag label="cow"/></image>'
        '<image id="1" name="images/b.jpg"><box label="dog" xtl="1"/><polygon label="cow"/></image>'
        '<image id="2" name="c.jpg"/></annotations>'
    )
    assert tags(opened(photos)) == {"a": ("cow",), "images/b": ("cow", "dog"), "c": ()}


def test_labelme(photos: Path) -> None:
    shapes = [{"label": "cow", "points": [[0, 0], [1, 1]]}, {"label": "dog", "points": []}]
    save(photos / "images" / "a.json", {"shapes": shapes, "imagePath": "..\\images\\a.jpg", "flags": {}})
    save(photos / "images" / "b.json", {"shapes": [], "imagePath": "b.jpg", "flags": {"cow": True, "dog": False}})
    (photos / "images" / "c.json").write_text("{")
    source = opened(photos, tags_file=".")
    assert tags(source) == {"images/a": ("cow", "dog"), "images/b": ("cow",)}
    (problem,) = source.problems
    assert problem.id == "c"
    (photos / "empty").mkdir()
    with pytest.raises(DataError, match="holds no LabelMe"):
        opened(photos, tags_file="empty")


def test_yolo(tmp_path: Path, draw: Any) -> None:
    for split, names in (("train", "ab"), ("valid", "c")):
        for value, name in enumerate(names):
            draw(tmp_path / split / "images" / f"{name}.jpg", value)
    labels = tmp_path / "train" / "labels"
    labels.mkdir()
    (labels / "a.txt").write_text("1 0.5 0.5 1 1\n0 0.5 0.5 1 1\n9 0 0 1 1\n")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [cow, dog]\n")
    source = opened(tmp_path, tags_file="data.yaml")
    assert tags(source) == {"train/images/a": ("cow", "dog"), "train/images/b": ()}
    assert [sample.id for sample in source.split("val")] == ["valid/images/c"]
    assert "'9' is no class number" in source.problems[0].reason
    (tmp_path / "data.yaml").write_text("names: [cow]\ntrain: valid/images\ntest: gone/images\n")
    with pytest.raises(DataError, match="no image folder 'gone/images'"):
        opened(tmp_path, tags_file="data.yaml")


def test_roboflow_has_a_table_in_the_folder_of_each_split(tmp_path: Path, draw: Any) -> None:
    for split, value in (("train", 0), ("valid", 1)):
        draw(tmp_path / split / "a.jpg", value)
        cells = "1, 0" if split == "train" else "0, 1"
        (tmp_path / split / "_classes.csv").write_text(f"filename, cow, dog\na.jpg, {cells}\n")
    source = opened(tmp_path)
    assert tags(source) == {"train/a": ("cow",)}
    assert source.split("val")[0].image_path == tmp_path / "valid" / "a.jpg"
