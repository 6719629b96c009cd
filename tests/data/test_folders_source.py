"""FoldersSource: one folder per class, with and without split folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tagmask.data.folders.source import FoldersSource
from tagmask.errors import DataError, UnknownNameError


def layout(draw: Any, root: Path, *names: str) -> Path:
    for value, name in enumerate(names):
        draw(root / name, value)
    return root


def test_folders_are_tags_and_background_is_none(tmp_path: Path, draw: Any) -> None:
    layout(draw, tmp_path, "dog/1.jpg", "dog/deep/2.png", "cow/1.jpg", "background/5.jpg", ".cache/x.jpg", "9.jpg")
    source = FoldersSource(root=tmp_path, val_fraction=0).open()
    assert source.classes.names == ("background", "cow", "dog")
    assert {sample.id: sample.tags for sample in source.split("train")} == {
        "background/5": (), "cow/1": (1,), "dog/1": (2,), "dog/deep/2": (2,),
    }  # fmt: skip
    assert [problem.id for problem in source.problems] == ["9"]
    assert source.mask_reader is None


@pytest.mark.parametrize("val", ["val", "valid"])
def test_split_folders(tmp_path: Path, draw: Any, val: str) -> None:
    layout(draw, tmp_path, "train/dog/1.jpg", f"{val}/dog/1.jpg", "train/cow/1.jpg", "test/cow/2.jpg")
    source = FoldersSource(root=tmp_path).open()
    assert {name: [sample.id for sample in rows] for name, rows in source.splits.items()} == {
        "train": ["train/cow/1", "train/dog/1"], "val": [f"{val}/dog/1"], "test": ["test/cow/2"],
    }  # fmt: skip
    assert source.problems == ()


def test_train_folder_alone_is_divided(tmp_path: Path, draw: Any) -> None:
    layout(draw, tmp_path, *(f"train/{name}/{n}.jpg" for name in ("cow", "dog") for n in range(4)))
    source = FoldersSource(root=tmp_path, val_fraction=0.3, seed=1).open()
    assert len(source.split("train")) + len(source.split("val")) == 8
    assert len(source.split("val")) >= 1


def test_classes_that_are_no_folder_and_folders_that_are_no_class(tmp_path: Path, draw: Any) -> None:
    layout(draw, tmp_path, "cow/1.jpg", "dgo/1.jpg")
    source = FoldersSource(root=tmp_path, classes=("cow", "dog"), val_fraction=0).open()
    assert [sample.tags for sample in source.split("train")] == [(1,), ()]
    assert "Did you mean 'dog'?" in source.problems[0].reason
    with pytest.raises(UnknownNameError, match="unknown tag"):
        FoldersSource(root=tmp_path, classes=("ship",)).open()


def test_masks_mirror_the_folders(tmp_path: Path, draw: Any, draw_mask: Any) -> None:
    layout(draw, tmp_path, "cow/1.jpg", "cow/2.jpg")
    draw_mask(tmp_path / "masks" / "cow" / "1.png", (0, 1))
    source = FoldersSource(root=tmp_path, masks="masks", val_fraction=0).open()
    assert source.classes.names == ("background", "cow")
    first, second = source.split("train")
    np.testing.assert_array_equal(np.unique(source.read_mask(first)), [0, 1])
    assert not source.has_mask(second)


def test_names_that_no_artifact_could_carry(tmp_path: Path, draw: Any) -> None:
    layout(draw, tmp_path, "cow/1.jpg")
    try:
        (tmp_path / "cow" / "1.jpg").rename(tmp_path / "cow" / "\udcff.jpg")
    except OSError:
        pytest.skip("this file system stores valid UTF-8 names only")
    draw(tmp_path / "cow" / "2.jpg")
    source = FoldersSource(root=tmp_path, val_fraction=0).open()
    assert [sample.id for sample in source.split("train")] == ["cow/2"]
    (problem,) = source.problems
    problem.path.encode()
    assert "not valid UTF-8" in problem.reason


def test_links_in_a_circle_end(tmp_path: Path, draw: Any) -> None:
    layout(draw, tmp_path, "cow/1.jpg")
    (tmp_path / "cow" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "cow" / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    source = FoldersSource(root=tmp_path, val_fraction=0).open()
    assert [sample.id for sample in source.split("train")] == ["cow/1"]
    assert [problem.id for problem in source.problems] == ["cow/broken.jpg"]


def test_no_class_folder(tmp_path: Path, draw: Any) -> None:
    layout(draw, tmp_path, "1.jpg")
    with pytest.raises(DataError, match="no class folder"):
        FoldersSource(root=tmp_path).open()
