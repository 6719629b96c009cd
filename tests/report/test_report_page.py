"""report.html: complete, self-contained, inert, and never a crash for what a run directory may hold."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fake_run import STAGES, FakeRun, make_run, make_source
from tagmask.errors import RunError
from tagmask.report.run.charts import threshold_charts
from tagmask.report.run.facts import read_facts
from tagmask.report.run.page import recipe_markup, write_report
from tagmask.runs.workspace import Workspace
from tagmask.storage.records import read_json, write_json
from tagmask.types import Problem

VOID = {"meta", "link", "img", "input", "br", "hr", "line", "circle", "rect", "polyline"}
SECTIONS = ["scores", "gallery", "classes", "maps", "training", "confusion", "run", "problems"]


class Page(HTMLParser):
    """Ids, texts and attributes of a page; ``unbalanced`` holds tags that were not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.unbalanced: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.unbalanced += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self._open.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self._open or self._open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        (self.scripts if self._open[-1:] == ["script"] else self.texts).append(data)

    @property
    def sections(self) -> list[str]:
        return [name for name in self.ids if name in SECTIONS]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def write(workspace: Workspace, source: Any, **options: Any) -> Page:
    return Page(write_report(workspace, source, **options).read_text(encoding="utf-8"))


def test_complete_run_has_every_section_and_balanced_tags(full_page: str) -> None:
    page = Page(full_page)
    assert page.sections == SECTIONS
    assert page.unbalanced == []
    assert len(page.ids) == len(set(page.ids))
    assert len(full_page) < 8_000_000


def test_page_loads_nothing_from_elsewhere(full_page: str) -> None:
    for tag, name, value in Page(full_page).attributes:
        if name in ("src", "srcset", "data", "action", "poster") or (name == "href" and not value.startswith("#")):
            assert value.startswith("data:"), (tag, name, value[:60])
    for url in re.findall(r"url\(([^)]{0,30})", full_page):
        assert url.startswith("data:image/"), url
    assert "@import" not in full_page
    assert "http://" not in full_page
    assert "https://" not in full_page


def test_headline_tells_the_scores_of_metrics_json(full_run: FakeRun, full_page: str) -> None:
    metrics = read_json(full_run.workspace.root / "metrics.json")
    text = Page(full_page).text
    for rule in ("void_ignored", "void_background"):
        for split, measure in (("train", "maps"), ("val", "maps"), ("train", "pseudo_masks"), ("val", "segmentation")):
            assert f"{100 * metrics['splits'][split][measure][rule]['miou']:.1f}" in text
    assert f"{100 * metrics['ratio_to_full']['void_ignored']:.1f} %" in text


def test_class_panels_carry_every_score(full_run: FakeRun, full_page: str) -> None:
    metrics = read_json(full_run.workspace.root / "metrics.json")
    panels = json.loads(Page(full_page).scripts[1])
    assert {panel["key"] for panel in panels} == {
        f"{measure}.{split}.{rule}"
        for split, measures in metrics["splits"].items()
        for measure, by_rule in measures.items()
        for rule in by_rule
    }
    for panel in panels:
        stored = metrics["splits"][panel["split"]][panel["measure"]][panel["rule"]]["iou"]
        for row, value in zip(panel["rows"], stored.values(), strict=True):
            assert row[0] == (None if value is None else pytest.approx(100 * value, abs=0.051))


@pytest.mark.parametrize("count", range(len(STAGES) + 1))
def test_partial_run_shows_what_there_is(tmp_path: Path, count: int) -> None:
    source = make_source(tmp_path / "pictures", train=4, val=4)
    page = write(make_run(tmp_path / "run", source, stages=STAGES[:count]), source)
    assert page.unbalanced == []
    assert {"scores", "gallery", "run", "problems"} <= set(page.sections)
    assert ("training" in page.sections) == (count >= 1)
    assert ("classes" in page.sections) == (count == len(STAGES))
    if 0 < count < len(STAGES):
        assert "has not been evaluated yet" in page.text
    if count < 2:
        assert "nothing to show" in page.text


