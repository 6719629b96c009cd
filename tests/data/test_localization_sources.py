"""CUB-200-2011, ILSVRC and wsolevaluation's lists, as tiny trees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tagmask.data.detect import data_settings, detect_format
from tagmask.data.localisation.cub import CubSource
from tagmask.data.localisation.ilsvrc import IlsvrcSource
from tagmask.data.localisation.wsol import WsolListsSource
from tagmask.errors import DataError, InputError, UnknownNameError, UnreadableMaskError
from tagmask.metrics.localization_scores import LocalizationScores
from tagmask.pipeline.execute import run
from tagmask.settings.loading import load_recipe
from tagmask.types import Box, ClassList, DataSource

Draw = Callable[..., Path]
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def ids(source: DataSource, split: str) -> list[str]:
    return [sample.id for sample in source.split(split)]


# -- CUB ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cub(tmp_path: Path, draw: Draw) -> Path:
    base = tmp_path / "CUB_200_2011"
    for value, name in enumerate(("001.Auk/a.jpg", "001.Auk/b.jpg", "002.Jay/c.jpg")):
        draw(base / "images" / name, value, (20, 30))
    write(base / "images.txt", "1 001.Auk/a.jpg", "2 001.Auk/b.jpg", "3 002.Jay/c.jpg", "4 002.Jay/gone.jpg")
    write(base / "image_class_labels.txt", "1 1", "2 1", "3 2", "4 2")
    write(base / "train_test_split.txt", "1 1", "2 0", "3 1", "4 0")
    write(base / "bounding_boxes.txt", "1 2.0 3.0 10.0 5.0", "2 1.5 0.0 4.0 4.5", "3 0.0 0.0 30.0 20.0", "4 0 0 1 1")
    write(base / "classes.txt", "1 001.Auk", "2 002.Jay")
    return tmp_path


@pytest.mark.usefixtures("no_image_is_opened")
def test_cub(cub: Path) -> None:
    source = CubSource(root=cub).open()
    assert source.classes.foreground == ("001.Auk", "002.Jay")
    assert ids(source, "train") == ["001.Auk/a", "002.Jay/c"]
    assert ids(source, "val") == ["001.Auk/b"]
    first, second = source.split("train")
    assert (first.tags, first.boxes) == ((1,), (Box(1, 2, 3, 12, 8),))
    assert (second.tags, second.boxes) == ((2,), (Box(2, 0, 0, 30, 20),))
    assert source.split("val")[0].boxes == (Box(1, 1, 0, 6, 5),)
    assert [problem.id for problem in source.problems] == ["002.Jay/gone.jpg"]
    assert not source.has_mask(first)
    assert all(not sample.boxes for sample in source.weak().split("val"))
    assert CubSource(root=cub / "CUB_200_2011").open().fingerprint == source.fingerprint
    assert detect_format(cub) == detect_format(cub / "CUB_200_2011") == "cub"
    assert isinstance(data_settings("cub", root=cub), CubSource)


def test_cub_with_masks(cub: Path, tmp_path: Path) -> None:
    grey = np.zeros((20, 30), np.uint8)
    grey[2:5, 3:9] = 255
    (tmp_path / "segmentations" / "001.Auk").mkdir(parents=True)
    Image.fromarray(grey).save(tmp_path / "segmentations" / "001.Auk" / "b.png")
    source = CubSource(root=cub).open()
    (sample,) = source.split("val")
    assert np.array_equal(source.read_mask(sample), (grey > 0).astype(np.uint8))
    assert not source.has_mask(source.split("train")[0])
    (tmp_path / "segmentations" / "001.Auk" / "b.png").write_bytes(b"broken")
    with pytest.raises(UnreadableMaskError, match=r"b\.png: not a readable mask"):
        source.read_mask(sample)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("bounding_boxes.txt", ["1 2 3 x 5"], r"bounding_boxes\.txt: line 1: expected 4 numbers, got '2 3 x 5'"),
        ("bounding_boxes.txt", ["1 2 3"], r"bounding_boxes\.txt: line 1 has 3 entries instead of 5"),
        ("image_class_labels.txt", ["1 7"], r"image 1 has class 7 of 2"),
        ("images.txt", ["5 x.jpg"], "no usable training image"),
    ],
)
def test_cub_lists_that_are_wrong(cub: Path, name: str, lines: list[str], message: str) -> None:
    write(cub / "CUB_200_2011" / name, *lines)
    with pytest.raises(DataError, match=message):
        CubSource(root=cub).open()


def test_cub_without_its_lists(cub: Path) -> None:
    (cub / "CUB_200_2011" / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"classes\.txt: no such list"):
        CubSource(root=cub).open()
    with pytest.raises(DataError, match=r"no images\.txt.*Name the unpacked"):
        CubSource(root=cub / "CUB_200_2011" / "images").open()


# -- ILSVRC ------------------------------------------------------------------------------------------------------------

TENCH, BIRD = "n01440764", "n01532829"


def xml(*objects: tuple[str, int, int, int, int]) -> str:
    text = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        "</bndbox></object>"
        for name, x0, y0, x1, y1 in objects
    )
    return f"<annotation>{text}</annotation>"


@pytest.fixture
def ilsvrc(tmp_path: Path, draw: Draw) -> Path:
    base = tmp_path / "ILSVRC"
    for value, name in enumerate((f"{TENCH}/{TENCH}_1.JPEG", f"{BIRD}/{BIRD}_1.JPEG", f"{BIRD}/{BIRD}_2.JPEG")):
        draw(base / "Data" / "CLS-LOC" / "train" / name, value)
    for value, name in enumerate(("ILSVRC2012_val_1", "ILSVRC2012_val_2", "ILSVRC2012_val_3")):
        draw(base / "Data" / "CLS-LOC" / "val" / f"{name}.JPEG", value)
    boxes = base / "Annotations" / "CLS-LOC" / "val"
    write(boxes / "ILSVRC2012_val_1.xml", xml((BIRD, 0, 1, 4, 3), (BIRD, 2, 2, 5, 5)))
    write(boxes / "ILSVRC2012_val_2.xml", xml((TENCH, 1, 1, 2, 2), (BIRD, 0, 0, 1, 1)))
    return tmp_path


@pytest.mark.usefixtures("no_image_is_opened")
def test_ilsvrc(ilsvrc: Path) -> None:
    source = IlsvrcSource(root=ilsvrc).open()
    assert source.classes.foreground == (TENCH, BIRD)
    assert ids(source, "train") == [f"{TENCH}/{TENCH}_1", f"{BIRD}/{BIRD}_1", f"{BIRD}/{BIRD}_2"]
    (sample,) = source.split("val")
    assert sample.tags == (2,)
    assert sample.boxes == (Box(2, 0, 1, 5, 4), Box(2, 2, 2, 6, 6))
    reasons = {problem.id: problem.reason for problem in source.problems}
    assert "no annotation" in reasons["ILSVRC2012_val_3"]
    assert f"its class is not clear: {TENCH}, {BIRD}" in reasons["ILSVRC2012_val_2"]
    assert detect_format(ilsvrc) == "ilsvrc"


def test_ilsvrc_with_masks_of_objects(ilsvrc: Path) -> None:
    """Two classes or a thousand: a mask says object or not, and serves the curves of localisation alone."""
    grey = np.zeros((6, 8), np.uint8)
    grey[1:4, 0:5] = 255
    folder = ilsvrc / "ILSVRC" / "masks"
    folder.mkdir()
    Image.fromarray(grey).save(folder / "ILSVRC2012_val_1.png")
    source = IlsvrcSource(root=ilsvrc, masks="masks").open()
    (sample,) = source.split("val")
    assert not source.has_mask(sample)
    assert source.object_reader is not None
    assert np.array_equal(source.object_reader(sample), (grey > 0).astype(np.uint8))
    assert source.weak().object_reader is None
    assert IlsvrcSource(root=ilsvrc).open().object_reader is None
    with pytest.raises(DataError, match="no-masks: does not exist"):
        IlsvrcSource(root=ilsvrc, masks="no-masks").open()


@pytest.mark.parametrize("masks", ["masks", None])
def test_the_iou_curve_of_ilsvrc(ilsvrc: Path, tmp_path: Path, tiny: dict[str, Any], masks: str | None) -> None:
    folder = ilsvrc / "ILSVRC" / "masks"
    folder.mkdir()
    Image.fromarray(np.full((6, 8), 255, np.uint8)).save(folder / "ILSVRC2012_val_1.png")
    data = {"format": "ilsvrc", "root": str(ilsvrc), "masks": masks}
    recipe = {**tiny, "data": data, "refine": [], "segment": None, "localize": "cam"}
    result = run(recipe, output=tmp_path / "run")
    scores = json.loads((result.path / "metrics.json").read_text())["localization"]["val"]
    assert scores["n_images"] == 1
    assert scores["n_masks"] == (1 if masks else 0)
    if masks:  # all is object, and at threshold 0 all is foreground
        assert scores["iou_curve"]["peak"] == 1
        assert scores["iou_curve"]["threshold"] == 0
    else:
        assert scores["iou_curve"] is None


def test_ilsvrc_with_kaggles_list(ilsvrc: Path) -> None:
    listed = write(
        ilsvrc / "LOC_val_solution.csv",
        "ImageId,PredictionString",
        f"ILSVRC2012_val_3,{TENCH} 0 0 3 4 {TENCH} 1 1 2 2 ",
    )
    source = IlsvrcSource(root=ilsvrc).open()
    assert source.split("val")[1].boxes == (Box(1, 0, 0, 4, 5), Box(1, 1, 1, 3, 3))
    write(listed, "ILSVRC2012_val_3,n1 1 2")
    with pytest.raises(DataError, match="line 1: expected class x0 y0 x1 y1"):
        IlsvrcSource(root=ilsvrc).open()


def test_ilsvrc_sorted_into_folders_without_boxes(tmp_path: Path, draw: Draw) -> None:
    for value, name in enumerate((f"train/{TENCH}/a.jpg", f"train/{BIRD}/b.jpg", f"val/{BIRD}/c.jpg")):
        draw(tmp_path / name, value)
    source = IlsvrcSource(root=tmp_path).open()
    (sample,) = source.split("val")
    assert (sample.tags, sample.boxes) == ((2,), ())
    assert detect_format(tmp_path) == "ilsvrc"


def test_ilsvrc_that_is_not_there(tmp_path: Path, draw: Draw) -> None:
    with pytest.raises(DataError, match=r"no training images.*Set data\.train"):
        IlsvrcSource(root=tmp_path).open()
    draw(tmp_path / "train" / "cow" / "a.jpg")
    with pytest.raises(DataError, match="no folder is called as a class is"):
        IlsvrcSource(root=tmp_path).open()
    with pytest.raises(DataError, match=r"does not exist\. Correct its name"):
        IlsvrcSource(root=tmp_path, train="gone").open()


def test_more_classes_than_a_mask_has_numbers(tmp_path: Path, draw: Draw, tiny: dict[str, Any]) -> None:
    for index in range(260):
        (tmp_path / "train" / f"n{index:08}").mkdir(parents=True)
    draw(tmp_path / "train" / "n00000259" / "a.jpg")
    draw(tmp_path / "train" / "n00000258" / "b.jpg", 1)
    source = IlsvrcSource(root=tmp_path).open()
    assert source.split("train")[0].tags in ((259,), (260,))
    assert not source.classes.fits_mask
    tiny["data"] = {"format": "ilsvrc", "root": str(tmp_path)}
    with pytest.raises(InputError, match=r"261 classes do not fit an 8-bit mask: set refine: \[\] and segment: null"):
        run(tiny, output=tmp_path / "run")
    with pytest.raises(DataError, match="do not fit an 8-bit mask"):
        ClassList(source.classes.names)


# -- wsolevaluation ----------------------------------------------------------------------------------------------------


@pytest.fixture
def wsol(tmp_path: Path, draw: Draw) -> Path:
    for value, name in enumerate(("one/a.jpg", "two/b.jpg", "two/c.jpg")):
        draw(tmp_path / "pictures" / name, value, (20, 30))
    meta = tmp_path / "metadata"
    write(meta / "train" / "class_labels.txt", "one/a.jpg,0")
    write(meta / "test" / "class_labels.txt", "two/b.jpg,1", "two/c.jpg,1", "two/gone.jpg,1")
    write(meta / "test" / "image_ids.txt", "two/c.jpg", "two/b.jpg", "two/gone.jpg")
    write(meta / "test" / "image_sizes.txt", "two/b.jpg,30,20", "two/c.jpg,30,20")
    write(meta / "test" / "localization.txt", "two/b.jpg,1,2,10,12", "two/b.jpg,3,3,5,5", "two/c.jpg,0,0,30,20")
    return tmp_path


@pytest.mark.usefixtures("no_image_is_opened")
def test_wsol_lists(wsol: Path) -> None:
    source = WsolListsSource(root=wsol, images="pictures", val_split="test").open()
    assert source.classes.foreground == ("class 0", "class 1")
    assert ids(source, "train") == ["one/a"]
    assert ids(source, "val") == ["two/c", "two/b"]
    assert source.split("val")[1].boxes == (Box(2, 1, 2, 10, 12), Box(2, 3, 3, 5, 5))
    assert [problem.id for problem in source.problems] == ["two/gone.jpg"]
    assert detect_format(wsol) == "wsol"


def test_wsol_lists_of_masks(wsol: Path) -> None:
    def grey(name: str, rows: slice, size: tuple[int, int] = (20, 30)) -> None:
        (wsol / "masks").mkdir(exist_ok=True)
        values = np.zeros(size, np.uint8)
        values[rows] = 255
        Image.fromarray(values).save(wsol / "masks" / name)

    grey("first.png", slice(0, 5))
    grey("second.png", slice(2, 4), (10, 15))  # half the size of the image
    grey("ignore.png", slice(0, 12))
    write(
        wsol / "metadata" / "test" / "localization.txt",
        "two/b.jpg,first.png,ignore.png",
        "two/b.jpg,second.png,ignore.png",
        "two/c.jpg,second.png,",
    )
    source = WsolListsSource(root=wsol, images="pictures", val_split="test", masks="masks").open()
    c, b = source.split("val")
    assert source.read_mask(b)[:, 0].tolist() == [2] * 8 + [255] * 4 + [0] * 8
    assert source.read_mask(c)[:, 0].tolist() == [0] * 4 + [2] * 4 + [0] * 12
    assert not source.has_mask(source.split("train")[0])


def test_wsol_lists_that_are_wrong(wsol: Path) -> None:
    with pytest.raises(UnknownNameError, match="split"):
        WsolListsSource(root=wsol, images="pictures", val_split="tset").open()
    with pytest.raises(DataError, match=r"no folder with class_labels\.txt"):
        WsolListsSource(root=wsol, metadata="lists").open()
    with pytest.raises(DataError, match="holds label 1, but the class list has 1 classes"):
        WsolListsSource(root=wsol, images="pictures", val_split="test", classes=("bird",)).open()
    write(wsol / "metadata" / "train" / "class_labels.txt", "one/a.jpg,0.5")
    with pytest.raises(DataError, match=r"line 1: a class is a whole number from 0, not 0\.5"):
        WsolListsSource(root=wsol, images="pictures", val_split="test").open()


def test_wsol_without_a_val_split_holds_some_out(wsol: Path, draw: Draw) -> None:
    names = [f"one/{number}.jpg" for number in range(12)]
    for value, name in enumerate(names):
        draw(wsol / "pictures" / name, value)
    write(wsol / "metadata" / "train" / "class_labels.txt", *(f"{name},0" for name in names))
    source = WsolListsSource(root=wsol, images="pictures").open()
    assert len(source.split("train")) + len(source.split("val")) == 12
    assert source.split("val")


# -- from the files to the error figure -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "read"), [("cub", CubSource), ("ilsvrc", IlsvrcSource)])
def test_a_map_that_is_the_true_box_is_right_at_any_iou(name: str, read: Any, request: pytest.FixtureRequest) -> None:
    """A true box that is one pixel too large, or lies a pixel aside, has an IoU below 1 with itself."""
    source = read(root=request.getfixturevalue(name)).open()
    settings = load_recipe(RECIPES / name / "cam.yaml").evaluate.boxes
    strict = LocalizationScores(settings.component, settings.thresholds, 1 - 1e-9, inclusive=settings.inclusive)
    (sample,) = source.split("val")
    # The pixels that the files name: bounding_boxes.txt has x 1.5 y 0 width 4 height 4.5, the XML 0..4 x 1..3.
    rows, columns = {"cub": (slice(0, 5), slice(1, 6)), "ilsvrc": (slice(1, 4), slice(0, 5))}[name]
    scores = np.zeros((20, 30), np.float32)
    scores[rows, columns] = 1
    strict.update(scores, sample.tags[0], sample.boxes, (20, 30))
    result = strict.result()
    assert result is not None
    assert result["gt_known"] == 0
