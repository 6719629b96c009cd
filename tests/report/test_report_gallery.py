"""Which images are shown, how they are judged, and that the work is bounded."""

from __future__ import annotations

import base64
import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from fake_run import FakeRun, make_run, make_source
from tagmask.errors import UnreadableImageError
from tagmask.metrics.segmentation import confusion_matrix, iou_per_class
from tagmask.report.run.gallery import build_gallery
from tagmask.report.run.layers import image_iou
from tagmask.report.thumbnails import fit, heat_palette, heat_uri, mask_uri, photo_uri
from tagmask.runs.workspace import Workspace
from tagmask.storage.pictures import voc_palette
from tagmask.types import Sample, UInt8Array

LABELS = npst.arrays(np.uint8, (5, 7), elements=st.sampled_from([0, 1, 2, 3, 255]))


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@settings(max_examples=50, deadline=None)
@given(LABELS, LABELS)
def test_image_iou_agrees_with_the_evaluation(predicted: UInt8Array, truth: UInt8Array) -> None:
    result = image_iou(predicted, truth)
    if (truth == 255).all():
        assert result is None
        return
    confusion = confusion_matrix(predicted, truth, 4)
    present = confusion.sum(axis=1) > 0
    assert result == pytest.approx(float(np.mean(iou_per_class(confusion)[present])))


def test_image_iou_needs_equal_sizes() -> None:
    assert image_iou(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8)) is None


def test_best_is_better_than_worst_and_nothing_is_shown_twice(full_run: FakeRun) -> None:
    gallery = build_gallery(full_run.workspace, full_run.source, images=12)
    assert gallery.notes == []
    assert gallery.ranked
    assert len(gallery.shots) == 12
    assert len({shot.id for shot in gallery.shots}) == 12
    for split, judged in (("train", "pseudo mask"), ("val", "prediction")):
        best, worst = (
            [shot.iou for shot in gallery.shots if shot.split == split and shot.group == group and shot.iou is not None]
            for group in ("best", "worst")
        )
        assert len(best) == len(worst) == 2
        assert min(best) >= max(worst)
        assert {shot.iou_of for shot in gallery.shots if shot.split == split} == {judged}


def test_layers_are_what_the_run_left(full_run: FakeRun) -> None:
    shots = build_gallery(full_run.workspace, full_run.source).shots
    assert len(shots) == 18
    for shot in shots:
        count = len(shot.tags)
        masks = {"train": ["pseudo", "truth"], "val": ["prediction", "full", "truth"]}[shot.split]
        assert [layer.kind for layer in shot.layers] == ["activation"] * count + ["refined"] * count + masks
        assert tuple(layer.labels[0] for layer in shot.layers if layer.kind == "activation") == shot.tags
        truth = next(layer for layer in shot.layers if layer.kind == "truth")
        assert set(truth.labels) == set(shot.tags)


def test_same_seed_same_images_other_seed_other_images(full_run: FakeRun) -> None:
    def ids(seed: int) -> list[str]:
        shots = build_gallery(full_run.workspace, full_run.source, images=6, candidates=8, seed=seed).shots
        return [shot.id for shot in shots]

    assert ids(0) == ids(0)
    assert ids(0) != ids(1)


def test_work_is_bounded_by_the_candidates(full_run: FakeRun) -> None:
    read = full_run.source.mask_reader
    assert read is not None
    opened: list[str] = []

    def counting(sample: Sample) -> UInt8Array:
        opened.append(sample.id)
        return read(sample)

    source = replace(full_run.source, mask_reader=counting)
    gallery = build_gallery(full_run.workspace, source, images=4, candidates=8)
    assert gallery.candidates == 8
    assert len(set(opened)) == 8
    assert len(gallery.shots) == 4


