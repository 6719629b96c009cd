"""CocoSource, and the outlines of COCO painted by hand-checked and by golden examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.data.coco.masks import decode_counts, polygon_mask, rle_mask, segmentation_mask
from tagmask.data.coco.source import CocoSource
from tagmask.errors import DataError, UnknownNameError
from tagmask.types import Box


def change(root: Path, name: str = "instances_train.json", **parts: Any) -> None:
    path = root / "annotations" / name
    content = json.loads((root / "annotations" / "instances_train.json").read_text())
    path.write_text(json.dumps({**content, **parts}))


# -- the source ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_image_is_opened")
def test_tags_are_ranks_of_category_ids(coco_set: Path) -> None:
    source = CocoSource(root=coco_set, val_fraction=0).open()
    assert source.classes.names == ("background", "cat", "dog")
    assert {sample.id: sample.tags for sample in source.split("train")} == {
        "train/p": (1, 2), "train/q": (1,), "train/r": (),
    }  # fmt: skip
    assert source.split("train")[0].boxes == (Box(2, 0, 0, 4, 4), Box(1, 2, 2, 5, 5))
    assert source.problems == ()


def test_masks_are_painted_in_order_and_crowds_stay_background(coco_set: Path) -> None:
    source = CocoSource(root=coco_set, val_fraction=0).open()
    p, q, r = source.split("train")
    expected = np.zeros((6, 8), dtype=np.uint8)
    expected[:4, :4] = 2
    expected[2:, 2:6] = 1  # the later annotation lies on top
    np.testing.assert_array_equal(source.read_mask(p), expected)
    assert source.read_mask(q).max() == source.read_mask(r).max() == 0
    assert all(source.has_mask(sample) for sample in (p, q, r))
    weak = source.weak()
    assert not weak.has_mask(p)
    with pytest.raises(DataError, match="no masks"):
        weak.read_mask(p)


def test_small_objects_on_top(coco_set: Path) -> None:
    content = json.loads((coco_set / "annotations" / "instances_train.json").read_text())
    content["annotations"][0]["segmentation"] = [[3, 3, 5, 3, 5, 5, 3, 5]]  # inside the later, larger one
    change(coco_set, **content)
    for style, value in (("annotation_order", 1), ("small_on_top", 2)):
        source = CocoSource(root=coco_set, val_fraction=0, mask_style=style).open()
        assert source.read_mask(source.split("train")[0])[3, 3] == value


def test_chosen_classes_in_their_own_order(coco_set: Path) -> None:
    source = CocoSource(root=coco_set, val_fraction=0, classes=("dog",)).open()
    assert [sample.tags for sample in source.split("train")] == [(1,), (), ()]
    assert set(np.unique(source.read_mask(source.split("train")[0]))) == {0, 1}
    with pytest.raises(UnknownNameError, match=r"category 'dgo'.*Did you mean 'dog'"):
        CocoSource(root=coco_set, classes=("dgo",)).open()


def test_validation_json_with_ids_of_its_own(coco_set: Path, draw: Any) -> None:
    draw(coco_set / "val" / "p.jpg", 9, (4, 4))
    change(
        coco_set, "instances_val.json",
        categories=[{"id": 1, "name": "dog"}],
        images=[{"id": 0, "file_name": "p.jpg"}],
        annotations=[{"id": 1, "image_id": 0, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]]}],
    )  # fmt: skip
    source = CocoSource(root=coco_set).open()
    assert [(sample.id, sample.tags) for sample in source.split("val")] == [("val/p", (2,))]
    assert len(source.split("train")) == 3
    assert source.read_mask(source.split("val")[0]).max() == 2
    change(coco_set, "instances_val.json", categories=[{"id": 1, "name": "cats"}], images=[], annotations=[])
    with pytest.raises(UnknownNameError, match=r"'cats'.*Did you mean 'cat'"):
        CocoSource(root=coco_set).open()


def test_rows_that_cannot_be_used_are_listed(coco_set: Path) -> None:
    change(
        coco_set,
        images=[{"id": 0, "file_name": n} for n in ("p.jpg", "p.jpg", "gone.jpg", "../labels.jpg")],
        annotations=[{"id": 5, "image_id": 77, "category_id": 3}, {"id": 6, "image_id": 0, "category_id": 99}],
    )
    source = CocoSource(root=coco_set, val_fraction=0).open()
    assert [sample.id for sample in source.split("train")] == ["train/p"]
    reasons = " / ".join(problem.reason for problem in source.problems)
    for part in ("occurs again", "no file 'gone.jpg'", "points outside", "image_id 77", "category_id 99"):
        assert part in reasons


def test_boxes_only_means_no_masks(coco_set: Path) -> None:
    content = json.loads((coco_set / "annotations" / "instances_train.json").read_text())
    for item in content["annotations"]:
        item.pop("segmentation")
    change(coco_set, **content)
    source = CocoSource(root=coco_set, val_fraction=0).open()
    assert source.mask_reader is None
    assert [sample.tags for sample in source.split("train")] == [(1, 2), (1,), ()]


def test_broken_outlines_cost_one_mask(coco_set: Path) -> None:
    content = json.loads((coco_set / "annotations" / "instances_train.json").read_text())
    content["annotations"][0]["segmentation"] = {"size": [6, 8], "counts": [3, 4]}
    content["images"][2]["width"] = 80
    change(coco_set, **content)
    source = CocoSource(root=coco_set, val_fraction=0).open()
    p, q, r = source.split("train")
    with pytest.raises(DataError, match=r"train/p.*do not add up to 8x6"):
        source.read_mask(p)
    with pytest.raises(DataError, match=r"r\.jpg: is 8x6, but instances_train\.json says 80x6"):
        source.read_mask(r)
    assert source.read_mask(q).shape == (6, 8)


@pytest.mark.parametrize(
    ("text", "said"),
    [("[1, 2]", "no COCO instances"), ("{", "as JSON"), ("{}", "'categories' is missing"),
     ('{"categories": [{"id": 1}]}', "needs an id")],
)  # fmt: skip
def test_files_that_are_no_coco(coco_set: Path, text: str, said: str) -> None:
    (coco_set / "annotations" / "instances_train.json").write_text(text)
    with pytest.raises(DataError, match=said):
        CocoSource(root=coco_set).open()


def test_a_json_without_splits_is_divided(coco_set: Path) -> None:
    (coco_set / "annotations" / "instances_train.json").rename(coco_set / "annotations" / "instances_default.json")
    source = CocoSource(root=coco_set, images="train", val_fraction=0.4).open()
    assert len(source.split("train")) + len(source.split("val")) == 3
    with pytest.raises(DataError, match=r"nope\.json"):
        CocoSource(root=coco_set, annotations="nope.json").open()


# -- outlines -----------------------------------------------------------------------------------------------


def encode_counts(counts: list[int]) -> str:
    """The COCO API's rleToString, for round trips."""
    text = ""
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text += chr((bits | 0x20 if more else bits) + 48)
    return text


