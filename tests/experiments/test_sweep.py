"""Sweeps on a tiny recipe: the grid, what is shared, resumed and listed, and what the folder holds."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_recorder import ProgressRecorder
from tagmask.errors import InputError, RecipeError
from tagmask.experiments.points import expand_reuse
from tagmask.experiments.sweep import Sweep, sweep
from tagmask.experiments.sweep_keys import parse_grid, short_keys, split_values
from tagmask.runs.workspace import Workspace
from tagmask.storage.records import read_json

GRID = ["localize.scales=[1.0],[1.0,0.5]", "seed=0,1", "segment=null"]


@pytest.fixture(scope="module")
def swept(short: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, ProgressRecorder]:
    recorder = ProgressRecorder()
    return sweep(short, GRID, output=tmp_path_factory.mktemp("sweeps") / "one", progress=recorder), recorder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2,3", ["1", "2", "3"]),
        ("[4,5],[5]", ["[4,5]", "[5]"]),
        ("[1.0], [1.0, 1.5]", ["[1.0]", "[1.0, 1.5]"]),
        ("cam,{name: ssa, inner: {name: lpcam}}", ["cam", "{name: ssa, inner: {name: lpcam}}"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("", [""]),
    ],
)
def test_commas_outside_of_brackets_part_values(text: str, expected: list[str]) -> None:
    assert split_values(text) == expected


@given(st.lists(st.lists(st.integers(-9, 9), max_size=3), min_size=1, max_size=4))
def test_split_undoes_join(values: list[list[int]]) -> None:
    assert [json.loads(item) for item in split_values(",".join(map(json.dumps, values)))] == values


def test_one_value_is_a_fixed_override_and_python_values_are_texts() -> None:
    keys, fixed = parse_grid(["seed=0,1,1", "segment=null", "localize=cam"])
    assert keys == {"seed": ("0", "1")}
    assert fixed == ["segment=null", "localize=cam"]
    keys, fixed = parse_grid({"localize.scales": [(1.0,), [1.0, 1.5]], "segment": None, "evaluate.average": "union"})
    assert keys == {"localize.scales": ("[1.0]", "[1.0, 1.5]")}
    assert fixed == ["segment=null", "evaluate.average=union"]


@pytest.mark.parametrize("grid", [["seed=0"], [], ["seed=1,,2"], ["seed"], ["seed=0,1", "seed=2,3"], {"seed": []}])
def test_what_is_no_grid_is_said(grid: Any) -> None:
    with pytest.raises(InputError):
        parse_grid(grid)


def test_short_keys_stay_apart() -> None:
    keys = ["classify.epochs", "segment.epochs", "localize.mu_f", "seed"]
    assert list(short_keys(keys).values()) == ["classify.epochs", "segment.epochs", "mu_f", "seed"]
    assert short_keys(["a", "b.a"]) == {"a": "a", "b.a": "b.a"}


def test_every_point_is_a_run_that_shares_what_is_alike(swept: tuple[Sweep, ProgressRecorder]) -> None:
    result, _ = swept
    assert result.failed == ()
    assert [point.name for point in result.points] == [
        "scales=1.0,seed=0", "scales=1.0,seed=1", "scales=1.0+0.5,seed=0", "scales=1.0+0.5,seed=1",
    ]  # fmt: skip
    stages = [Workspace(point.path).manifest()["stages"] for point in result.points]
    reasons = [entry["classify"]["reason"] for entry in stages]
    assert reasons[:2] == ["new", "new"]
    assert reasons[2:] == [f"reused from {result.points[seed].path}" for seed in (0, 1)]
    model = "classify/model.safetensors"
    assert os.path.samefile(result.points[0].path / model, result.points[2].path / model)
    assert not os.path.samefile(result.points[0].path / model, result.points[1].path / model)
    assert {entry["localize"]["reason"] for entry in stages} == {"new"}


def test_the_folder_holds_table_curves_and_json(swept: tuple[Sweep, ProgressRecorder]) -> None:
    result, _ = swept
    stored = read_json(result.path / "sweep.json")
    assert stored["keys"] == {"localize.scales": ["[1.0]", "[1.0,0.5]"], "seed": ["0", "1"]}
    assert [point["status"] for point in stored["points"]] == ["done"] * 4
    with (result.path / "table.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["scales"], row["seeds"], row["void pixels"]) for row in rows] == [
        (scales, "0 1", rule) for rule in ("ignored", "background") for scales in ("[1.0]", "[1.0,0.5]")
    ]
    scores = [
        read_json(result.points[i].path / "metrics.json")["splits"]["val"]["maps"]["void_ignored"] for i in (2, 3)
    ]
    assert float(rows[1]["maps val mean"]) == pytest.approx(sum(s["miou"] for s in scores) / 2, abs=1e-6)
    assert float(rows[1]["FP val mean"]) == pytest.approx(sum(s["errors"]["fp"] for s in scores) / 2, abs=1e-6)
    assert float(rows[0]["ut mean"]) == 1.0
    page = result.page.read_text(encoding="utf-8")
    assert "Maps against localize.scales" in page
    assert "http" not in page.replace("http-equiv", "")
    assert (result.path / "table.md").read_text(encoding="utf-8").count("[1.0,0.5]") >= 2


def test_a_second_sweep_does_nothing_and_a_larger_one_only_the_rest(
    swept: tuple[Sweep, ProgressRecorder], short: dict[str, Any]
) -> None:
    result, _ = swept
    page = result.points[0].path / "report.html"
    before = page.stat().st_mtime_ns
    recorder = ProgressRecorder()
    sweep(short, ["localize.scales=[1.0],[0.5]", "seed=0,1", "segment=null"], output=result.path, progress=recorder)
    assert recorder.stages["classify"].startswith("reused from")
    assert recorder.stages["localize"] == "new"
    again = ProgressRecorder()
    assert sweep(short, GRID, output=result.path, progress=again).failed == ()
    assert set(again.stages.values()) == {"up to date"}
    assert page.stat().st_mtime_ns == before


def test_points_reuse_other_runs_and_sweeps(
    swept: tuple[Sweep, ProgressRecorder], short: dict[str, Any], tmp_path: Path
) -> None:
    result, _ = swept
    assert len(expand_reuse([result.path])) >= 4
    assert expand_reuse([result.points[0].path]) == [result.points[0].path]
    with pytest.raises(InputError, match="neither a run"):
        expand_reuse([tmp_path])
    recorder = ProgressRecorder()
    other = sweep(
        short, {"seed": [0, 1]}, output=tmp_path / "o", reuse=result.path, until="classify", progress=recorder
    )
    assert recorder.stages["classify"].startswith("reused from")
    (row,) = other.table().groups
    assert row.seeds == ("0", "1")
    assert {column.name for column in other.table().columns} == {"classify s"}


def test_a_failing_point_is_listed_and_the_others_go_on(
    swept: tuple[Sweep, ProgressRecorder], short: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "o" / "seed=0").mkdir(parents=True)
    recorder = ProgressRecorder()
    with Workspace(tmp_path / "o" / "seed=0").lock():
        result = sweep(
            short, ["seed=0,1", "segment=null"], output=tmp_path / "o", reuse=swept[0].path, progress=recorder
        )
    assert [point.name for point in result.failed] == ["seed=0"]
    assert any("seed=0 failed" in line for line in recorder.lines)
    assert (tmp_path / "o" / "seed=1" / "metrics.json").exists()
    assert [point["status"] for point in read_json(result.path / "sweep.json")["points"]] == ["failed", "done"]
    assert "another tagmask process" in result.page.read_text(encoding="utf-8")


def test_a_combination_that_cannot_be_is_listed_a_wrong_value_is_an_error(
    swept: tuple[Sweep, ProgressRecorder], short: dict[str, Any], tmp_path: Path
) -> None:
    refine = "refine=[threshold],[colour_walk],[colour_walk,threshold]"
    with pytest.raises(RecipeError, match="chain must end"):
        sweep(short, [refine, "segment=null"], output=tmp_path / "o")
    with pytest.raises(RecipeError, match="unknown key"):
        sweep(short, ["localize.scale=1,2"], output=tmp_path / "o")
    with pytest.raises(InputError, match=r"engine\.devices=1"):
        sweep(short, ["seed=0,1", "engine.devices=2"], output=tmp_path / "o")
    assert not (tmp_path / "o").exists()
    # Only the last of a chain makes labels, so each value of the one key fits one of the other.
    grid = ["refine=[colour_walk,threshold],[threshold]", "refine.0.name=colour_walk,threshold", "segment=null"]
    result = sweep(short, grid, output=tmp_path / "o", reuse=swept[0].path, until="classify")
    assert [point.error is None for point in result.points] == [True, False, False, True]
    assert "so it must be the last" in str(result.points[1].error)


def test_unexpected_errors_are_a_line_with_the_way_to_the_details(
    short: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError("no\nvalue")

    monkeypatch.setattr("tagmask.experiments.points.run", breaks)
    result = sweep(short, ["seed=0,1"], output=tmp_path / "o")
    assert len(result.failed) == 2
    assert (
        result.failed[0].error == f"ZeroDivisionError: no value (details: tagmask run {result.failed[0].path} --debug)"
    )
