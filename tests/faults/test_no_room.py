"""Folders that cannot be written and disks that are full: one line, nothing half-written, and the run goes on later."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock
from PIL import Image

from tagmask import cli
from tagmask.errors import RunError
from tagmask.pipeline.execute import run
from tagmask.runs.image_counts import read_split_counts
from tagmask.runs.workspace import Workspace
from tagmask.storage import files

PLACES = [
    "manifest.json",
    "classify/state.ckpt",
    "classify/history.jsonl",
    "classify/model.safetensors",
    "localize/maps/train_00005.npz",
    "refine/maps/val_00001.npz",
    "refine/masks/train_00002.png",
    "segment/state.ckpt",
    "segment/model.safetensors",
    "segment/predictions/val_00002.png",
    "evaluate/train-images.npz",
    "metrics.json",
    "report.html",
]


def whole(root: Path) -> None:
    """Every file that has a name can be read."""
    space = Workspace(root)
    for path in root.rglob("*"):
        assert not path.name.startswith(".tmp-"), path
        if path.parent.name == "evaluate" and path.suffix == ".npz":
            read_split_counts(path)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                assert len(stored["maps"]) == len(stored["classes"])
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
    space.manifest()


class FullDisk:
    """A file that takes some bytes and then none."""

    def __init__(self, stream: Any, room: int) -> None:
        self._stream, self._room = stream, room

    def write(self, content: Any) -> Any:
        self._room -= len(content)
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._stream.write(content)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


@pytest.mark.parametrize("place", PLACES)
def test_a_full_disk_costs_nothing_but_time(
    place: str, weak: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open, really_write = os.fdopen, files.atomic_write
    target = tmp_path / "run" / place

    def open_full(handle: int, *arguments: Any, **keywords: Any) -> Any:
        return FullDisk(really_open(handle, *arguments, **keywords), room=40)

    def write(path: Path, mode: str = "wb") -> Any:
        if path != target:
            return really_write(path, mode)
        monkeypatch.setattr(files.os, "fdopen", open_full)
        return really_write(path, mode)

    modules = (
        "storage.files",
        "storage.records",
        "storage.pictures",
        "storage.weights",
        "runs.workspace",
        "runs.image_counts",
        "engine.training",
        "pipeline.execute",
        "report.run.page",
    )
    for module in (f"tagmask.{name}" for name in modules):
        monkeypatch.setattr(f"{module}.atomic_write", write)
    with pytest.raises(
        RunError, match=r"the disk is full\. Free some space and start the same command again"
    ) as raised:
        run(weak, output=tmp_path / "run")
    assert str(target) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not target.exists()
    whole(tmp_path / "run")
    monkeypatch.undo()
    if place in ("manifest.json", "localize/maps/train_00005.npz", "report.html"):
        run(weak, output=tmp_path / "run")
        assert target.exists()
        whole(tmp_path / "run")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path, weak: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="the disk is full") as raised:
        run(weak, output=small_disk / "run")
    assert "\n" not in str(raised.value)
    whole(small_disk / "run")
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert run(weak, output=small_disk / "run").metrics["splits"]
    whole(small_disk / "run")


def test_a_log_that_cannot_be_written_stops_nothing(weak: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run" / "log.txt").mkdir(parents=True)
    run(weak, output=tmp_path / "run", until="classify")
    assert (tmp_path / "run" / "classify" / "model.safetensors").exists()


@pytest.fixture
def recipe_file(weak: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(weak))
    return path


def leave(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_an_output_folder_under_a_file(recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert leave("run", recipe_file, "--output", tmp_path / "file" / "run") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'file' / 'run'}: cannot write")
    assert said.count("\n") == 1


def test_an_output_folder_that_is_read_only(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere, so the answer of the system is given for it."""

    def refuse(lock: FileLock, **keywords: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), lock.lock_file)

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert leave("run", recipe_file, "--output", tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert said == f"error: {tmp_path / 'run'}: cannot write here (Permission denied). " + (
        "Choose another folder with --output DIR.\n"
    )


def test_a_folder_that_becomes_read_only(weak: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_make = files.tempfile.mkstemp

    def refuse(*arguments: Any, **keywords: Any) -> Any:
        if Path(keywords["dir"]).name == "maps":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return really_make(*arguments, **keywords)

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    with pytest.raises(RunError, match=r"train_00000\.npz: cannot write here \(Read-only file system\)"):
        run(weak, output=tmp_path / "run")
