"""The pipeline on a tiny recipe: nothing twice, only what changed again, reuse, locks, kill -9 anywhere."""

from __future__ import annotations

import copy
import fnmatch
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from progress_recorder import ProgressRecorder
from tagmask.engine import training
from tagmask.errors import InputError, RunError
from tagmask.pipeline.execute import run, status
from tagmask.runs.workspace import Workspace
from tagmask.stages.table import STAGES, kind_of

ALL = ["classify", "localize", "refine", "segment", "segment/full", "evaluate"]


def walk(recipe: Any, output: Path | None = None, *overrides: str, **options: Any) -> ProgressRecorder:
    recorder = ProgressRecorder()
    run(recipe, output=output, progress=recorder, overrides=overrides, **options)
    return recorder


def content(root: Path) -> dict[str, bytes]:
    """What a run is about: every artifact, byte for byte, without times and logs."""
    left_out = ("*.lock", "log.txt", "report.html", "manifest.json", "*state.ckpt", "recipe.yaml")
    files = {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {
        name: path.read_bytes()
        for name, path in files.items()
        if not any(fnmatch.fnmatch(name, pattern) for pattern in left_out)
    }


# -- nothing twice ---------------------------------------------------------------------------------------


def test_a_run_leaves_the_artifacts_of_every_stage(finished: Path) -> None:
    names = set(content(finished))
    for expected in (
        "classify/model.safetensors", "classify/history.jsonl", "localize/maps/train_00000.npz",
        "refine/maps/val_00003.npz", "refine/masks/train_00011.png", "refine/thresholds.json",
        "segment/model.safetensors", "segment/predictions/val_00000.png", "segment/full/predictions/val_00000.png",
        "metrics.json", "problems.jsonl",
    ):  # fmt: skip
        assert expected in names
    assert not [path for path in finished.rglob("*") if path.name.startswith(".tmp-") or path.name == "state.ckpt"]
    assert (finished / "report.html").stat().st_size > 10_000
    assert (finished / "recipe.yaml").exists()


@pytest.mark.parametrize("stage", ALL)
def test_the_table_of_stages_says_what_each_leaves(finished: Path, stage: str) -> None:
    for name in kind_of(stage).leaves:
        assert list((finished / stage).glob(name.replace("ID", "*"))), name


def test_the_manifest_says_what_was_done(finished: Path) -> None:
    manifest = Workspace(finished).manifest()
    assert list(manifest["stages"]) == ALL
    assert {entry["status"] for entry in manifest["stages"].values()} == {"done"}
    assert manifest["data"]["images"] == {"train": 12, "val": 4}
    assert manifest["environment"]["precision"] == "float32"
    rows = status(finished)
    assert [row["stage"] for row in rows] == ALL
    assert all(row["seconds"] >= 0 and row["peak_memory_mb"] > 0 for row in rows)


def test_a_second_run_does_nothing(copied: Path, tiny: dict[str, Any]) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.suffix in (".npz", ".png")}
    recorder = walk(tiny, copied)
    assert recorder.stages == dict.fromkeys(ALL, "up to date")
    assert recorder.tasks == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_run_directory_is_a_recipe(copied: Path) -> None:
    assert walk(copied).stages == dict.fromkeys(ALL, "up to date")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run directory"):
        run(tmp_path)
    with pytest.raises(InputError, match="not a run directory"):
        status(tmp_path)


# -- only what changed -----------------------------------------------------------------------------------


