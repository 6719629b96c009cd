"""Run directories made by version 0.1, before the files moved: nothing in them is done again, and they still predict.

``old_run/make.py`` says how the archive was made. PartsWorld's images lie in it as a VOC folder: a mask's time is part
of a fingerprint, and images that are drawn anew are as old as the test.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tagmask
from progress_recorder import ProgressRecorder
from tagmask.data.partsworld.source import PartsWorldSource
from tagmask.pipeline.plan import plan
from tagmask.settings.loading import load_recipe
from tagmask.storage.images import read_image
from tagmask.storage.pictures import load_mask
from tagmask.types import ClassList, DataSource

ARCHIVE = Path(__file__).parent / "old_run" / "runs.tar.xz"
STAGES = {
    "nested": [
        "classify", "classify/2", "localize", "refine", "saliency", "segment", "segment/2", "segment/full", "evaluate",
    ],
    "gated": ["classify", "localize", "refine", "segment", "evaluate"],
}  # fmt: skip
#: Which network is the run's result.
RESULT = {"nested": "segment/2", "gated": "segment"}
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked: data, nested, gated."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(autouse=True)
def _in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """A predictor takes the fastest precision of its machine; the runs were made in float32."""
    monkeypatch.setattr("tagmask.engine.engine._best_precision", lambda accelerator: "float32")


def artifacts(run: Path) -> dict[str, bytes]:
    """Every file that a stage made."""
    rewritten = ("recipe.yaml", "manifest.json", "log.txt", ".lock", "problems.jsonl")
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name not in rewritten
    }


@pytest.mark.parametrize("name", STAGES)
def test_nothing_is_done_again(old: Path, name: str) -> None:
    run, recorder = old / name, ProgressRecorder()
    before, manifest = artifacts(run), json.loads((run / "manifest.json").read_text())
    problems = (run / "problems.jsonl").read_text().splitlines()
    tagmask.run(run, overrides=[f"data.root={old / 'data'}"], progress=recorder)
    assert recorder.stages == dict.fromkeys(STAGES[name], "up to date")
    assert artifacts(run) == before  # the report too: nothing in it is newer
    assert json.loads((run / "manifest.json").read_text())["stages"] == manifest["stages"]
    assert sorted((run / "problems.jsonl").read_text().splitlines()) == sorted(problems)


def test_a_changed_setting_is_noticed(old: Path) -> None:
    """Lest "up to date" be said of anything."""
    recorder = ProgressRecorder()
    overrides = [f"data.root={old / 'data'}", "localize.scales=[1.0]"]
    output, other = old / "changed", old / "gated"
    tagmask.run(other, output=output, reuse=other, overrides=overrides, progress=recorder, until="localize")
    assert recorder.stages["classify"] == f"reused from {other}"
    assert recorder.stages["localize"] == "new"


@pytest.mark.parametrize("name", STAGES)
def test_status_lists_every_stage_as_done(old: Path, command: Command, name: str) -> None:
    code, out, err = command("status", old / name)
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert {row[0]: row[1] for row in rows if row and row[0] in STAGES[name]} == dict.fromkeys(STAGES[name], "done")


@pytest.mark.parametrize("name", STAGES)
def test_the_result_predicts_what_it_predicted(old: Path, command: Command, tmp_path: Path, name: str) -> None:
    code, _, err = command(
        "predict", old / name, old / "data" / "JPEGImages", "--output", tmp_path, "--device", "cpu", "--plain"
    )
    assert code == 0, err
    stored = sorted((old / name / RESULT[name] / "predictions").glob("*.png"))
    assert len(stored) == 4
    for path in stored:
        np.testing.assert_array_equal(load_mask(tmp_path / "masks" / path.name), load_mask(path), err_msg=path.name)


@pytest.mark.parametrize(("name", "stage"), [("nested", "segment"), ("nested", "segment/full"), ("gated", "segment")])
def test_the_networks_of_all_stages_load(old: Path, name: str, stage: str) -> None:
    predictor = tagmask.load(old / name / stage / "model.safetensors", device="cpu")
    for path in (old / name / stage / "predictions").glob("*.png"):
        image = read_image(old / "data" / "JPEGImages" / f"{path.stem}.jpg")
        np.testing.assert_array_equal(predictor(image).mask, load_mask(path), err_msg=path.name)


def test_the_predictions_could_tell(old: Path) -> None:
    """Several labels in every folder of predictions, or the comparisons above would mean little."""
    for folder in old.glob("*/**/predictions"):
        labels = np.unique(np.concatenate([load_mask(path).ravel() for path in folder.iterdir()]))
        assert len(labels) > 1, folder


# -- the plans of many recipes -------------------------------------------------------------------------------


@cache
def plans() -> Mapping[str, Mapping[str, Any]]:
    with tarfile.open(ARCHIVE) as archive:
        stream = archive.extractfile("plans.json")
        assert stream is not None
        return json.load(stream)  # type: ignore[no-any-return]


def fingerprints(recipe: Mapping[str, Any]) -> dict[str, str]:
    source = DataSource("stub", ClassList(("background", "cow", "grass")), {"train": (), "val": ()}, "0" * 64)
    return {step.name: step.fingerprint for step in plan(load_recipe(recipe), source, "float32")}


@pytest.mark.parametrize("name", plans())
def test_every_stage_has_the_fingerprint_it_had(name: str) -> None:
    """As the recipe was written (defaults have stayed) and as a run directory holds it (names have)."""
    stored = plans()[name]
    assert fingerprints(stored["dumped"]) == stored["stages"]
    stages = fingerprints({"name": "run", **stored["written"]})
    if "preset" not in (stored["written"].get("segment") or {}):
        assert stages == stored["stages"]
        return
    # Presets have been corrected since (scales of crops): a recipe that names one asks for another training, a run's
    # own recipe.yaml does not, for it holds what the preset was.
    assert stages.keys() == stored["stages"].keys()
    changed = [stage for stage in stages if stages[stage] != stored["stages"][stage]]
    assert changed == [stage for stage in stages if stage.startswith("segment") or stage == "evaluate"]


def test_partsworld_has_the_fingerprint_it_had() -> None:
    first, last = PartsWorldSource(), PartsWorldSource(variant="single", train=3)
    assert first.fingerprint().startswith("4ec5e4f02f61f1a2")
    assert last.fingerprint().startswith("036476c4796f1bc5")
