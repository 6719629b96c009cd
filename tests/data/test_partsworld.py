"""PartsWorld: the same bytes everywhere, what it promises about its scenes, its folder, its cache."""

from __future__ import annotations

import csv
import hashlib
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from tagmask.data.partsworld.scene import CONTEXT_OF_LABEL, SPLITS, Scene, SceneSettings, plan_scene
from tagmask.data.partsworld.source import (
    CLASSES,
    PartsWorldSource,
    Rendered,
    read_part_map,
    render,
    write_partsworld,
)
from tagmask.errors import DataError, RunError, UnreadableMaskError
from tagmask.types import Sample

DEFAULT = SceneSettings()
# Image, mask and parts of training image 2. If this changes, raise VERSION of tagmask.data.partsworld.source with it.
GOLDEN = "7576339432a2493f6730023b486eb39cfa090506acbfb1ccbcd87cb080bafe52"


def tiny(cache: Path | None = None, **knobs: object) -> PartsWorldSource:
    return PartsWorldSource.model_validate({"train": 3, "val": 2, "size": 48, "cache_dir": cache, **knobs})


def digest(rendered: Rendered) -> str:
    return hashlib.sha256(rendered.image.tobytes() + rendered.mask.tobytes() + rendered.parts.tobytes()).hexdigest()


def plans(settings: SceneSettings, number: int = 400) -> list[Scene]:
    return [plan_scene(settings, "train", index) for index in range(number)]


# -- determinism -----------------------------------------------------------------------------------------------


def test_same_image_in_any_order() -> None:
    forward = [digest(render(DEFAULT, "train", index)) for index in (3, 4, 5)]
    backward = [digest(render(DEFAULT, "train", index)) for index in (5, 4, 3)]
    assert forward == backward[::-1]
    assert len(set(forward)) == 3


def test_bytes_are_those_of_every_machine() -> None:
    rendered = render(DEFAULT, "train", 2)
    assert rendered.image.dtype == rendered.mask.dtype == rendered.parts.dtype == np.uint8
    assert digest(rendered) == GOLDEN


def test_seed_and_split_change_the_image() -> None:
    one = render(DEFAULT, "train", 0)
    assert digest(one) != digest(render(DEFAULT, "val", 0))
    assert digest(one) != digest(render(SceneSettings(seed=1), "train", 0))


# -- what an image promises ------------------------------------------------------------------------------------


@budget(max_examples=25, deadline=None)
@given(
    index=st.integers(0, 10_000),
    seed=st.integers(0, 2**40),
    size=st.sampled_from((32, 75, 160)),
    sharing=st.floats(0, 1),
    split=st.sampled_from(SPLITS),
)
def test_parts_masks_tags_and_boxes_agree(index: int, seed: int, size: int, sharing: float, split: str) -> None:
    settings = SceneSettings(seed=seed, size=size, sharing=sharing)
    rendered = render(settings, "train" if split == "train" else "val", index)
    assert rendered.image.shape == (size, size, 3)
    np.testing.assert_array_equal(rendered.parts > 0, rendered.mask > 0)
    assert rendered.parts.max() <= 4
    visible = tuple(int(label) for label in np.unique(rendered.mask) if label)
    assert rendered.labels == visible
    for label in visible:
        assert np.count_nonzero(rendered.mask == label) >= 20
        ys, xs = np.nonzero(rendered.mask == label)
        own = [box for box in rendered.boxes if box.label == label]
        assert min(box.x0 for box in own) == xs.min()
        assert min(box.y0 for box in own) == ys.min()
        assert max(box.x1 for box in own) == xs.max() + 1
        assert max(box.y1 for box in own) == ys.max() + 1


def test_shares_of_pixels() -> None:
    parts = np.stack([render(DEFAULT, "train", index).parts for index in range(64)])
    foreground = np.count_nonzero(parts)
    assert 0.17 < foreground / parts.size < 0.28
    shares = [np.count_nonzero(parts == part) / foreground for part in (1, 2, 3, 4)]
    np.testing.assert_allclose(shares, (0.24, 0.56, 0.14, 0.06), atol=0.03)


