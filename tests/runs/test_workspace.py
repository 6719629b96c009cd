"""The run directory: names, atomic writes, broken files, the lock."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tagmask.errors import RunError
from tagmask.ops.map_grids import MapGrids
from tagmask.ops.maps import upsample_maps
from tagmask.runs.workspace import Workspace
from tagmask.storage.files import artifact_name, atomic_write
from tagmask.storage.pictures import load_mask, save_mask, voc_palette
from tagmask.storage.records import read_json, read_jsonl, write_json
from tagmask.types import ActivationMaps, Problem

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)


@given(ids)
def test_names_stay_in_their_folder_and_fit_every_file_system(sample_id: str) -> None:
    name = artifact_name(sample_id)
    assert Path("folder") / name == Path("folder", name)
    assert Path("folder", name).name == name
    assert not name.startswith(".")
    assert name.isascii()
    assert len(f".tmp-{name}.npz") < 200
    assert not set('/\\:*?"<>|\0') & set(name)


@given(ids, ids)
def test_two_ids_never_share_a_name(one: str, other: str) -> None:
    assert (artifact_name(one) == artifact_name(other)) == (one == other)


def test_names_by_hand() -> None:
    assert artifact_name("2007_000032") == "2007_000032"
    assert artifact_name("train/a b.c") == "train%2Fa%20b.c"
    assert artifact_name("../x") == "%2E.%2Fx"
    long = "ü" * 300
    assert artifact_name(long) != artifact_name(long + "x")
    assert artifact_name(long).startswith("%C3%BC%C3%BC")


def test_a_file_name_that_is_no_unicode_can_be_a_name() -> None:
    """Linux file names are bytes; Python shows the undecodable ones as lone surrogates."""
    assert artifact_name(os.fsdecode(b"caf\xe9")) == "caf%E9"


def maps(k: int = 2) -> ActivationMaps:
    values = np.random.default_rng(k).random((k, 3, 4), dtype=np.float32)
    return ActivationMaps(np.arange(1, k + 1), values, np.full(k, 7.5, np.float32), (9, 13))


@pytest.mark.parametrize("k", [0, 1, 3])
def test_maps_come_back(tmp_path: Path, k: int) -> None:
    workspace = Workspace(tmp_path)
    workspace.save_maps("a/b", maps(k))
    back = workspace.load_maps("a/b")
    assert back.image_size == (9, 13)
    assert back.classes.tolist() == list(range(1, k + 1))
    assert back.maps.dtype == np.float32
    np.testing.assert_allclose(back.maps, maps(k).maps, atol=5e-4)  # float16
    assert back.peak.tolist() == [7.5] * k


@pytest.mark.parametrize("k", [1, 3])
def test_what_maps_are_at_full_size_comes_back(tmp_path: Path, k: int) -> None:
    """Small grids as half floats, a full-size map as differences of 1/4095."""
    rng, workspace = np.random.default_rng(k), Workspace(tmp_path)
    small, whole = (rng.random((k, *shape), dtype=np.float32) for shape in ((2, 2), (9, 13)))
    whole[:, 0, :3] = 0, 1, 1e-6  # what is above 0 stays above 0
    workspace.save_maps("a", replace(maps(k), grids=(small, whole), frame=(16, 16), seen=(9, 13)))
    back = workspace.load_maps("a")
    assert (back.frame, back.seen) == ((16, 16), (9, 13))
    assert [grid.dtype for grid in back.grids] == [np.float32] * 2
    np.testing.assert_allclose(back.grids[0], small, rtol=0, atol=5e-4)
    np.testing.assert_allclose(back.grids[1], whole, rtol=0, atol=1.01 / 4095)
    assert (back.grids[1][:, 0, :3] == np.float32([0, 1, 1 / 4095])).all()


def test_smooth_full_size_maps_take_little_space(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:200, :300] / 60
    whole = (np.sin(rows) * np.cos(columns)).clip(0)[None].astype(np.float32)
    workspace = Workspace(tmp_path)
    workspace.save_maps("a", replace(maps(1), grids=(whole,), frame=(200, 300), seen=(200, 300)))
    assert workspace.map_path("a").stat().st_size < whole.astype(np.float16).nbytes / 4


def test_maps_of_earlier_versions_are_stretched_as_before(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    path = workspace.map_path("a")
    path.parent.mkdir(parents=True)
    stored = maps().maps.astype(np.float16)
    np.savez(path, schema=1, classes=[1, 2], maps=stored, peak=np.ones(2, np.float32), image_size=[9, 13])
    back = workspace.load_maps("a")
    assert back.grids == ()
    full = MapGrids.of(back)
    for size in ((9, 13), (5, 8), (30, 31)):
        assert torch.equal(full.at(size), upsample_maps(torch.from_numpy(stored), size))


def test_masks_are_palette_images_in_voc_colours(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 255], [20, 2, 0]], np.uint8)
    workspace = Workspace(tmp_path)
    save_mask(workspace.mask_path("a"), mask)
    assert np.array_equal(load_mask(workspace.mask_path("a")), mask)
    with Image.open(workspace.mask_path("a")) as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((1, 0)) == (128, 0, 0)  # aeroplane
        assert image.convert("RGB").getpixel((2, 0)) == (224, 224, 192)  # void


def test_the_palette_is_the_published_one() -> None:
    colours = np.array(voc_palette()).reshape(256, 3)
    assert colours[[0, 1, 2, 15, 20]].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128]]
    assert len({tuple(colour) for colour in colours.tolist()}) == 256


# -- broken files ----------------------------------------------------------------------------------------


def saved(workspace: Workspace, kind: str) -> tuple[Path, Callable[[], object]]:
    if kind == "npz":
        workspace.save_maps("a", maps())
        return workspace.map_path("a"), lambda: workspace.load_maps("a")
    if kind == "png":
        path = workspace.mask_path("a")
        save_mask(path, np.random.default_rng(0).integers(0, 9, (20, 20), dtype=np.uint8))
        return path, lambda: load_mask(path)
    path = workspace.root / "metrics.json"
    write_json(path, {"ü": [1, 2, 3]})
    return path, lambda: read_json(path)


@pytest.mark.parametrize("kind", ["npz", "png", "json"])
def test_a_torn_file_is_named(tmp_path: Path, kind: str) -> None:
    path, load = saved(Workspace(tmp_path), kind)
    content = path.read_bytes()
    for length in range(0, len(content) * 9 // 10, max(1, len(content) // 50)):
        path.write_bytes(content[:length])
        with pytest.raises(RunError) as raised:
            load()
        assert str(path) in str(raised.value)
        assert "Delete it" in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["npz", "png"])
def test_a_flipped_bit_is_an_error_of_ours_or_none(tmp_path: Path, kind: str) -> None:
    path, load = saved(Workspace(tmp_path), kind)
    content = path.read_bytes()
    failed = 0
    for place in range(0, len(content), max(1, len(content) // 150)):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        try:
            load()
        except RunError:
            failed += 1
    assert failed > 75


def test_pickles_in_maps_are_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.save_maps("a", maps())
    np.savez(workspace.map_path("a"), maps=np.array([object()]), classes=[1], peak=[1], image_size=[1, 1])
    with pytest.raises(RunError, match="not a readable maps file"):
        workspace.load_maps("a")


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert read_jsonl(path) == [{"step": 1}, {"step": 2}]
    assert read_jsonl(tmp_path / "none.jsonl") == []


# -- writing ---------------------------------------------------------------------------------------------


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as stream:  # noqa: PT012
        stream.write(b"half")
        raise KeyboardInterrupt
    assert read_json(path) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full. Free some space"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EACCES, "Choose another folder with --output"),
        (errno.EROFS, "Choose another folder with --output"),
        (errno.EIO, "cannot write"),
    ],
)
def test_failing_writes_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunError, match=said) as raised:
        write_json(tmp_path / "a.json", 1)
    assert str(tmp_path / "a.json") in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file"):
        write_json(tmp_path / "file" / "a.json", 1)


def test_what_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_problems_of_a_stage_are_replaced(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    strange = os.fsdecode(b"caf\xe9")
    one, two = Problem("localize", "a", "a.jpg", "empty"), Problem("refine", strange, f"{strange}.jpg", "ü")
    workspace.write_problems("localize", [one])
    workspace.write_problems("refine", [two])
    workspace.write_problems("localize", [one])
    assert workspace.problems() == [two, one]
    workspace.write_problems("localize", [])
    assert workspace.problems() == [two]
    assert [json.loads(line)["stage"] for line in (tmp_path / "problems.jsonl").read_bytes().splitlines()] == ["refine"]


def test_artifacts_are_counted_by_stage(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for name in (
        "segment/model.safetensors",
        "segment/state.ckpt",
        "segment/predictions/a.png",
        "segment/predictions/.tmp-x",
        "segment/full/model.safetensors",
        "segment/full/predictions/a.png",
        "segment/full/predictions/full/b.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert workspace.count_files("segment") == 2
    assert workspace.count_files("segment/full") == 3
    assert workspace.count_files("localize") == 0
    workspace.sweep()
    assert not (tmp_path / "segment/predictions/.tmp-x").exists()
    assert workspace.count_files("segment") == 2


# -- the lock --------------------------------------------------------------------------------------------


def hold(root: Path, held: object, end: object) -> None:
    with Workspace(root).lock():
        held.set()  # type: ignore[attr-defined]
        end.wait()  # type: ignore[attr-defined]


def test_one_process_at_a_time_even_after_kill_9(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, end = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, held, end), daemon=True)
    other.start()
    assert held.wait(60)
    with pytest.raises(RunError, match="another tagmask process"), Workspace(tmp_path).lock():
        pass
    other.kill()
    other.join()
    with Workspace(tmp_path).lock():
        pass


def test_a_run_under_a_file_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"), Workspace(tmp_path / "file" / "run").lock():
        pass
