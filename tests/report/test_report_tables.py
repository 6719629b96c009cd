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
from tagmask.report.metrics_file import percent
from tagmask.report.run.facts import read_facts
from tagmask.report.run.headline import sentences
from tagmask.report.run.tables import flat, megabytes, stage_time
from tagmask.report.several.compare_page import compare_html
from tagmask.report.several.groups import compare_runs, recipe_name
from tagmask.report.several.score_table import Cell
from tagmask.report.summary import SUMMARY_HEADER, summary_rows
from tagmask.runs.workspace import Workspace
from tagmask.storage.records import read_json, write_json


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


def with_clean_images(value: float, left_clean: float, area: float) -> dict[str, Any]:
    content = metrics(value)
    level = {"clean_images": 80, "left_clean": left_clean, "false_alarm_area": area, "auc_any": 0.9, "auc_mean": 0.8}
    content["splits"]["val"]["segmentation"] = {"void_ignored": {"miou": value, "image_level": level}}
    return content


def test_images_without_an_object_in_the_table_and_side_by_side(tmp_path: Path) -> None:
    rows = summary_rows(with_clean_images(0.4, 0.95, 0.02))
    assert ("segmentation, clean images left clean", "ignored", "n/a", "95.0") in rows
    assert not any("clean" in row[0] for row in summary_rows(metrics(0.4)))
    paths = [make(tmp_path, "a", 0, with_clean_images(0.4, 0.95, 0.02))]
    paths.append(make(tmp_path, "b", 0, with_clean_images(0.5, 0.90, 0.01)))
    others = next(part for part in compare_runs(paths).parts() if "left clean" in part.header)
    assert others.header == ("recipe", "runs", "left clean", "false alarms", "AUC any class", "AUC mean")
    assert [row[2:4] for row in others.rows] == [("95.0", "2.0"), ("90.0", "1.0")]
    assert {cell for cell in others.best if cell[1] in (2, 3)} == {(0, 2), (1, 3)}, "few false alarms are good"


def test_the_page_tells_of_images_without_an_object(full_run: FakeRun) -> None:
    facts = read_facts(full_run.workspace)
    entry = facts.metrics["splits"]["val"]["segmentation"]["void_ignored"]
    assert not any("left clean" in text for text in sentences(facts))
    entry["image_level"] = {"clean_images": 80, "left_clean": 0.9, "false_alarm_area": 0.021, "auc_any": 0.97}
    text = next(text for text in sentences(facts) if "left clean" in text)
    assert "80 images of val without an object 90.0 % are left clean; 2.1 % of their area" in text


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
    result = compare_runs([*paths, paths[0]])
    maps, later = result.parts()
    assert maps.header == ("recipe", "runs", "void pixels", "maps train", "tags mAP")
    assert later.header == ("recipe", "runs", "void pixels", "segmentation val", "ratio to full")
    mean, std = 100 * statistics.fmean(values), 100 * statistics.stdev(values)
    score = f"{mean:.1f} ± {std:.1f}"
    assert maps.rows == (
        ("cam", "3", "ignored", score, "90.0 ± 0.0"),
        ("other", "1", "ignored", "30.0", "90.0"),
        ("other", "1", "background", "25.0", "90.0"),
    )
    assert later.rows[0] == ("cam", "3", "ignored", score, "50.0 ± 0.0")
    assert later.rows[2] == ("other", "1", "background", "25.0", "n/a")
    assert result.groups[0].seeds == ("0", "1", "2")


def test_comparison_in_every_format(tmp_path: Path) -> None:
    paths = [make(tmp_path, "a|<b>", 0, metrics(0.4)), make(tmp_path, "c", 0, metrics(0.5))]
    result = compare_runs(paths)
    lines = [line for line in result.to_markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 2 * 4
    assert {line.replace("\\|", "").count("|") for line in lines} == {6}
    table = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert [row["recipe"] for row in table] == ["a|<b>", "c"]
    assert float(table[0]["segmentation val mean"]) == pytest.approx(0.4)
    assert (table[0]["segmentation val std"], table[0]["segmentation val n"]) == ("", "1")
    page = compare_html(result)
    assert '<th scope="row">a|&lt;b&gt;</th>' in page
    assert "<b>50.0</b>" in page
    assert "<b>40.0</b>" not in page
    assert "http" not in page.replace("http-equiv", "")
    figures = result.records()[1]["figures"]
    assert figures["maps train"] == {"mean": 0.5, "std": None, "values": [0.5]}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (Cell(()), "n/a"),
        (Cell((0.034, -0.01), "gain"), "+1.2 ± 3.1"),
        (Cell((-0.0001,), "gain"), "0.0"),
        (Cell((-0.02,), "gain"), "-2.0"),
        (Cell((12.34,), "seconds"), "12.3"),
        (Cell((1.256,), "ratio"), "1.26"),
    ],
)
def test_cells_as_text(cell: Cell, expected: str) -> None:
    assert str(cell) == expected


def test_lower_is_better_for_errors_and_nothing_is_for_costs(tmp_path: Path) -> None:
    for name, value in (("a", 0.4), ("b", 0.6)):
        maps = {"miou": 0.5, "errors": {"fp": value, "fn": 1 - value}, "mean_recall_foreground": value}
        path = make(tmp_path, name, 0, {"splits": {"val": {"maps": {"void_ignored": maps}}}})
        Workspace(path).update_manifest(lambda m: m["stages"].update(localize={"seconds": 3.0}))
    _, errors, cost = compare_runs([tmp_path / "a", tmp_path / "b"]).parts()
    assert {(row, errors.header[place]) for row, place in errors.best} == {
        (1, "recall val"), (0, "FP val"), (1, "FN val"),
    }  # fmt: skip
    assert cost.best == frozenset()


def test_resumed_stages_are_noted(tmp_path: Path) -> None:
    path = make(tmp_path, "a", 0, metrics(0.4))
    Workspace(path).update_manifest(lambda m: m["stages"].update(classify={"seconds": 3.0, "reason": "resumed"}))
    (note,) = compare_runs([path]).notes
    assert "a (classify)" in note


def test_comparison_without_masks(tmp_path: Path) -> None:
    path = make(tmp_path, "cam", 0, {"tags": {"map": 0.9}, "splits": {}, "without_masks": "none"})
    (only,) = compare_runs([path]).parts()
    assert only.rows == (("cam", "1", "", "90.0"),)


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
    assert [stage_time(s) for s in (4.21, 59.97, 75, 3725)] == ["4.2 s", "1 min 00 s", "1 min 15 s", "1 h 02 min"]
    assert [megabytes(m) for m in (812.4, 2048)] == ["812 MB", "2.0 GB"]
    assert flat({"a": {"b": 1}, "c": [1, 2]}) == [("a.b", "1"), ("c", "1, 2")]