@given(st.lists(st.integers(0, 200_000), max_size=20))
def test_compressed_counts_round_trip(counts: list[int]) -> None:
    assert decode_counts(encode_counts(counts)) == counts


@pytest.mark.parametrize("text", ["P", "5~", "0 1"])
def test_damaged_compressed_counts(text: str) -> None:
    with pytest.raises(DataError):
        decode_counts(text)


def test_compressed_counts_of_the_coco_api() -> None:
    """pycocotools 2.0: encode(asfortranarray(mask))["counts"]."""
    expected = np.zeros((4, 5), dtype=bool)
    expected[1:3, 1:4] = expected[3, 4] = True
    np.testing.assert_array_equal(segmentation_mask({"size": [4, 5], "counts": "5220002O"}, (4, 5)), expected)


def test_run_lengths_go_down_the_columns() -> None:
    np.testing.assert_array_equal(rle_mask([1, 2, 2, 1], (2, 3)), [[0, 1, 0], [1, 0, 1]])
    for counts in ([1, 2], [-1, 7], [7]):
        with pytest.raises(DataError):
            rle_mask(counts, (2, 3))
    with pytest.raises(DataError, match="size"):
        segmentation_mask({"size": [3, 2], "counts": [6]}, (2, 3))


def test_polygons_cover_the_pixels_whose_centre_they_hold() -> None:
    square = polygon_mask([1, 1, 4, 1, 4, 3, 1, 3], (5, 6))
    expected = np.zeros((5, 6), dtype=bool)
    expected[1:3, 1:4] = True
    np.testing.assert_array_equal(square, expected)
    np.testing.assert_array_equal(polygon_mask([-9, -9, 99, -9, 99, 99, -9, 99], (5, 6)), np.ones((5, 6), dtype=bool))
    assert not polygon_mask([0.6, 0.6, 1.4, 0.6, 1.4, 1.4], (5, 6)).any()  # between four centres
    both = segmentation_mask([[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 3, 1, 3, 3, 1, 3]], (3, 3))
    assert both.sum() == 7  # parts that overlap are joined, not cut out
    for points in ([1, 1, 2, 2], [1, 1, 2, 2, 3], [1, 1, 2, 2, float("nan"), 3]):
        with pytest.raises(DataError):
            polygon_mask(points, (5, 6))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(-3, 15), st.floats(-3, 12)), min_size=3, max_size=7))