def test_every_class_is_shown_where_there_is_room(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(8)]
    source = make_source(tmp_path / "pictures", names, train=40, val=0)
    source = replace(source, splits={"train": source.splits["train"]})
    workspace = make_run(tmp_path / "run", source, stages=("localize",))
    shots = build_gallery(workspace, source, images=24).shots
    assert {tag for shot in shots for tag in shot.tags} == set(range(1, 9))


def test_broken_files_cost_one_layer_or_one_image(full_run: FakeRun, tmp_path: Path) -> None:
    shutil.copytree(full_run.workspace.root, tmp_path / "run")
    workspace = Workspace(tmp_path / "run")
    first, second, third = full_run.source.splits["val"][:3]
    workspace.map_path(first.id).write_bytes(b"PK torn")
    workspace.prediction_path(second.id).write_bytes(b"")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(third.image_path.read_bytes()[:200])
    splits = {**full_run.source.splits}
    splits["val"] = tuple(replace(s, image_path=broken) if s.id == third.id else s for s in splits["val"])
    gallery = build_gallery(workspace, replace(full_run.source, splits=splits))
    shots = {shot.id: shot for shot in gallery.shots}
    assert third.id not in shots
    assert len(shots) == 17
    assert "activation" not in {layer.kind for layer in shots[first.id].layers}
    assert "prediction" not in {layer.kind for layer in shots[second.id].layers}
    notes = " ".join(gallery.notes)
    for path in (workspace.map_path(first.id), workspace.prediction_path(second.id), broken):
        assert str(path) in notes


def test_image_with_maps_only_is_judged_at_the_threshold(tmp_path: Path) -> None:
    source = make_source(tmp_path / "pictures")
    workspace = make_run(tmp_path / "run", source, stages=("localize",))
    low = build_gallery(workspace, source, threshold=0.0).shots
    right = build_gallery(workspace, source, threshold=0.4).shots
    assert {shot.iou_of for shot in right} == {"maps"}
    assert np.mean([shot.iou for shot in right if shot.iou]) > np.mean([shot.iou for shot in low if shot.iou])


def test_mask_keeps_labels_and_hides_the_background() -> None:
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    image = decode(mask_uri(mask, 4, 4)).convert("RGBA")
    palette = np.array(voc_palette()).reshape(-1, 3)
    pixels = np.asarray(image)[::2, ::2]
    assert pixels[0, 0, 3] == 0
    for place, label in (((0, 1), 1), ((1, 0), 2), ((1, 1), 255)):
        assert tuple(pixels[place]) == (*palette[label], 255)


def test_heat_grows_brighter_and_less_transparent() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None]
    pixels = np.asarray(decode(heat_uri(ramp)).convert("RGBA")).astype(float)[0]
    light = pixels[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > -1).all()
    assert light[-1] > 200 > 20 > light[0]
    assert (np.diff(pixels[:, 3]) >= 0).all()
    assert len(heat_palette()) == 3 * 64


def test_heat_survives_nan() -> None:
    assert decode(heat_uri(np.full((2, 2), np.nan, np.float32))).size == (2, 2)


@pytest.mark.parametrize(("mode", "value"), [("L", 90), ("RGBA", (9, 9, 9, 0)), ("P", 3), ("CMYK", (0, 0, 0, 9))])
def test_photo_of_any_kind_becomes_a_small_jpeg(tmp_path: Path, mode: str, value: Any) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (600, 200), value).save(path)
    uri, width, height = photo_uri(path, 300)
    assert (width, height) == (300, 100) == decode(uri).size
    assert decode(uri).mode == "RGB"


def test_photo_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("no image", encoding="utf-8")
    with pytest.raises(UnreadableImageError, match=r"a\.jpg"):
        photo_uri(path, 300)


@given(st.integers(1, 20000), st.integers(1, 20000), st.integers(1, 500))
def test_fit_never_enlarges_and_never_vanishes(width: int, height: int, side: int) -> None:
    small = fit(width, height, side)
    assert 1 <= small[0] <= width
    assert 1 <= small[1] <= height
    assert max(small) <= max(side, 1)
