"""Small data sets on disk, made anew for every test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Draw = Callable[..., Path]


@pytest.fixture
def draw() -> Draw:
    """``draw(path, value=0, size=(6, 8))``: an image file with some texture; the content depends on value."""

    def make(path: Path, value: int = 0, size: tuple[int, int] = (6, 8)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(value).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return make


@pytest.fixture
def draw_mask() -> Draw:
    """``draw_mask(path, labels=(0, 1), size=(6, 8))``: a grey PNG with the labels side by side."""

    def make(path: Path, labels: Sequence[int] = (0, 1), size: tuple[int, int] = (6, 8)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = np.asarray(labels, dtype=np.uint8)[np.arange(size[1]) * len(labels) // size[1]]
        Image.fromarray(np.broadcast_to(columns, size).copy()).save(path)
        return path

    return make


@pytest.fixture
def table_set(tmp_path: Path, draw: Draw) -> Path:
    """images/{a,b,c,d}.jpg and labels.csv: cow, dog + cow, none, dog."""
    for value, name in enumerate("abcd"):
        draw(tmp_path / "images" / f"{name}.jpg", value)
    (tmp_path / "labels.csv").write_text("image,tags\na.jpg,cow\nb,dog|cow\nc.jpg,\nd,dog\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def opened_images(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of all images that were opened so far, be it for their header alone."""
    opened: list[str] = []
    really_open = Image.open

    def record(path: Any, *args: Any, **keywords: Any) -> Image.Image:
        opened.append(str(path))
        return really_open(path, *args, **keywords)

    monkeypatch.setattr(Image, "open", record)
    return opened


@pytest.fixture
def no_image_is_opened(opened_images: list[str]) -> Iterator[None]:
    """Opening any image fails the test."""
    yield
    assert opened_images == []


@pytest.fixture
def coco_set(tmp_path: Path, draw: Draw) -> Path:
    """annotations/instances_train.json with images p (cat + dog), q (a crowd of cats), r (nothing); ids 3 and 7."""
    for value, name in enumerate("pqr"):
        draw(tmp_path / "train" / f"{name}.jpg", value, (6, 8))
    content = {
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "images": [
            {"id": number, "file_name": f"{name}.jpg", "height": 6, "width": 8} for number, name in enumerate("pqr")
        ],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 7, "iscrowd": 0, "bbox": [0, 0, 4, 4],
             "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]},
            {"id": 2, "image_id": 0, "category_id": 3, "iscrowd": 0, "bbox": [2.5, 2.5, 2, 2],
             "segmentation": [[2, 2, 6, 2, 6, 6, 2, 6]]},
            {"id": 3, "image_id": 1, "category_id": 3, "iscrowd": 1, "bbox": [0, 0, 8, 6],
             "segmentation": {"size": [6, 8], "counts": [0, 48]}},
        ],
    }  # fmt: skip
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return tmp_path