def test_polygons_agree_with_the_even_odd_rule_point_by_point(points: list[tuple[float, float]]) -> None:
    mask = polygon_mask([value for point in points for value in point], (9, 12))
    for row in range(9):
        for column in range(12):
            x, y, inside = column + 0.5, row + 0.5, False
            for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
                if (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x:
                    inside = not inside
            assert mask[row, column] == inside


# -- identifiers, as merged and converted files have them -----------------------------------------------------


def content_of(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "annotations" / "instances_train.json").read_text()))


def tags_of(root: Path, **settings: Any) -> dict[str, tuple[int, ...]]:
    source = CocoSource(root=root, **{"val_fraction": 0, **settings}).open()
    return {sample.id: sample.tags for sample in source.split("train")}


EXPECTED = {"train/p": (1, 2), "train/q": (1,), "train/r": ()}


def test_an_id_of_two_images_leaves_both_out(coco_set: Path) -> None:
    content = content_of(coco_set)
    content["images"][1]["id"] = 0
    change(coco_set, images=content["images"])
    source = CocoSource(root=coco_set, val_fraction=0).open()
    assert [sample.id for sample in source.split("train")] == ["train/r"]
    left_out = [problem for problem in source.problems if "there more than once" in problem.reason]
    assert [problem.id for problem in left_out] == ["p.jpg", "q.jpg"]


def test_an_image_of_two_ids_has_the_annotations_of_both(coco_set: Path) -> None:
    content = content_of(coco_set)
    content["images"].append({"id": 9, "file_name": "./r.jpg", "height": 6, "width": 8})
    box = [[0, 0, 2, 0, 2, 2, 0, 2]]
    content["annotations"].append({"id": 4, "image_id": 9, "category_id": 7, "segmentation": box})
    change(coco_set, **content)
    source = CocoSource(root=coco_set, val_fraction=0).open()
    (r,) = (sample for sample in source.split("train") if sample.id == "train/r")
    assert r.tags == (2,)
    assert (source.read_mask(r)[:2, :2] == 2).all()
    assert "occurs again (id 9)" in source.problems[0].reason


@pytest.mark.parametrize("write", [str, float, lambda number: f" {number} "])
def test_ids_as_text_and_as_number_are_one(coco_set: Path, write: Any) -> None:
    content = content_of(coco_set)
    for item in content["annotations"]:
        item["image_id"], item["category_id"] = write(item["image_id"]), write(item["category_id"])
    change(coco_set, **content)
    source = CocoSource(root=coco_set, val_fraction=0).open()
    assert {sample.id: sample.tags for sample in source.split("train")} == EXPECTED
    assert source.read_mask(source.split("train")[0]).max() == 2
    content["images"] = [{**item, "id": f"frame_{item['id']}"} for item in content["images"]]
    content["annotations"] = [{**a, "image_id": f"frame_{int(float(a['image_id']))}"} for a in content["annotations"]]
    change(coco_set, **content)
    assert tags_of(coco_set) == EXPECTED


def test_a_category_of_two_ids_is_one_class(coco_set: Path) -> None:
    content = content_of(coco_set)
    content["categories"].append({"id": 70, "name": "dog"})
    content["annotations"][0]["category_id"] = 70
    change(coco_set, **content)
    assert tags_of(coco_set) == EXPECTED
    content["categories"].append({"id": 70, "name": "cow"})
    change(coco_set, **content)
    with pytest.raises(DataError, match=r"category \{'id': 70, 'name': 'cow'\} needs an id of its own"):
        tags_of(coco_set)


@pytest.mark.parametrize(
    "form", ["train/{}.jpg", "train\\{}.jpg", "{}.JPG", "{}.png", "data/train/{}.jpg", "/x/train/{}.jpg"]
)
def test_file_names_with_folders_case_and_suffix(coco_set: Path, form: str) -> None:
    content = content_of(coco_set)
    for item, name in zip(content["images"], "pqr", strict=True):
        item["file_name"] = form.format(name)
    change(coco_set, **content)
    assert tags_of(coco_set) == EXPECTED