def test_a_changed_threshold_redoes_refine_and_what_follows(copied: Path, tiny: dict[str, Any], finished: Path) -> None:
    recorder = walk(tiny, copied, "refine.threshold.value=0.7")
    assert recorder.stages["classify"] == recorder.stages["localize"] == recorder.stages["segment/full"] == "up to date"
    assert "0.4" in recorder.stages["refine"]
    assert "0.7" in recorder.stages["refine"]
    assert recorder.stages["segment"] == "changed: refine was redone"
    assert "segment was redone" in recorder.stages["evaluate"] or "refine was redone" in recorder.stages["evaluate"]
    old, new = content(finished), content(copied)
    assert old.keys() == new.keys()
    kept = ("classify", "localize", "segment/full", "refine/maps")
    assert all(new[name] == old[name] for name in old if name.startswith(kept))
    assert any(new[name] != old[name] for name in old if name.startswith("refine/masks"))
    assert new["metrics.json"] != old["metrics.json"]


def test_changed_evaluation_scores_again_and_does_nothing_else(copied: Path, tiny: dict[str, Any]) -> None:
    recorder = walk(tiny, copied, "evaluate.thresholds=5")
    assert recorder.stages.pop("evaluate") == "changed: thresholds 20 -> 5"
    assert set(recorder.stages.values()) == {"up to date"}
    curve = json.loads((copied / "metrics.json").read_text())["splits"]["val"]["maps"]["void_ignored"]
    assert len(curve["threshold_curve"]["miou"]) == 6


def test_a_new_seed_redoes_everything(copied: Path, tiny: dict[str, Any]) -> None:
    recorder = walk(tiny, copied, "seed=1", until="localize")
    assert "seed 0 -> 1" in recorder.stages["classify"]
    assert list(recorder.stages) == ["classify", "localize"]


def test_changed_data_redoes_everything(copied: Path, tiny: dict[str, Any]) -> None:
    assert walk(tiny, copied, "data.train=8", until="classify").stages == {"classify": "changed: data"}


def test_artifacts_of_a_stage_that_the_recipe_no_longer_has_are_not_scored(copied: Path, tiny: dict[str, Any]) -> None:
    walk(tiny, copied, "segment.supervision=weak", "segment.epochs=1")
    found = json.loads((copied / "metrics.json").read_text())
    assert "segmentation" in found["splits"]["val"]
    assert "segmentation_full" not in found["splits"]["val"]
    assert found["ratio_to_full"] is None
    walk(tiny, copied, "segment=null", "refine=[{name: threshold, value: 0.4}]")
    assert set(json.loads((copied / "metrics.json").read_text())["splits"]["val"]) == {"maps", "pseudo_masks"}


def test_lost_artifacts_are_made_again(copied: Path, tiny: dict[str, Any], finished: Path) -> None:
    for name in ("localize/maps/train_00003.npz", "refine/masks/train_00003.png", "metrics.json"):
        (copied / name).unlink()
    recorder = walk(tiny, copied)
    gone = "1 of its files are gone"
    assert {name for name, reason in recorder.stages.items() if reason == gone} == {"localize", "refine", "evaluate"}
    assert content(copied) == content(finished)


# -- until, reuse, lock ----------------------------------------------------------------------------------


def test_until_stops_there_and_later_goes_on(tmp_path: Path, tiny: dict[str, Any], finished: Path) -> None:
    assert list(walk(tiny, tmp_path / "run", until="localize").stages) == ["classify", "localize"]
    assert not (tmp_path / "run" / "refine").exists()
    assert not (tmp_path / "run" / "metrics.json").exists()
    recorder = walk(tiny, tmp_path / "run")
    assert list(recorder.stages.values()) == ["up to date"] * 2 + ["new"] * 4
    assert content(tmp_path / "run") == content(finished)


