"""Names of images as tables give them: what may be read as a file, and what must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tagmask.data.files import ImageFolder
from tagmask.data.lookup import ImageLookup


@pytest.fixture
def lookup(tmp_path: Path, draw: Any) -> ImageLookup:
    for number, name in enumerate(
        ("images/IMG_0.JPG", "images/b.png", "images/cats/001.jpg", "images/dogs/001.jpg", "images/dogs/only.jpg",
         "images/0042.jpg", "images/v1.5_x.jpg", "images/top.jpg", "images/deep/top.jpg", "masks/b.png")
    ):  # fmt: skip
        draw(tmp_path / name, number)
    return ImageLookup([ImageFolder(tmp_path / "images"), ImageFolder(tmp_path)], [tmp_path / "masks"])


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("IMG_0.JPG", "IMG_0.JPG"),
        ("IMG_0.jpg", "IMG_0.JPG"),
        ("img_0", "IMG_0.JPG"),
        ("b.jpg", "b.png"),
        ("only.jpg", "dogs/only.jpg"),
        ("only", "dogs/only.jpg"),
        ("dogs\\001.jpg", "dogs/001.jpg"),
        ("Dogs/001.JPG", "dogs/001.jpg"),
        ("42", "0042.jpg"),
        ("00042.jpg", "0042.jpg"),
        ("v1.5_x.png", "v1.5_x.jpg"),
        ("top.jpg", "top.jpg"),
        ("deep/top.jpg", "deep/top.jpg"),
        ("images/top.jpg", "images/top.jpg"),
        ("farm/images/dogs/001.jpg", "dogs/001.jpg"),
        ("/home/anna/farm/images/dogs/001.jpg", "dogs/001.jpg"),
        ("C:\\Users\\anna\\images\\dogs\\001.jpg", "dogs/001.jpg"),
        ("./b.png", "b.png"),
    ],
)
def test_names_that_mean_one_file(lookup: ImageLookup, name: str, place: str) -> None:
    matches = lookup.match([name])
    assert matches.files[name].relative == place, matches.reasons


def test_absolute_names_inside_the_root(lookup: ImageLookup, tmp_path: Path) -> None:
    name = str(tmp_path / "images" / "dogs" / "001.jpg")
    matches = lookup.match([name])
    assert matches.files[name].relative == "dogs/001.jpg"
    assert matches.renamed == {}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("001.jpg", r"may be 2 files \(cats/001\.jpg, dogs/001\.jpg\): write the folder in front"),
        ("001", "may be 2 files"),
        ("birds/001.jpg", r"no file 'birds/001\.jpg'.*there is cats/001\.jpg"),
        ("birds/only.jpg", r"there is dogs/only\.jpg"),
        ("gone.jpg", r"no file 'gone\.jpg' in"),
        ("../b.png", "points outside"),
        ("x/../../b.png", "points outside"),
        ("/etc/passwd", "points outside"),
        ("", "is empty"),
        ("/", "is empty"),
    ],
)
def test_names_that_mean_none_or_several(lookup: ImageLookup, name: str, said: str) -> None:
    matches = lookup.match([name])
    assert matches.files == {}
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(matches.reasons[name])


def test_two_names_never_mean_one_file(tmp_path: Path, draw: Any) -> None:
    draw(tmp_path / "001.jpg")
    lookup = ImageLookup([ImageFolder(tmp_path)])
    for names in (["cats/001.jpg", "dogs/001.jpg"], ["001.JPG", "001.png"]):
        matches = lookup.match(names)
        assert matches.files == {}
        assert all("would both be 001.jpg" in matches.reasons[name] for name in names)
    matches = lookup.match(["001.jpg", "cats/001.jpg"])  # a file called exactly so is sure
    assert list(matches.files) == ["001.jpg"]
    assert matches.problems(tmp_path) == []


def test_what_differs_is_said_once(tmp_path: Path, draw: Any) -> None:
    for number in range(20):
        draw(tmp_path / f"IMG_{number}.JPG", number)
    (problem,) = ImageLookup([ImageFolder(tmp_path)]).match(f"img_{n}.jpg" for n in range(20)).problems(tmp_path)
    assert problem.reason.startswith("20 names differ")
    assert "'img_0.jpg' as 'IMG_0.JPG'" in problem.reason
    assert not problem.left_out