def test_a_name_in_two_folders_is_left_out(coco_set: Path, draw: Any) -> None:
    draw(coco_set / "train" / "a" / "x.jpg", 5)
    draw(coco_set / "train" / "b" / "x.jpg", 6)
    content = content_of(coco_set)
    content["images"][0]["file_name"] = "x.jpg"
    content["images"][1]["file_name"] = "b/x.jpg"
    change(coco_set, **content)
    source = CocoSource(root=coco_set, val_fraction=0).open()
    assert [sample.id for sample in source.split("train")] == ["train/b/x", "train/r"]
    assert "may be 2 files (a/x.jpg, b/x.jpg)" in source.problems[0].reason


def test_entries_that_are_none_are_listed(coco_set: Path) -> None:
    content = content_of(coco_set)
    content["images"] += [
        {"id": None, "file_name": "q.jpg"},
        {"id": 8, "file_name": None},
        {"id": [1], "file_name": "q.jpg"},
    ]
    content["annotations"] += [
        {"id": 9, "image_id": [0], "category_id": 3},
        {"id": 10, "image_id": 0, "category_id": {}},
    ]
    change(coco_set, **content)
    source = CocoSource(root=coco_set, val_fraction=0).open()
    assert {sample.id: sample.tags for sample in source.split("train")} == EXPECTED
    reasons = " / ".join(problem.reason for problem in source.problems)
    for part in ("image None", "image 8", "image [1]", "annotation 9", "annotation 10"):
        assert part in reasons


def test_several_files_of_a_split_are_refused_with_the_setting(coco_set: Path) -> None:
    change(coco_set, "instances_train2017.json")
    with pytest.raises(DataError, match=r"several annotation files.*data\.annotations=annotations/instances_train2017"):
        CocoSource(root=coco_set).open()
    assert tags_of(coco_set, annotations="annotations/instances_train.json") == EXPECTED


def test_a_file_of_any_name_is_found_by_its_content(coco_set: Path) -> None:
    (coco_set / "annotations" / "instances_train.json").rename(coco_set / "result.json")
    (coco_set / "annotations" / "other.json").write_text('{"info": "images"}')
    assert tags_of(coco_set, images="train") == EXPECTED


BROKEN: list[Any] = [
    [{"size": [6, 8], "counts": [0, 48]}, 7],
    [["a"] * 6], {"counts": None, "size": [6, 8]}, {"counts": [48], "size": 6},
    {"counts": [1.5, 46.5], "size": [6, 8]}, {"counts": [2**62, 2**62, 2**62, 2**62, 48], "size": [6, 8]}, "nothing",
    {"counts": "é", "size": [6, 8]}, {"counts": {"a": 1}, "size": [6, 8]}, [[0, 0, 4, 0, 4, 1e300]], [[[0, 0], [1, 1]]],
    [[0, 0, None, 0, 4, 4]], {"size": [6, 8]}, [[0, 0, 4, 4]], 17, [[]], [None],
]  # fmt: skip


@pytest.mark.parametrize("segmentation", BROKEN, ids=range(len(BROKEN)))
def test_outlines_that_are_none_cost_one_mask_and_no_image(coco_set: Path, segmentation: Any) -> None:
    content = content_of(coco_set)
    content["annotations"][0]["segmentation"] = segmentation
    content["annotations"][1]["bbox"] = ["x", None, float("inf"), {}]
    change(coco_set, **content)
    source = CocoSource(root=coco_set, val_fraction=0).open()
    assert {sample.id: sample.tags for sample in source.split("train")} == EXPECTED
    p, q, _ = source.split("train")
    with pytest.raises(DataError) as caught:
        source.read_mask(p)
    assert "\n" not in str(caught.value)
    assert source.read_mask(q).max() == 0


def test_a_list_of_run_lengths_is_read(coco_set: Path) -> None:
    content = content_of(coco_set)
    content["annotations"][0]["segmentation"] = [
        {"size": [6, 8], "counts": [0, 6, 42]},
        {"size": [6, 8], "counts": [42, 6]},
    ]
    content["annotations"][1]["segmentation"] = [[0, 0, 0, 0, 0, 0]]
    change(coco_set, **content)
    source = CocoSource(root=coco_set, val_fraction=0).open()
    mask = source.read_mask(source.split("train")[0])
    assert (mask[:, [0, 7]] == 2).all()
    assert mask[:, 1:7].max() == 0