def test_classes_are_balanced() -> None:
    counts = np.bincount([thing.label for scene in plans(DEFAULT, 800) for thing in scene.objects], minlength=9)
    assert counts[0] == 0
    assert counts[1:].min() >= 100
    assert counts[4:].mean() > counts[1:4].mean()


def rates(settings: SceneSettings) -> tuple[list[float], list[float]]:
    """How often each context is there with and without its class."""
    scenes = plans(settings, 1200)
    own, without = [], []
    for label, name in CONTEXT_OF_LABEL.items():
        holds = [any(thing.label == label for thing in scene.objects) for scene in scenes]
        shows = [name in scene.contexts for scene in scenes]
        own.append(float(np.mean([s for s, h in zip(shows, holds, strict=True) if h])))
        without.append(float(np.mean([s for s, h in zip(shows, holds, strict=True) if not h])))
    return own, without


def test_contexts_come_with_their_class_and_without() -> None:
    own, without = rates(DEFAULT)
    assert len(own) >= 3
    assert min(own) >= 0.8
    np.testing.assert_allclose(own, 0.88, atol=0.07)
    np.testing.assert_allclose(without, 0.4, atol=0.06)


# -- knobs -----------------------------------------------------------------------------------------------------


def test_context_knobs() -> None:
    own, without = rates(SceneSettings(context=1.0, context_without=0.0))
    assert own == [1.0] * 3
    assert without == [0.0] * 3


def test_objects_knob() -> None:
    for chances, number in (((1.0, 0.0, 0.0), 1), ((0.0, 1.0, 0.0), 2), ((0.0, 0.0, 1.0), 3)):
        assert {len(scene.objects) for scene in plans(SceneSettings(objects=chances), 60)} == {number}
    mean = np.mean([len(scene.objects) for scene in plans(DEFAULT, 1200)])
    assert mean == pytest.approx(1.75, abs=0.08)


def test_object_length_knob() -> None:
    lengths = [thing.length for scene in plans(SceneSettings(object_length=(0.2, 0.3)), 60) for thing in scene.objects]
    assert min(lengths) >= 0.2 * 160
    assert max(lengths) <= 0.3 * 160


def test_clutter_knob_leaves_the_objects() -> None:
    bare, usual, full = (SceneSettings(clutter=clutter) for clutter in (0.0, 1.0, 3.0))
    blobs = [np.mean([len(scene.blobs) for scene in plans(s, 100)]) for s in (bare, usual, full)]
    assert blobs[0] == 0
    assert blobs[2] == pytest.approx(3 * blobs[1], rel=0.1)
    kinds = [blob.label > 0 for scene in plans(usual, 100) for blob in scene.blobs]
    assert 100 <= sum(kinds) <= 300
    np.testing.assert_array_equal(render(bare, "val", 1).mask, render(full, "val", 1).mask)


