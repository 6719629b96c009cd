"""The closing table of the terminal and the comparison of runs."""

from __future__ import annotations

import csv
import io
import statistics
from pathlib import Path
from typing import Any

import pytest
from fake_run import FakeRun

from tagmask.errors import InputError, RunError
from tagmask.report.compare import compare_runs, recipe_name
from tagmask.report.scores import percent
from tagmask.report.summary import SUMMARY_HEADER, summary_rows
from tagmask.report.tables import duration, flat, megabytes
from tagmask.workspace import read_json, write_json


def metrics(value: float, *, void: float | None = None) -> dict[str, Any]:
    rules = {"void_ignored": {"miou": value}}
    if void is not None:
        rules["void_background"] = {"miou": void}
    return {
        "tags": {"map": 0.9},
        "splits": {"train": {"maps": rules}, "val": {"segmentation": rules}},
        "ratio_to_full": {"void_ignored": 0.5},
    }


def make(root: Path, name: str, seed: int, content: Any) -> Path:
    write_json(root / name / "manifest.json", {"schema": 1, "name": name, "seed": seed, "stages": {}})
    write_json(root / name / "metrics.json", content)
    return root / name


def test_summary_has_both_rules_and_says_what_is_absent() -> None:
    assert summary_rows(metrics(0.4712, void=0.4)) == [
        ("tags, mAP", "", "n/a", "90.0"),
        ("activation maps, mIoU at best threshold", "ignored", "47.1", "n/a"),
        ("segmentation, mIoU", "ignored", "n/a", "47.1"),
        ("segmentation / full supervision", "ignored", "n/a", "50.0"),
        ("activation maps, mIoU at best threshold", "background", "40.0", "n/a"),
        ("segmentation, mIoU", "background", "n/a", "40.0"),
    ]


def test_summary_of_a_real_shape(full_run: FakeRun) -> None:
    stored = read_json(full_run.workspace.root / "metrics.json")
    rows = {row[:2]: row[2:] for row in summary_rows(stored)}
    assert len(rows) == 13
    assert all(len(row) == len(SUMMARY_HEADER) for row in summary_rows(stored))
    expected = percent(stored["splits"]["val"]["segmentation_full"]["void_background"]["miou"])
    assert rows["full supervision, mIoU", "background"] == ("n/a", expected)


@pytest.mark.parametrize("content", [{}, {"splits": None, "tags": []}, {"splits": {"val": 3}}])
def test_summary_of_nothing(content: dict[str, Any]) -> None:
    assert summary_rows(content) == [("tags, mAP", "", "n/a", "n/a")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("msrc-cam-seed2", "msrc-cam"),
        ("msrc-cam_seed_12", "msrc-cam"),
        ("msrc-cam_s0", "msrc-cam"),
        ("cam seed=3", "cam"),
        ("resnet50", "resnet50"),
        ("steps10", "steps10"),
        ("voc-s4-crf", "voc-s4-crf"),
        ("seed1", "seed1"),
    ],
)
def test_seed_suffix(name: str, expected: str) -> None:
    assert recipe_name(name) == expected


def test_seeds_of_one_recipe_are_one_row(tmp_path: Path) -> None:
    values = (0.40, 0.44, 0.51)
    paths = [make(tmp_path, f"cam-seed{seed}", seed, metrics(v)) for seed, v in enumerate(values)]
    paths.append(make(tmp_path, "other", 7, metrics(0.3, void=0.25)))
    found = compare_runs([*paths, paths[0]])
    assert found.header() == (
        "recipe", "runs", "void pixels", "tags mAP", "maps train", "segmentation val", "ratio to full",
    )  # fmt: skip
    mean, std = 100 * statistics.fmean(values), 100 * statistics.stdev(values)
    score = f"{mean:.1f} ± {std:.1f}"
    assert found.rows() == [
        ("cam", "3", "ignored", "90.0 ± 0.0", score, score, "50.0 ± 0.0"),
        ("other", "1", "ignored", "90.0", "30.0", "30.0", "50.0"),
        ("other", "1", "background", "90.0", "25.0", "25.0", "n/a"),
    ]
    assert found.groups[0].seeds == ("0", "1", "2")


def test_comparison_in_every_format(tmp_path: Path) -> None:
    paths = [make(tmp_path, "a|<b>", 0, metrics(0.4)), make(tmp_path, "c", 0, metrics(0.5))]
    found = compare_runs(paths)
    lines = found.to_markdown().splitlines()
    assert len(lines) == 4
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(found.header()) + 1}
    table = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [row["recipe"] for row in table] == ["a|<b>", "c"]
    assert float(table[0]["segmentation val mean"]) == pytest.approx(0.4)
    assert (table[0]["segmentation val std"], table[0]["segmentation val n"]) == ("", "1")
    page = found.to_html()
    assert '<th scope="row" title="seeds 0">a|&lt;b&gt;</th>' in page
    assert "<b>50.0</b>" in page
    assert "<b>40.0</b>" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_comparison_without_masks(tmp_path: Path) -> None:
    path = make(tmp_path, "cam", 0, {"tags": {"map": 0.9}, "splits": {}, "without_masks": "none"})
    assert compare_runs([path]).rows() == [("cam", "1", "", "90.0")]


def test_comparison_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one"):
        compare_runs([])
    make(tmp_path, "msrc", 0, metrics(0.4))
    with pytest.raises(InputError, match="Did you mean 'msrc'"):
        compare_runs([tmp_path / "mrsc"])
    (tmp_path / "new").mkdir()
    with pytest.raises(InputError, match="tagmask evaluate"):
        compare_runs([tmp_path / "new"])
    (tmp_path / "msrc" / "metrics.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="cannot be read as JSON"):
        compare_runs([tmp_path / "msrc"])


def test_texts_of_times_and_sizes() -> None:
    assert [duration(s) for s in (4.21, 59.97, 75, 3725)] == ["4.2 s", "1 min 00 s", "1 min 15 s", "1 h 02 min"]
    assert [megabytes(m) for m in (812.4, 2048)] == ["812 MB", "2.0 GB"]
    assert flat({"a": {"b": 1}, "c": [1, 2]}) == [("a.b", "1"), ("c", "1, 2")]