def test_empty_directory_and_no_source(tmp_path: Path) -> None:
    page = write(Workspace(tmp_path / "new"), None)
    assert page.sections == ["scores", "gallery", "run", "problems"]
    assert "data source was not at hand" in page.text


def test_without_masks_it_says_so_and_nothing_is_ranked(tmp_path: Path) -> None:
    source = make_source(tmp_path / "pictures", masks=False)
    page = write(make_run(tmp_path / "run", source), source)
    assert "No masks, no mIoU" in page.text
    assert "classes" not in page.sections
    groups = {value for _, name, value in page.attributes if name == "data-group"}
    assert groups == {"random"}
    assert not any("ground truth" in text for text in page.texts)


def test_weak_view_of_a_source_shows_no_ground_truth(full_run: FakeRun) -> None:
    page = write(full_run.workspace, full_run.source.weak())
    assert not any("ground truth" in text for text in page.texts)


def test_hostile_names_are_inert(tmp_path: Path) -> None:
    evil = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "</style><b>", "a' onclick='x"]
    source = make_source(tmp_path / "pictures", evil)
    samples = tuple(replace(s, id=f"</article><script>alert({i})</script>") for i, s in enumerate(source.splits["val"]))
    truth = dict(zip((s.id for s in samples), source.splits["val"], strict=True))
    read = source.mask_reader
    assert read is not None
    source = replace(source, splits={"val": samples}, mask_reader=lambda sample: read(truth[sample.id]))
    problem = Problem("data", "<script>id</script>", "p", "</table><script>reason</script>")
    workspace = make_run(tmp_path / "run", source, name="<script>name</script>", problems=[problem])
    (workspace.root / "recipe.yaml").write_text("name: </code><script>x</script>\n", encoding="utf-8")
    page = write(workspace, source)
    assert page.unbalanced == []
    assert len(page.scripts) == 3
    assert "alert" not in page.scripts[0] + page.scripts[2]
    assert [name for name, *_ in page.attributes if name == "b"] == []
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    for text in (*evil, "<script>id</script>", "</code><script>x</script>"):
        assert text in page.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", b"{ torn"),
        ("metrics.json", b"[1, 2]"),
        (
            "metrics.json",
            b'{"tags": 3, "splits": {"val": {"maps": [1], "segmentation": {"void_ignored": {"miou": NaN}}}}}',
        ),
        ("manifest.json", b'{"stages": [1], "data": "x", "environment": null}'),
        ("manifest.json", b"\xff\xfe"),
        ("refine/thresholds.json", b'{"curve": {"thresholds": [1], "statistic": null}, "value": "x"}'),
        ("recipe.yaml", b"\xff\xfe\x00"),
        ("problems.jsonl", b'[1]\n{"reason": 4}\n{"torn'),
        ("classify/history.jsonl", b'{"step": "a", "loss": null}\n{"val_ap": 3}\n7\n'),
    ],
)
def test_broken_files_never_stop_the_page(full_run: FakeRun, tmp_path: Path, name: str, content: bytes) -> None:
    shutil.copytree(full_run.workspace.root, tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content)
    page = write(Workspace(tmp_path / "run"), full_run.source)
    assert page.unbalanced == []
    assert "gallery" in page.sections


def test_missing_parts_of_scores_leave_their_figure_out(full_run: FakeRun, tmp_path: Path) -> None:
    shutil.copytree(full_run.workspace.root, tmp_path / "run")
    metrics = read_json(tmp_path / "run" / "metrics.json")
    for measures in metrics["splits"].values():
        for by_rule in measures.values():
            by_rule.pop("void_background")
            for key in ("confusion", "threshold_curve", "by_class_count", "errors", "precision"):
                by_rule["void_ignored"].pop(key, None)
    write_json(tmp_path / "run" / "metrics.json", metrics)
    (tmp_path / "run" / "refine" / "thresholds.json").unlink()
    page = write(Workspace(tmp_path / "run"), full_run.source)
    assert page.sections == [name for name in SECTIONS if name not in ("maps", "confusion")]
    assert "as background" not in page.text


