"""Runs and recipes in one table: what is run, what is shared, gains and costs against plain CAM, the pictures."""

from __future__ import annotations

import csv
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tagmask.errors import InputError, RunError
from tagmask.experiments.compare import Comparison, compare
from tagmask.report.several.side_by_side import choose
from tagmask.runs.workspace import Workspace
from tagmask.storage.records import read_json
from tagmask.types import Sample

CHANGES = ["segment=null"]


def named(recipe: dict[str, Any], name: str, **changes: Any) -> dict[str, Any]:
    return {**recipe, "name": name, **changes}


@pytest.fixture(scope="module")
def compared(short: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    again = [{"epochs": 1}]
    sources = [named(short, "cam"), named(short, "more", localize={"name": "cam", "scales": [1.0]}, retrain=again)]
    return compare(sources, overrides=CHANGES, seeds=[0, 1], output=tmp_path_factory.mktemp("compared") / "c")


def figures(result: Comparison) -> dict[tuple[str, str], dict[str, str]]:
    rows = csv.DictReader(io.StringIO(result.table.to_csv()))
    return {(row["recipe"], row["void pixels"]): row for row in rows}


def test_recipes_are_run_once_and_share_the_classifier(compared: Comparison) -> None:
    assert [path.name for path in compared.runs] == ["cam", "cam-seed1", "more", "more-seed1"]
    for seed in (0, 1):
        stages = Workspace(compared.runs[2 + seed]).manifest()["stages"]
        assert stages["classify"]["reason"] == f"reused from {compared.runs[seed]}"
        assert stages["classify/2"]["reason"] == "new"


def test_gains_are_paired_by_seed(compared: Comparison) -> None:
    result = figures(compared)
    assert set(result) == {(name, rule) for name in ("cam", "more") for rule in ("ignored", "background")}
    for rule in ("ignored", "background"):
        scores = [
            read_json(path / "metrics.json")["splits"]["val"]["maps"][f"void_{rule}"]["miou"] for path in compared.runs
        ]
        gains = [scores[2 + seed] - scores[seed] for seed in (0, 1)]
        row = result["more", rule]
        assert float(row["gain val mean"]) == pytest.approx(sum(gains) / 2, abs=1e-6)
        assert float(row["gain val std"]) == pytest.approx(abs(gains[0] - gains[1]) / 2**0.5, abs=1e-6)
        assert row["gain val n"] == "2"
        assert result["cam", rule]["gain val n"] == "0"


def test_costs_are_relative_to_plain_cam(compared: Comparison) -> None:
    stages = [Workspace(path).manifest()["stages"] for path in compared.runs]
    until = [sum(s[name]["seconds"] for name in s if name.startswith(("classify", "localize"))) for s in stages]
    row = figures(compared)["more", "ignored"]
    assert float(row["until maps s mean"]) == pytest.approx((until[2] + until[3]) / 2, abs=1e-6)
    assert float(row["ut mean"]) == pytest.approx((until[2] / until[0] + until[3] / until[1]) / 2, abs=1e-5)
    assert float(figures(compared)["cam", "ignored"]["ut mean"]) == 1.0


def test_errors_are_those_at_the_best_threshold(compared: Comparison) -> None:
    scores = read_json(compared.runs[0] / "metrics.json")["splits"]["train"]["maps"]["void_ignored"]
    (group, *_) = compared.table.groups
    cells = {column.name: cell for column, cell in zip(compared.table.columns, group.cells, strict=True)}
    assert cells["precision train"].values[0] == scores["mean_precision_foreground"]
    assert cells["recall train"].values[0] == scores["mean_recall_foreground"]
    assert cells["FP train"].values[0] == scores["errors"]["fp"]
    assert cells["1 class train"].values[0] == scores["by_class_count"]["1"]
    assert cells["threshold train"].values[0] == scores["threshold"]


def test_the_page_shows_the_same_images_for_every_method(compared: Comparison) -> None:
    assert compared.path is not None
    page = (compared.path / "compare.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    scenes = page.split("<article")[1:]
    assert 0 < len(scenes) <= 12
    for scene in scenes:
        tags = scene.count('<span class="tag">')
        assert scene.count("ground truth") == 1
        captions = re.findall(r'<figcaption class="caption">(cam|more)\b', scene)
        assert captions == ["cam", "more"] * (min(tags, 3) + 1)
    assert len(page) < 100_000 + 40_000 * len(scenes)
    assert "|" in (compared.path / "table.md").read_text(encoding="utf-8")


def test_runs_and_recipes_stand_together(compared: Comparison, short: dict[str, Any], tmp_path: Path) -> None:
    flipped = named(short, "flipped", localize={"name": "cam", "scales": [1.0], "flip": False})
    result = compare([flipped, compared.runs[0]], overrides=CHANGES, output=tmp_path / "c")
    assert [group.name for group in result.table.groups[:2]] == ["flipped", "cam"]
    assert Workspace(tmp_path / "c" / "flipped").manifest()["stages"]["classify"]["reason"].startswith("reused")
    only = compare([compared.runs[0]])
    assert only.path is None
    assert "gain val" not in {column.name for column in only.table.columns}


def test_runs_of_one_name_but_other_settings_are_told_apart(compared: Comparison, tmp_path: Path) -> None:
    other = Path(shutil.copytree(compared.runs[2], tmp_path / "elsewhere"))
    Workspace(other).update_manifest(lambda manifest: manifest.update(name="cam"))
    result = compare([*compared.runs[:2], other])
    assert [group.name for group in result.table.groups[:2]] == ["cam (cam)", "cam (elsewhere)"]
    assert [len(group.runs) for group in result.table.groups[:2]] == [2, 1]


def test_data_that_is_gone_costs_the_pictures_only(compared: Comparison, tmp_path: Path) -> None:
    run = Path(shutil.copytree(compared.runs[0], tmp_path / "run"))
    (run / "recipe.yaml").write_text("data: {format: voc, root: nowhere}\n", encoding="utf-8")
    page = compare([run]).to_html()
    assert "No pictures" in page
    assert "<article" not in page


def test_a_failing_recipe_is_listed(compared: Comparison, short: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "c" / "bad").mkdir(parents=True)
    with Workspace(tmp_path / "c" / "bad").lock():
        result = compare([compared.runs[0], named(short, "bad")], overrides=CHANGES, output=tmp_path / "c")
        assert [point.name for point in result.failed] == ["bad"]
        assert {group.name for group in result.table.groups} == {"cam"}
        with pytest.raises(RunError, match="no recipe could be run"):
            compare([named(short, "bad")], output=tmp_path / "c")


def test_what_cannot_be_compared_is_said(compared: Comparison, short: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="for recipes"):
        compare([compared.runs[0]], seeds=[1])
    with pytest.raises(InputError, match="named 'tiny'"):
        compare([short, short], output=tmp_path / "c")
    with pytest.raises(InputError, match="at least one"):
        compare([])


def test_scenes_cover_numbers_of_tags_and_classes() -> None:
    tags = [(1,)] * 6 + [(2,), (1, 2), (1, 2), (3, 4), (1, 2, 3), (2, 3, 4, 5)]
    samples = [Sample(str(place), Path("x"), own, None) for place, own in enumerate(tags)]
    chosen = choose(samples, 6)
    assert sorted(min(len(sample.tags), 3) for sample in chosen) == [1, 1, 2, 2, 3, 3]
    assert {tag for sample in chosen for tag in sample.tags} == {1, 2, 3, 4, 5}
    assert choose(samples, 6) == chosen
    assert len(choose(samples[:2], 6)) == 2
