"""Ground truth is opened by evaluate and by full supervision, and by nobody else."""

from __future__ import annotations

import builtins
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tagmask.data.partsworld.source import PartsWorldSource
from tagmask.errors import DataError, RunError, UnreadableMaskError
from tagmask.pipeline.execute import run
from tagmask.progress.listeners import SilentProgress
from tagmask.runs.workspace import Workspace
from tagmask.types import DataSource, Sample


class Watch(SilentProgress):
    """Which stage is at work."""

    def __init__(self) -> None:
        self.now = "data"

    def stage(self, name: str, reason: str) -> None:
        self.now = name


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> tuple[Watch, list[tuple[str, str]]]:
    """(stage, path) of everything that is opened, by whichever way Python has; mask readers are ways too."""
    PartsWorldSource(train=12, val=4, size=48).open()  # drawn before anybody watches
    watch, seen = Watch(), list[tuple[str, str]]()

    def spy(really: Callable[..., Any]) -> Callable[..., Any]:
        def open_it(path: Any, *arguments: Any, **keywords: Any) -> Any:
            seen.append((watch.now, str(getattr(path, "name", path))))
            return really(path, *arguments, **keywords)

        return open_it

    monkeypatch.setattr(Image, "open", spy(Image.open))
    monkeypatch.setattr(builtins, "open", spy(builtins.open))
    monkeypatch.setattr(io, "open", spy(io.open))  # what Path.open calls
    return watch, seen


def stages_that_opened(seen: list[tuple[str, str]], folder: str) -> set[str]:
    return {stage for stage, path in seen if f"/{folder}/" in path}


def test_masks_are_opened_in_evaluate_and_full_supervision_only(
    tiny: dict[str, Any], tmp_path: Path, opened: tuple[Watch, list[tuple[str, str]]]
) -> None:
    watch, seen = opened
    run(tiny, output=tmp_path / "run", progress=watch)
    assert stages_that_opened(seen, "SegmentationClass") == {"segment/full", "evaluate"}
    assert stages_that_opened(seen, "PartMaps") == set()
    # The spies do see what the weak stages open.
    assert stages_that_opened(seen, "JPEGImages") >= {"classify", "localize", "refine", "segment"}
    assert stages_that_opened(seen, "masks") >= {"segment"}


def test_an_automatic_threshold_needs_no_mask(
    weak: dict[str, Any], tmp_path: Path, opened: tuple[Watch, list[tuple[str, str]]]
) -> None:
    watch, seen = opened
    run(weak, output=tmp_path / "run", progress=watch, overrides=["refine.threshold.value=auto"], until="segment")
    assert stages_that_opened(seen, "SegmentationClass") == set()


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """PartsWorld in VOC layout, its tags in a table, so that no mask needs to be read for them."""
    source = PartsWorldSource(train=12, val=4, size=48)
    source.open()
    return Path(shutil.copytree(source.folder(), tmp_path / "voc"))


def test_poisoned_masks_change_no_weak_result(weak: dict[str, Any], tmp_path: Path, voc: Path) -> None:
    """Sizes and times stay, so that nothing but opening a mask could tell."""
    (tmp_path / "clean").mkdir()
    weak["data"] = {"format": "table", "root": str(voc), "images": "JPEGImages", "masks": "SegmentationClass"}
    run(weak, output=tmp_path / "clean")
    for mask in (voc / "SegmentationClass").iterdir():
        mask.write_bytes(b"\xff" * mask.stat().st_size)
    poisoned = run(weak, output=tmp_path / "poisoned")
    for name in ("classify/model.safetensors", "segment/model.safetensors", "refine/masks/train_00004.png"):
        assert (tmp_path / "clean" / name).read_bytes() == (poisoned.path / name).read_bytes()
    found = {problem.stage for problem in Workspace(poisoned.path).problems() if problem.left_out}
    assert found == {"evaluate"}
    assert poisoned.metrics["splits"] == {}
    assert poisoned.metrics["without_masks"]


def test_poisoned_masks_end_full_supervision_in_one_line(weak: dict[str, Any], tmp_path: Path, voc: Path) -> None:
    weak["data"] = {"format": "table", "root": str(voc), "images": "JPEGImages", "masks": "SegmentationClass"}
    weak["segment"].update(supervision="full", network={**weak["segment"]["network"], "weights": None})
    for mask in (voc / "SegmentationClass").iterdir():
        mask.write_bytes(b"\xff" * mask.stat().st_size)
    with pytest.raises(RunError, match=r"none of the \d+ inputs could be read; the first: .*\.png") as raised:
        run(weak, output=tmp_path / "run")
    assert "\n" not in str(raised.value)


def test_the_weak_view_has_no_way_back() -> None:
    source = PartsWorldSource(train=2, val=1, size=48).open()
    view = source.weak()
    samples = [sample for split in view.splits.values() for sample in split]
    assert len(samples) == 3
    assert all(sample.mask_path is None and sample.boxes == () for sample in samples)
    assert not any(view.has_mask(sample) for sample in samples)
    with pytest.raises(DataError, match="no masks"):
        view.read_mask(samples[0])
    with pytest.raises(DataError, match="no masks"):
        view.read_mask(source.split("train")[0])
    assert [sample.tags for sample in view.split("train")] == [sample.tags for sample in source.split("train")]


def test_a_mask_reader_is_never_called_by_weak_stages(
    weak: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    watch = Watch()
    really_open = PartsWorldSource.open

    def poisoned(settings: PartsWorldSource) -> DataSource:
        def read(sample: Sample) -> Any:
            asked.append(watch.now)
            msg = f"{sample.mask_path}: poisoned"
            raise UnreadableMaskError(msg)

        return replace(really_open(settings), mask_reader=read)

    monkeypatch.setattr(PartsWorldSource, "open", poisoned)
    done = run(weak, output=tmp_path / "run", progress=watch)
    assert set(asked) == {"evaluate"}
    assert done.metrics["splits"] == {}
    assert (done.path / "segment" / "predictions" / "val_00000.png").exists()
