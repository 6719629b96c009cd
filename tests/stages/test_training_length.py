"""``iterations: auto``: updates by the table, told, kept in the manifest; a short training is warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_recorder import ProgressRecorder
from tagmask.pipeline.execute import run
from tagmask.settings import training_length as table
from tagmask.settings.loading import load_recipe
from tagmask.settings.training_length import LengthRule
from tagmask.storage.records import read_json, read_jsonl

RULE = LengthRule(passes=10, untagged=0.5, floor=20, per_class=3, ceiling=500)


@pytest.mark.parametrize(
    ("tagged", "untagged", "updates"),
    [
        (8, 0, 50),  # the floor: 20 + 3 * 10
        (80, 0, 100),  # 10 passes over 80 images in batches of 8
        (80, 80, 150),  # an image without a tag counts a half
        (81, 0, 102),  # rounded up
        (4000, 0, 500),  # the ceiling
    ],
)
def test_floor_passes_and_ceiling(tagged: int, untagged: int, updates: int) -> None:
    assert RULE.updates(tagged=tagged, untagged=untagged, n_classes=10, batch_size=8) == updates


@given(
    tagged=st.integers(0, 10_000),
    untagged=st.integers(0, 10_000),
    n_classes=st.integers(1, 1000),
    batch_size=st.integers(1, 64),
)
@pytest.mark.parametrize("name", table.TRAINING_LENGTH)
def test_no_row_leaves_its_bounds(name: str, tagged: int, untagged: int, n_classes: int, batch_size: int) -> None:
    rule = table.TRAINING_LENGTH[name]
    sizes = {"untagged": untagged, "n_classes": n_classes, "batch_size": batch_size}
    updates = rule.updates(tagged=tagged, **sizes)
    assert rule.least(n_classes) <= updates <= rule.ceiling
    assert rule.updates(tagged=tagged + 1, **sizes) >= updates


@pytest.fixture
def short_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table for tests: a few updates, however small the data."""
    short = LengthRule(passes=0.5, untagged=0.5, floor=3, per_class=0, ceiling=5)
    monkeypatch.setattr(table, "TRAINING_LENGTH", dict.fromkeys(table.TRAINING_LENGTH, short))


@pytest.mark.usefixtures("short_rows")
def test_auto_in_every_training_of_a_run(tiny: dict[str, Any], tmp_path: Path) -> None:
    """12 images in batches of 8: an epoch is one update, so the fifth one ends within its epoch."""
    refiner = {"name": "affinitynet", "iterations": "auto", "batch_size": 8, "epochs": 1}
    tiny["classify"].update(iterations="auto", validations=1)
    tiny["retrain"] = [{"iterations": 4}]
    tiny["segment"].update(iterations="auto", supervision="both", batch_size=5)
    tiny["refine"] = [refiner, {"name": "threshold", "value": 0.3}]
    tiny["data"].update(train=12, val=4)
    recorder, root = ProgressRecorder(), tmp_path / "run"
    run(tiny, output=root, progress=recorder, until="segment/full")
    stages = read_json(root / "manifest.json")["stages"]
    expected = {
        ("classify", "classify", "classify"): (3, "auto"),
        ("classify/2", "classify/2", "classify/2"): (4, "iterations"),
        ("refine", "1-affinitynet", "refine/1-affinitynet"): (3, "auto"),
        ("segment", "segment", "segment"): (3, "auto"),
        ("segment/full", "segment/full", "segment/full"): (3, "auto"),
    }
    for (stage, training, folder), (updates, origin) in expected.items():
        record = stages[stage]["trainings"][training]
        assert (record["updates"], record["from"]) == (updates, origin), stage
        assert record["images"] <= 12
        assert record["classes"] == len(read_json(root / "manifest.json")["data"]["classes"]) - 1
        history = read_jsonl(root / folder / "history.jsonl")
        assert [line["step"] for line in history if "loss" in line] == list(range(1, updates + 1)), stage
    assert [line["step"] for line in read_jsonl(root / "classify/history.jsonl") if "val_map" in line] == [3]
    assert any(text.startswith("segment: 3 updates of 5 images (auto: 12 training images") for text in recorder.lines)
    assert not [text for text in recorder.warnings if "updates are few" in text]


def test_a_number_of_updates_may_end_within_an_epoch(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["classify"].update(iterations=4, batch_size=8, validations=9)
    tiny["data"].update(train=24, val=4)
    run(tiny, output=tmp_path / "run", until="classify")
    history = read_jsonl(tmp_path / "run" / "classify" / "history.jsonl")
    assert [line["step"] for line in history if "val_map" in line] == [3, 4]
    assert [line["epoch"] for line in history if "val_map" in line] == [1, 2]


def test_a_short_training_is_warned_of_with_the_remedy(tiny: dict[str, Any], tmp_path: Path) -> None:
    recorder = ProgressRecorder()
    run(tiny, output=tmp_path / "run", progress=recorder, until="segment")
    short = [text for text in recorder.warnings if "updates are few" in text]
    assert len(short) == 2
    assert short[0].startswith("classify: 6 updates are few for ")
    assert short[0].endswith("set classify.iterations=auto")
    assert short[1].endswith("set segment.iterations=auto")


def test_epochs_asked_for_later_take_the_place_of_iterations(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("classify: {iterations: auto}\nsegment: {iterations: 70}\n")
    (tmp_path / "above.yaml").write_text("extends: below.yaml\nclassify: {epochs: 3}\n")
    recipe = load_recipe(tmp_path / "above.yaml", ["segment.epochs=2"])
    assert (recipe.classify.iterations, recipe.classify.epochs) == (None, 3)
    assert recipe.segment is not None
    assert (recipe.segment.iterations, recipe.segment.epochs) == (None, 2)
    again = load_recipe(load_recipe(tmp_path / "below.yaml"))
    assert again.classify.iterations == "auto"
    both = load_recipe(tmp_path / "below.yaml", ["classify.epochs=3", "classify.iterations=9"])
    assert both.classify.iterations == 9


def test_a_retraining_with_epochs_of_its_own_does_not_inherit_the_updates() -> None:
    recipe = load_recipe({"classify": {"iterations": "auto"}, "retrain": [{"epochs": 2}, {}]})
    assert [settings.iterations for settings in recipe.retrain] == [None, "auto"]