def test_threshold_is_marked_on_the_maps_it_was_applied_to(full_run: FakeRun, tmp_path: Path) -> None:
    charts = threshold_charts(read_facts(full_run.workspace))
    assert [("auto 0.37" in chart.svg) for chart in charts] == [False, True, True]
    assert [chart.title.split()[0] for chart in charts] == ["Activation", "Refined", "How"]
    shutil.copytree(full_run.workspace.root, tmp_path / "run")
    metrics = read_json(tmp_path / "run" / "metrics.json")
    for measures in metrics["splits"].values():
        measures.pop("refined_maps")
    write_json(tmp_path / "run" / "metrics.json", metrics)
    (tmp_path / "run" / "refine" / "thresholds.json").unlink()
    (chart,) = threshold_charts(read_facts(Workspace(tmp_path / "run")))
    assert "auto 0.37" in chart.svg
    assert [text.split(":")[0] for _, text in chart.legend] == ["train", "val"]


def test_thresholds_of_single_classes_and_the_band_stand_in_the_legend(full_run: FakeRun, tmp_path: Path) -> None:
    shutil.copytree(full_run.workspace.root, tmp_path / "run")
    path = tmp_path / "run" / "refine" / "thresholds.json"
    write_json(path, {**read_json(path), "per_class": {"cow": 0.3, "sheep": "?"}, "band": [0.1, 0.05]})
    maps, refined, _ = threshold_charts(read_facts(Workspace(tmp_path / "run")))
    extra = ["cow: 0.30", "ignored: 0.10 below to 0.05 above the threshold"]
    assert [text for _, text in refined.legend][-2:] == extra
    assert len(maps.legend) == len(refined.legend) - 2


def test_class_that_was_never_learnt_is_warned_of(full_run: FakeRun, tmp_path: Path) -> None:
    shutil.copytree(full_run.workspace.root, tmp_path / "run")
    metrics = read_json(tmp_path / "run" / "metrics.json")
    metrics["tags"]["ap"] = {"cow": 0.02, "sheep": 0.3, "boat": 0.9, "aeroplane": None}
    write_json(tmp_path / "run" / "metrics.json", metrics)
    text = write(Workspace(tmp_path / "run"), full_run.source).text
    # Every fourth val image or more is a sheep, so 0.3 is what guessing gives.
    assert "cow, sheep: the classifier never learnt these classes" in text
    assert "not in val" in text


def test_unfinished_stage_is_said(full_run: FakeRun, tmp_path: Path) -> None:
    shutil.copytree(full_run.workspace.root, tmp_path / "run")
    workspace = Workspace(tmp_path / "run")
    workspace.update_manifest(lambda m: m["stages"]["segment"].update(status="running"))
    assert "This run is not finished: segment." in write(workspace, None).text


def test_many_classes_and_problems_stay_bounded(tmp_path: Path) -> None:
    names = [f"class {i} {'long ' * 8}" for i in range(80)]
    source = make_source(tmp_path / "pictures", names, train=3, val=3)
    problems = [Problem("data", f"image {i}", "p", "broken") for i in range(250)]
    page = write(make_run(tmp_path / "run", source, problems=problems), source)
    assert "The first 200 of 250" in page.text
    assert sum(name == "data-i" for _, name, _ in page.attributes) == 81


def test_full_disk_is_one_line_and_keeps_the_old_page(full_run: FakeRun, tmp_path: Path, monkeypatch: Any) -> None:
    old = tmp_path / "report.html"
    old.write_text("old", encoding="utf-8")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="the disk is full"):
        write_report(Workspace(tmp_path), None)
    assert old.read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_recipe_text_survives_the_colouring() -> None:
    text = "# a <b>\nname: x & y\nlist:\n- a: 1\n- '<i>'\nurl: a:b\n"
    page = Page(f"<pre>{recipe_markup(text)}</pre>")
    assert "".join(page.texts) == text.rstrip("\n")


def test_class_names_come_from_what_is_there(full_run: FakeRun, tmp_path: Path) -> None:
    names = full_run.source.classes.names
    assert read_facts(full_run.workspace).classes == names
    shutil.copytree(full_run.workspace.root, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    assert read_facts(Workspace(tmp_path / "run")).classes == names
    assert read_facts(Workspace(tmp_path / "none")).classes == ()