def test_until_a_stage_that_is_not_there(tmp_path: Path, tiny: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no such stage"):
        run(tiny, output=tmp_path / "run", until="locate")
    with pytest.raises(InputError, match="this recipe has no"):
        run(tiny, output=tmp_path / "run", until="segment/full", overrides=["segment.supervision=weak"])
    assert not (tmp_path / "run").exists()


def test_reuse_links_what_fits_and_does_the_rest(tmp_path: Path, tiny: dict[str, Any], finished: Path) -> None:
    before = content(finished)
    recorder = walk(tiny, tmp_path / "run", "refine.threshold.value=0.7", reuse=finished)
    reused = f"reused from {finished}"
    assert {name for name, reason in recorder.stages.items() if reason == reused} == {
        "classify",
        "localize",
        "segment/full",
    }
    map_name = "localize/maps/train_00000.npz"
    assert os.path.samefile(finished / map_name, tmp_path / "run" / map_name)
    assert content(finished) == before
    # Redoing a linked stage leaves the run it came from alone.
    walk(tiny, tmp_path / "run", "localize.flip=false", until="localize")
    assert content(finished) == before
    assert content(tmp_path / "run")[map_name] != before[map_name]


def test_reuse_of_what_is_no_run(tmp_path: Path, tiny: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="nowhere: not a run directory"):
        run(tiny, output=tmp_path / "run", reuse=tmp_path / "nowhere")


def test_a_run_that_is_locked_is_left_alone(copied: Path, tiny: dict[str, Any]) -> None:
    before = content(copied)
    with Workspace(copied).lock(), pytest.raises(RunError, match="another tagmask process"):
        run(tiny, output=copied, overrides=["seed=1"])
    assert content(copied) == before


def test_seeds_get_their_own_default_folder(tiny: dict[str, Any], monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    tiny["classify"]["epochs"] = 1
    assert run(tiny, until="classify").path == Path("runs/tiny")
    assert run(tiny, until="classify", overrides=["seed=3"]).path == Path("runs/tiny-seed3")


# -- kill -9 ---------------------------------------------------------------------------------------------

# (pattern of a file about to get its name, how many of them before the kill)
PLACES = [
    ("classify/state.ckpt", 1),
    ("classify/history.jsonl", 3),  # the history is ahead of the checkpoint
    ("classify/state.ckpt", 1),
    ("classify/model.safetensors", 0),
    ("manifest.json", 2),  # classify is finished, but not yet said to be
    ("localize/maps/*.npz", 5),
    ("localize/maps/*.npz", 3),
    ("refine/maps/*.npz", 7),
    ("refine/thresholds.json", 0),
    ("refine/masks/*.png", 9),
    ("segment/state.ckpt", 3),
    ("segment/model.safetensors", 0),
    ("segment/predictions/*.png", 2),
    ("segment/full/state.ckpt", 4),
    ("segment/full/predictions/*.png", 0),
    ("metrics.json", 0),
    ("report.html", 0),
]


def run_into(place: tuple[str, int], recipe: dict[str, Any], output: Path, reached: Any) -> None:
    """Walk, and stand still where ``place`` says: the file is written, and about to get its name."""
    pattern, left = place
    really_replace = os.replace

    def replace(source: Any, target: Any) -> None:
        nonlocal left
        if fnmatch.fnmatch(str(Path(target).relative_to(output)), pattern):
            if left == 0:
                reached.set()
                time.sleep(600)
            left -= 1
        really_replace(source, target)

    os.replace = replace  # type: ignore[assignment]
    # A checkpoint after every step, however slow the disk: no time passes.
    training.time = SimpleNamespace(monotonic=lambda: 0.0)  # type: ignore[assignment]
    run(recipe, output=output)


@pytest.fixture(scope="module")
def start() -> Callable[..., BaseProcess]:
    """Processes that have torch and tagmask loaded from the first moment on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tagmask.stages.classify.stage", "tagmask.stages.segment.stage", "tagmask.pipeline.execute"]
    )

    def begin(place: tuple[str, int], recipe: dict[str, Any], output: Path) -> tuple[BaseProcess, Any]:
        reached = context.Event()
        process = context.Process(target=run_into, args=(place, recipe, output, reached), daemon=True)
        process.start()
        return process, reached

    return begin  # type: ignore[return-value]


def kill_at(start: Callable[..., Any], places: Sequence[tuple[str, int]], recipe: dict[str, Any], output: Path) -> None:
    for place in places:
        process, reached = start(place, recipe, output)
        while process.is_alive() and not reached.wait(0.02):
            pass
        assert reached.is_set(), f"{place} was never reached"
        process.kill()
        process.join()
        assert process.exitcode == -9


def test_killed_again_and_again_it_ends_the_same(
    start: Callable[..., Any], tiny: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    kill_at(start, PLACES, tiny, tmp_path / "run")
    recorder = walk(tiny, tmp_path / "run")
    assert set(recorder.stages.values()) <= {"up to date", "resumed"}
    found, expected = content(tmp_path / "run"), content(finished)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.parametrize("place", [PLACES[1], PLACES[5], PLACES[12]], ids=lambda place: place[0])
def test_killed_once_only_the_rest_is_done(
    place: tuple[str, int], start: Callable[..., Any], tiny: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    kill_at(start, [place], tiny, tmp_path / "run")
    assert list((tmp_path / "run").rglob(".tmp-*"))  # what the kill left behind
    stage = place[0].split("/")[0]
    assert {row["stage"]: row["status"] for row in status(tmp_path / "run")}[stage] == "running"
    recorder = walk(tiny, tmp_path / "run")
    assert recorder.stages[stage] == "resumed"
    assert [task for task in recorder.tasks if task[2]], "nothing of what was done is used"
    assert content(tmp_path / "run") == content(finished)
    assert not list((tmp_path / "run").rglob(".tmp-*"))


def test_killed_in_a_round_of_self_training_it_ends_the_same(
    start: Callable[..., Any], short: dict[str, Any], tmp_path: Path
) -> None:
    recipe = copy.deepcopy(short)
    recipe["segment"].update(supervision="weak", rounds=2, epochs=1, relabel={"crf": None})
    places = [("segment/2/masks/*.png", 4), ("segment/2/state.ckpt", 1)]
    kill_at(start, places, recipe, tmp_path / "run")
    walk(recipe, tmp_path / "run")
    expected = content(run(recipe, output=tmp_path / "expected").path)
    found = content(tmp_path / "run")
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


# -- torn files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("torn", "redone"),
    [
        ("localize/maps/train_00003.npz", "refine.colour_walk.steps=3"),
        ("refine/maps/train_00003.npz", "refine.threshold.value=0.6"),
        ("classify/model.safetensors", "localize.flip=false"),
        ("refine/thresholds.json", "evaluate.thresholds=6"),
        ("manifest.json", "evaluate.thresholds=6"),
    ],
)
def test_a_torn_file_is_named_and_can_be_deleted(copied: Path, tiny: dict[str, Any], torn: str, redone: str) -> None:
    path = copied / torn
    path.write_bytes(path.read_bytes()[:-30])
    if torn.startswith("refine/maps"):  # as if the stage had been interrupted
        Workspace(copied).update_manifest(lambda m: m["stages"]["refine"].update(status="running"))
        shutil.rmtree(copied / "refine" / "masks")
        redone = "name=tiny"
    with pytest.raises((RunError, InputError), match=path.name) as raised:
        walk(tiny, copied, redone)
    assert "\n" not in str(raised.value)
    assert "Delete" in str(raised.value)
    path.unlink()
    walk(tiny, copied, redone)
    assert path.exists()


def test_metrics_hold_no_nan_and_every_split(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert set(metrics["splits"]) == {"train", "val"}
    for split, keys in {"train": {"maps", "refined_maps", "pseudo_masks"}, "val": set()}.items():
        assert keys <= set(metrics["splits"][split])
    assert set(metrics["splits"]["val"]) >= {"maps", "pseudo_masks", "segmentation", "segmentation_full"}
    assert np.isfinite(metrics["splits"]["val"]["maps"]["void_ignored"]["miou"])


def test_stage_names_are_known() -> None:
    assert (*ALL, "report") == tuple(stage for stage in STAGES if stage != "saliency")  # only for losses that need it