def test_sharing_decides_whether_a_pair_looks_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repaint one scene with the other class of the pair: with full sharing only the head may differ."""

    def differs(sharing: float) -> tuple[float, float]:
        from tagmask.data.partsworld import draw as partsworld_draw

        settings = SceneSettings(sharing=sharing, objects=(1.0, 0.0, 0.0), clutter=0, context_without=0)
        scene = plan_scene(settings, "train", 3)  # a starlet; paddlers wear the same coat
        twin = Scene(
            objects=tuple(replace(thing, label=1) for thing in scene.objects),
            bands=scene.bands,
            blobs=scene.blobs,
            background=scene.background,
        )
        pictures = []
        for plan in (scene, twin):
            monkeypatch.setattr(partsworld_draw, "plan_scene", lambda *_, plan=plan: plan)
            pictures.append(partsworld_draw.render(settings, "train", 3))
        one, two = pictures
        change = np.abs(one.image.astype(int) - two.image.astype(int)).max(axis=2) > 4
        head = (one.parts == 1) | (two.parts == 1)
        rim = np.zeros_like(head)  # edges of the head are painted over its neighbours
        rows, columns = np.nonzero(head)
        rim[rows.min() - 3 : rows.max() + 4, columns.min() - 3 : columns.max() + 4] = True
        shared = (one.parts > 1) & ~rim
        return float(change[head].mean()), float(change[shared].mean())

    head, shared = differs(1.0)
    assert head > 0.3
    assert shared == 0
    head, shared = differs(0.0)
    assert shared > 0.5


@pytest.mark.parametrize(
    "knobs",
    [
        {"objects": (0.5, 0.2, 0.2)},
        {"object_length": (0.7, 0.4)},
        {"sharing": 1.2},
        {"size": 8},
        {"variant": "solo"},
        {"sharring": 1.0},
    ],
)
def test_wrong_knobs_are_refused(knobs: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(knobs))):
        PartsWorldSource.model_validate(knobs)


# -- the folder ------------------------------------------------------------------------------------------------


def test_voc_layout(tmp_path: Path) -> None:
    settings = tiny()
    seen: list[tuple[int, int]] = []
    write_partsworld(tmp_path / "pw", settings, progress=lambda done, of: seen.append((done, of)))
    root = tmp_path / "pw"
    assert seen == [(done, 5) for done in range(1, 6)]
    assert (root / "classes.txt").read_text().split() == list(CLASSES.names)
    assert (root / "ImageSets/Segmentation/train.txt").read_text().split() == [f"train_{i:05d}" for i in range(3)]
    assert (root / "ImageSets/Segmentation/val.txt").read_text().split() == ["val_00000", "val_00001"]
    assert not (root / "boxes.csv").exists()
    assert "sharing" in (root / "README.txt").read_text()
    with (root / "labels.csv").open(newline="") as stream:
        tags = {row["image"]: row["tags"].split("|") for row in csv.DictReader(stream)}
    for index in range(3):
        name, rendered = f"train_{index:05d}", render(settings, "train", index)
        with Image.open(root / "JPEGImages" / f"{name}.jpg") as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (48, 48))
            assert np.abs(np.array(picture).astype(int) - rendered.image).mean() < 4
        with Image.open(root / "SegmentationClass" / f"{name}.png") as picture:
            assert picture.mode == "P"
            assert picture.getpalette()[3:6] == [128, 0, 0]  # type: ignore[index]
            np.testing.assert_array_equal(np.array(picture), rendered.mask)
        np.testing.assert_array_equal(read_part_map(root, name), rendered.parts)
        assert tags[f"{name}.jpg"] == [CLASSES.names[label] for label in rendered.labels]


@pytest.mark.parametrize("tags", ["table", "masks"])
def test_the_folder_opens_as_voc(tmp_path: Path, tags: str) -> None:
    from tagmask.data.voc.source import VocSource

    settings = tiny(tmp_path / "cache")
    own = settings.open()
    voc = VocSource.model_validate({"root": settings.folder(), "tags": tags}).open()
    assert voc.classes == own.classes
    assert voc.problems == ()
    for split in SPLITS:
        ours, theirs = own.split(split), voc.split(split)
        assert [(sample.id, sample.tags) for sample in theirs] == [(sample.id, sample.tags) for sample in ours]
        np.testing.assert_array_equal(voc.read_mask(theirs[0]), own.read_mask(ours[0]))


def test_written_twice_is_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_partsworld(tmp_path / name, tiny())
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 5 * 3 + 2 + 4
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"is not empty and holds no PartsWorld"):
        write_partsworld(tmp_path, tiny())
    with pytest.raises(DataError, match=r"is a file"):
        write_partsworld(tmp_path / "holiday.jpg", tiny())
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_replaces_an_older_partsworld_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "pw"
    write_partsworld(root, tiny(variant="single", train=4))
    (root / "notes.txt").write_text("mine")
    write_partsworld(root, tiny(train=2))
    assert (root / "notes.txt").read_text() == "mine"
    assert not (root / "boxes.csv").exists()
    assert len(list((root / "JPEGImages").iterdir())) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["pw"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_partsworld(tmp_path / "pw", tiny(), progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file") as caught:
        write_partsworld(tmp_path / "file" / "pw", tiny())
    assert "\n" not in str(caught.value)


# -- the source ------------------------------------------------------------------------------------------------


def test_open_generates_once(tmp_path: Path) -> None:
    settings = tiny(tmp_path)
    source = settings.open()
    assert source.format == "partsworld"
    assert source.classes.names[0] == "background"
    assert len(source.classes.foreground) == 8
    assert [len(source.split(split)) for split in SPLITS] == [3, 2]
    stamp = settings.folder().stat().st_mtime_ns
    again = settings.open()
    assert settings.folder().stat().st_mtime_ns == stamp
    assert again.fingerprint == source.fingerprint
    assert again.splits == source.splits


def test_samples_hold_what_was_rendered(tmp_path: Path) -> None:
    settings = tiny(tmp_path)
    source = settings.open()
    for index, sample in enumerate(source.split("val")):
        rendered = render(settings, "val", index)
        assert sample.id == f"val_{index:05d}"
        assert sample.tags == rendered.labels
        assert sample.boxes == ()
        np.testing.assert_array_equal(source.read_mask(sample), rendered.mask)
    with pytest.raises(DataError):
        source.weak().read_mask(source.weak().split("val")[0])


def test_fingerprint_follows_the_settings(tmp_path: Path) -> None:
    assert tiny(tmp_path).fingerprint() == tiny().fingerprint()
    assert tiny(sharing=0.5).fingerprint() != tiny().fingerprint()
    assert tiny(tmp_path, seed=1).folder() != tiny(tmp_path).folder()


def test_default_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert tiny().folder().parent == tmp_path / "cache" / "tagmask" / "partsworld"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the XDG standard says: ignore it
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tiny().folder().parent == tmp_path / ".cache" / "tagmask" / "partsworld"


def test_incomplete_cache_is_made_again(tmp_path: Path) -> None:
    settings = tiny(tmp_path)
    settings.open()
    (settings.folder() / "partsworld.json").write_text("{}")
    (settings.folder() / "labels.csv").unlink()
    assert len(settings.open().split("train")) == 3


def test_single_variant_has_one_object_and_its_box(tmp_path: Path) -> None:
    source = tiny(tmp_path, variant="single", train=8).open()
    for sample in source.split("train"):
        mask = source.read_mask(sample)
        ys, xs = np.nonzero(mask)
        (box,) = sample.boxes
        assert sample.tags == (box.label,)
        assert (box.x0, box.y0, box.x1, box.y1) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert {sample.tags for sample in source.split("train")} == {(label,) for label in range(1, 9)}


def _open(settings: PartsWorldSource) -> int:
    return len(settings.open().split("train"))


def test_two_processes_at_once(tmp_path: Path) -> None:
    settings = tiny(tmp_path, train=30)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_open, [settings, settings], chunksize=1) == [30, 30]
    assert [path.name for path in tmp_path.iterdir()] == [settings.folder().name]


def test_broken_mask_is_named(tmp_path: Path) -> None:
    source = tiny(tmp_path).open()
    sample = source.split("val")[0]
    assert sample.mask_path is not None
    sample.mask_path.write_bytes(b"")
    with pytest.raises(UnreadableMaskError, match=r"val_00000\.png"):
        source.read_mask(sample)
    Image.fromarray(np.full((4, 4), 200, dtype=np.uint8)).save(sample.mask_path)
    with pytest.raises(UnreadableMaskError, match=r"0\.\.8"):
        source.read_mask(sample)
    with pytest.raises(UnreadableMaskError, match="nowhere"):
        read_part_map(tmp_path, "nowhere")
    with pytest.raises(DataError):
        source.read_mask(Sample(sample.id, sample.image_path, sample.tags))
