"""What the page says of sizes, calibration and single images, as the evaluate stage left it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tagmask.report.run.charts import calibration_chart, size_chart
from tagmask.report.run.facts import read_facts
from tagmask.report.run.gallery import build_gallery
from tagmask.report.score_rows import score_rows
from tagmask.runs.run import open_run
from tagmask.runs.workspace import Workspace


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_best_and_worst_are_those_of_all_images(run: Path) -> None:
    space, source = Workspace(run), open_run(run).recipe.data.open()
    gallery = build_gallery(space, source, images=6)
    assert gallery.complete
    assert gallery.candidates == 12 + 4
    lines = [line.split(",") for line in (run / "evaluate" / "val-images.csv").read_text().splitlines()[1:]]
    values = {row[1]: float(row[2]) for row in lines if row[0] == "segmentation"}
    shots = {shot.group: shot for shot in gallery.shots if shot.split == "val"}
    assert shots["best"].iou == pytest.approx(max(values.values()), abs=1e-6)
    assert shots["worst"].iou == pytest.approx(min(values.values()), abs=1e-6)
    assert {shot.iou_of for shot in gallery.shots} == {"prediction", "pseudo mask"}
    for torn in (b"torn", None):
        for split in ("train", "val"):
            path = space.image_counts_path(split)
            path.write_bytes(torn) if torn else path.unlink()
        again = build_gallery(space, source, images=6)
        assert not again.complete
        for group in ("best", "worst"):
            judged, counted = (
                sorted(shot.iou or 0 for shot in result.shots if shot.group == group) for result in (again, gallery)
            )
            assert judged == pytest.approx(counted), "candidates judged one by one; here they are all images"


def test_charts_of_sizes_and_calibration(run: Path) -> None:
    facts = read_facts(Workspace(run))
    size, calibration = size_chart(facts), calibration_chart(facts)
    assert size is not None
    assert "from 20 %" in size.svg
    assert calibration is not None
    assert calibration.title == "Refined maps: what a score means"
    assert [text.split(":")[0] for _, text in calibration.legend] == ["train", "val"]


def test_all_figures_side_by_side(run: Path) -> None:
    splits = json.loads((run / "metrics.json").read_text())["splits"]
    rows = score_rows([splits["train"]["refined_maps"]["void_ignored"], splits["val"]["segmentation"]["void_ignored"]])
    result = {row[0]: row[1:] for row in rows}
    assert result["boundary mIoU"][0] == "n/a", "maps have no contours of their own"
    assert result["boundary mIoU"][1] != "n/a"
    assert result["calibration error of the labels"][0] != "n/a"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "All scores, void ignored" in page
    assert "Segmentation, val" in page
