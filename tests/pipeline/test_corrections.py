"""Corrected pseudo masks: a folder of the recipe, and files edited in the run; only what learns from them is redone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from progress_recorder import ProgressRecorder, walk
from tagmask import cli
from tagmask.errors import InputError
from tagmask.pipeline.execute import run
from tagmask.runs.corrections import NO_CORRECTIONS, Corrections, adopt_edits, find_corrections, record_masks
from tagmask.runs.workspace import Workspace
from tagmask.settings.loading import load_recipe
from tagmask.stages.segment.guides import planes_reader, weights_reader
from tagmask.stages.segment.stage import WEAK, _masks
from tagmask.storage.pictures import load_mask, save_grey, save_mask
from tagmask.types import ClassList, DataSource, Sample, UInt8Array

UNTOUCHED = ("classify", "localize", "refine", "segment/full")
MASK = "refine/masks/train_00003.png"


def halved(root: Path, name: str = "train_00003") -> UInt8Array:
    """A pseudo mask whose upper half is background now."""
    mask = load_mask(root / "refine" / "masks" / f"{name}.png")
    other = mask.copy()
    other[:24] = 0
    assert (other != mask).any()
    return other


def weights(root: Path) -> bytes:
    return (root / "segment" / "model.safetensors").read_bytes()


@pytest.fixture
def folder(copied: Path, tmp_path: Path) -> Path:
    """One corrected mask, in grey, in a sub-folder."""
    (tmp_path / "corrected" / "today").mkdir(parents=True)
    Image.fromarray(halved(copied)).save(tmp_path / "corrected" / "today" / "train_00003.png")
    return tmp_path / "corrected"


def test_a_folder_redoes_the_network_and_nothing_before_it(copied: Path, folder: Path) -> None:
    before = weights(copied)
    recorder = walk(copied, f"segment.corrections={folder}")
    assert {recorder.stages[name] for name in UNTOUCHED} == {"up to date"}
    assert recorder.stages["segment"].startswith("changed: corrections None -> 1 masks (")
    assert recorder.stages["evaluate"] == "changed: segment was redone"
    assert "segment: 1 corrected masks take the place of pseudo masks" in recorder.lines
    corrected = weights(copied)
    assert corrected != before
    assert set(walk(copied).stages.values()) == {"up to date"}, "the run remembers its folder"
    # The same masks elsewhere are the same masks; one more is not.
    moved = folder.rename(folder.with_name("moved"))
    assert set(walk(copied, f"segment.corrections={moved}").stages.values()) == {"up to date"}
    save_mask(moved / "train_00004.png", halved(copied, "train_00004"))
    assert "1 masks" in walk(copied).stages["segment"]
    assert weights(copied) != corrected


def test_without_the_folder_it_is_the_run_that_it_was(copied: Path, folder: Path) -> None:
    before = weights(copied)
    walk(copied, f"segment.corrections={folder}")
    walk(copied, "segment.corrections=null")
    assert weights(copied) == before


def test_an_edited_pseudo_mask_is_noticed(copied: Path, folder: Path) -> None:
    path = copied / MASK
    left = path.read_bytes()
    save_mask(path, halved(copied))
    recorder = walk(copied)
    assert {recorder.stages[name] for name in UNTOUCHED} == {"up to date"}
    assert "corrections" in recorder.stages["segment"]
    assert any("1 masks were edited (train_00003.png)" in text for text in recorder.lines)
    assert set(walk(copied).stages.values()) == {"up to date"}
    edited = weights(copied)
    # The folder with the same labels in other bytes trains the same network.
    walk(copied, f"segment.corrections={folder}")
    assert weights(copied) == edited
    walk(copied, "segment.corrections=null")
    # A refine stage that is redone does not lose what somebody drew.
    redone = walk(copied, "refine.threshold.value=0.7")
    assert "0.7" in redone.stages["refine"]
    assert redone.stages["segment"] == "changed: refine was redone"
    assert path.read_bytes() != left
    kept = load_mask(copied / "corrections" / "masks" / "train_00003.png")
    assert find_corrections(Workspace(copied), *_recipe_and_source(copied)).paths.keys() == {"train_00003"}
    np.testing.assert_array_equal(kept, load_mask(folder / "today" / "train_00003.png"))


def test_a_file_that_is_only_touched_is_no_edit(copied: Path) -> None:
    for path in (copied / "refine" / "masks").iterdir():
        os.utime(path)
    assert set(walk(copied).stages.values()) == {"up to date"}
    assert not (copied / "corrections").exists()


def test_an_older_file_of_another_size_is_an_edit(tmp_path: Path) -> None:
    """Copied with its time, as archives and rsync do."""
    workspace = Workspace(tmp_path)
    save_mask(workspace.mask_path("a"), np.zeros((8, 8), np.uint8))
    record_masks(workspace)
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(workspace.mask_path("a"))
    os.utime(workspace.mask_path("a"), (1e9, 1e9))
    assert adopt_edits(workspace) == ["a.png"]
    assert adopt_edits(workspace) == []


def test_a_run_without_a_record_is_left_as_it_is(copied: Path) -> None:
    (copied / "refine" / "masks.json").unlink()
    manifest = Workspace(copied)
    manifest.update_manifest(lambda m: m["stages"]["refine"].update(files=m["stages"]["refine"]["files"] - 1))
    save_mask(copied / MASK, halved(copied))
    assert set(walk(copied).stages.values()) == {"up to date"}


def test_edited_masks_are_not_reused_by_another_run(copied: Path, tmp_path: Path) -> None:
    original = (copied / MASK).read_bytes()
    save_mask(copied / MASK, halved(copied))
    recorder = ProgressRecorder()
    run(copied, output=tmp_path / "other", reuse=copied, progress=recorder, until="refine")
    assert recorder.stages["localize"] == f"reused from {copied}"
    assert recorder.stages["refine"] == "new"
    assert (tmp_path / "other" / MASK).read_bytes() == original


def _recipe_and_source(root: Path) -> tuple[Any, DataSource]:
    recipe = load_recipe(root / "recipe.yaml")
    return recipe, recipe.data.open()


# -- what is refused, before anything is trained ---------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda mask: np.where(mask > 0, 77, mask).astype(np.uint8), "unknown class number 77"),
        (lambda mask: mask[1:], "the mask is 48x47, its image is 48x48"),
        (lambda mask: np.stack([mask] * 3, 2), "colour picture"),
    ],
    ids=["label", "size", "colour"],
)
def test_a_mask_that_cannot_be_used_is_one_line(
    copied: Path,
    folder: Path,
    change: Callable[[UInt8Array], UInt8Array],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = folder / "today" / "train_00003.png"
    Image.fromarray(change(load_mask(path))).save(path)
    before = weights(copied)
    with pytest.raises(SystemExit) as left:
        cli.main(["run", str(copied), f"segment.corrections={folder}"])
    assert left.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: corrected mask")
    assert "train_00003.png" in last
    assert words in last
    assert weights(copied) == before


def test_a_folder_that_is_none_or_holds_no_training_image(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"segment\.corrections: .*nowhere is no folder"):
        walk(copied, f"segment.corrections={tmp_path / 'nowhere'}")
    save_mask(tmp_path / "masks" / "val_00000.png", np.zeros((48, 48), np.uint8))
    with pytest.raises(InputError, match=r"no mask of a training image \(1 files, such as val_00000\.png\)"):
        walk(copied, f"segment.corrections={tmp_path / 'masks'}")


def test_files_of_no_training_image_and_classes_beyond_the_tags_are_told(copied: Path, folder: Path) -> None:
    save_mask(folder / "val_00000.png", np.zeros((48, 48), np.uint8))
    _, source = _recipe_and_source(copied)
    sample = next(s for s in source.splits["train"] if s.id == "train_00003")
    other = next(label for label in range(1, len(source.classes.names)) if label not in sample.tags)
    save_mask(folder / "today" / "train_00003.png", np.full((48, 48), other, np.uint8))
    warnings = walk(copied, f"segment.corrections={folder}").warnings
    assert any("1 files are no mask of a training image: val_00000.png" in text for text in warnings)
    assert any("a class that is not among their image's tags: train_00003" in text for text in warnings)
    assert any("nothing that their image is tagged with: train_00003" in text for text in warnings)
    # Black and white, as many tools save one class: all of it would be ignored.
    save_mask(folder / "today" / "train_00003.png", np.full((48, 48), 255, np.uint8))
    warnings = walk(copied).warnings
    assert any("nothing that their image is tagged with: train_00003" in text for text in warnings)
    assert not any("not among their image's tags" in text for text in warnings)


# -- which file is whose, and what the training reads ----------------------------------------------------


def source_of(tmp_path: Path, *ids: str) -> DataSource:
    samples = []
    for number, key in enumerate(ids):
        path = tmp_path / "images" / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), (number, 0, 0)).save(path)
        samples.append(Sample(key, path, (1,)))
    return DataSource("test", ClassList(("background", "cow", "dog")), {"train": tuple(samples), "val": ()}, "f")


@pytest.mark.parametrize(
    ("file", "image_id"),
    [
        ("a.png", "a"),
        ("deep/er/a.PNG", "a"),
        ("A.tif", "a"),
        ("sub/b.png", "sub/b"),
        ("b.png", "sub/b"),
        ("sub%2Fb.png", "sub/b"),
        ("a_mask.png", "a"),
        ("12.bmp", "0012"),
    ],
)
def test_files_are_found_as_other_files_of_the_data(
    file: str, image_id: str, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    source = source_of(tmp_path, "a", "sub/b", "0012")
    path = tmp_path / "fixed" / file
    path.parent.mkdir(parents=True)
    Image.fromarray(np.ones((10, 12), np.uint8)).save(path)
    tiny["segment"]["corrections"] = str(tmp_path / "fixed")
    tiny["data"] = {"format": "table", "root": str(tmp_path), "mask_suffix": "_mask"}
    found = find_corrections(Workspace(tmp_path / "run"), load_recipe(tiny), source)
    assert found.paths == {image_id: path}
    assert found.unused == ()
    assert (found.read(next(s for s in source.splits["train"] if s.id == image_id)) == 1).all()


def test_one_file_for_two_images_is_neithers(tmp_path: Path, tiny: dict[str, Any]) -> None:
    source = source_of(tmp_path, "x/a", "y/a", "c")
    for name in ("a.png", "c.png"):
        save_mask(tmp_path / "fixed" / name, np.ones((10, 12), np.uint8))
    tiny["segment"]["corrections"] = str(tmp_path / "fixed")
    found = find_corrections(Workspace(tmp_path / "run"), load_recipe(tiny), source)
    assert found.paths.keys() == {"c"}
    assert found.unused == ("a.png",)


def test_the_training_reads_corrections_and_is_sure_of_them(
    tmp_path: Path, tiny: dict[str, Any], context_of: Callable[..., Any]
) -> None:
    source = source_of(tmp_path, "a", "b", "c")
    tiny["segment"]["corrections"] = str(tmp_path / "fixed")
    tiny["segment"]["confidence"] = {}
    save_mask(tmp_path / "fixed" / "b.png", np.full((10, 12), 2, np.uint8))
    context = context_of(tiny, source)
    save_mask(context.workspace.mask_path("a"), np.ones((10, 12), np.uint8))
    corrections = find_corrections(context.workspace, context.recipe, source)
    samples, read, _ = _masks(context, context.recipe.segment, WEAK, corrections)
    # 'b' has no pseudo mask at all, and is learnt from; 'c' has neither.
    assert {sample.id: int(read(sample)[0, 0]) for sample in samples} == {"a": 1, "b": 2}
    (context.workspace.stage("refine") / "thresholds.json").write_text('{"value": 0.4}')
    sure = weights_reader(context, context.recipe.segment.confidence, WEAK, corrections)(samples[1])
    assert sure is not None
    assert sure.shape == (10, 12)
    assert (sure == 1).all()
    # Saliency stands beside both images, and only the pseudo mask is held against it.
    for sample in samples:
        save_grey(context.workspace.grey_path(sample.id, "saliency", "maps"), np.zeros((10, 12), np.float32))
    read_planes = planes_reader(context, ["saliency"], corrections)
    assert [sorted(read_planes(sample)) for sample in samples] == [["saliency"], []]


def test_no_corrections_are_no_part_of_a_fingerprint() -> None:
    assert NO_CORRECTIONS.state() == Corrections().state() == ""
