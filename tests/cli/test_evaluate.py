"""Paired comparison, scores of a folder and the VOC submission through the command line, on one tiny run."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask import cli
from tagmask.data.voc.source import VOC_CLASSES
from tagmask.runs.image_counts import read_split_counts
from tagmask.runs.workspace import Workspace
from tagmask.storage.pictures import load_mask, save_mask
from tagmask.storage.records import write_json


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Tagmask = Callable[..., Done]


@pytest.fixture
def tagmask(capsys: pytest.CaptureFixture[str]) -> Tagmask:
    def call(*arguments: str | Path) -> Done:
        with pytest.raises(SystemExit) as left:
            cli.main([str(argument) for argument in arguments])
        return Done(int(left.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def other(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run once more, its predictions turned into the background on two images."""
    from tagmask.experiments.rescore import evaluate_again

    copy = Path(shutil.copytree(finished, tmp_path_factory.mktemp("other") / "empty"))
    for path in sorted((copy / "segment" / "predictions").glob("*.png"))[:2]:
        save_mask(path, np.zeros_like(load_mask(path)))
    evaluate_again(copy)
    return copy


def test_equal_runs_have_no_difference(tagmask: Tagmask, finished: Path) -> None:
    done = tagmask("compare", "--paired", finished, finished)
    assert done.returncode == 0, done.stderr
    assert "0.0 [0.0, 0.0] (95 % of 2000 draws of the 4 images): within chance." in done.stdout
    assert "better on 0, worse on 0, equal on 4" in done.stdout
    assert "Largest" not in done.stdout


def test_a_paired_comparison_in_all_forms(tagmask: Tagmask, finished: Path, other: Path, tmp_path: Path) -> None:
    files = {kind: tmp_path / f"pair.{kind}" for kind in ("markdown", "csv", "json", "html")}
    options = [text for kind, path in files.items() for text in (f"--{kind}", path)]
    done = tagmask("compare", "--paired", finished, other, "--draws", "50", *options)
    assert done.returncode == 0, done.stderr
    metrics = [json.loads((run / "metrics.json").read_text())["splits"]["val"] for run in (finished, other)]
    miou = [result["segmentation"]["void_ignored"]["miou"] for result in metrics]
    stored = json.loads(files["json"].read_text(encoding="utf-8"))
    assert stored["miou"]["first"] == pytest.approx(miou[0])
    assert stored["miou"]["difference"] == pytest.approx(miou[1] - miou[0])
    assert stored["miou"]["low"] <= stored["miou"]["difference"] <= stored["miou"]["high"]
    with files["csv"].open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4
    differences = [float(row["difference"]) for row in rows]
    assert differences == sorted(differences)
    assert sum(value != 0 for value in differences) <= 2
    assert "| mean |" in files["markdown"].read_text(encoding="utf-8")
    page = files["html"].read_text(encoding="utf-8")
    assert "<svg" in page
    assert "data:image/jpeg" in page or not any(differences)
    again = tagmask("compare", "--paired", finished, other, "--draws", "50", "--output", tmp_path / "all")
    assert {path.name for path in (tmp_path / "all").iterdir()} == {
        f"pair.{kind}" for kind in ("md", "csv", "json", "html")
    }
    assert again.stdout == done.stdout, "the draws depend on the seed alone"


def test_each_side_may_have_its_own_measure(tagmask: Tagmask, finished: Path) -> None:
    done = tagmask("compare", "--paired", finished, finished, "--measure", "segmentation,segmentation_full")
    assert done.returncode == 0, done.stderr
    assert "first:  Segmentation" in done.stdout
    assert "second: Full supervision" in done.stdout
    maps = tagmask("compare", "--paired", finished, finished, "--measure", "maps", "--split", "train")
    assert "12 images" in maps.stdout
    wrong = tagmask("compare", "--paired", finished, finished, "--measure", "segmentatoin")
    assert wrong.returncode == 2
    assert "Did you mean 'segmentation'?" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{run}",), "--paired compares two runs; 1 are named"),
        (("{run}", "{run}", "--split", "test"), "test"),
        (("{run}", "{run}", "--seeds", "0"), "--seeds is for recipes"),
        (("{run}", "{nowhere}"), "Run `tagmask evaluate"),
    ],
)
def test_what_cannot_be_paired_says_why(
    tagmask: Tagmask, finished: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    occupied = [text.format(run=finished, nowhere=tmp_path) for text in arguments]
    done = tagmask("compare", "--paired", *occupied)
    assert done.returncode == 2
    assert said in done.stderr


def test_options_of_the_paired_comparison_alone(tagmask: Tagmask, finished: Path, tmp_path: Path) -> None:
    done = tagmask("compare", finished, "--json", tmp_path / "a.json")
    assert done.returncode == 2
    assert "--paired" in done.stderr


def test_a_folder_of_masks_has_all_figures_and_can_be_paired(tagmask: Tagmask, finished: Path, tmp_path: Path) -> None:
    folder, output = finished / "segment" / "predictions", tmp_path / "scored"
    done = tagmask("evaluate", finished, "--predictions", folder, "--output", output)
    assert done.returncode == 0, done.stderr
    for word in (
        "boundary IoU",
        "F1, mean of classes",
        "trimap mIoU",
        "FP of objects (ReCAM)",
        "mIoU, objects smallest quarter",
        "ROC AUC of images, mean of classes",
    ):
        assert word in done.stdout, word
    metrics = json.loads((finished / "metrics.json").read_text())["splits"]["val"]["segmentation"]
    stored = json.loads((output / "metrics.json").read_text())["splits"]["val"]["predictions"]
    assert stored == metrics
    paired = tagmask("compare", "--paired", finished, output)
    assert paired.returncode == 0, paired.stderr
    assert "0.0 [0.0, 0.0]" in paired.stdout
    assert tagmask("evaluate", finished, "--output", output).returncode == 2


def test_some_images_are_scored_as_if_there_were_no_others(tagmask: Tagmask, finished: Path, tmp_path: Path) -> None:
    before = (finished / "metrics.json").read_bytes()
    listed, output = tmp_path / "list.txt", tmp_path / "some"
    listed.write_text("train_00003\ntrain_00001 1\nval_00002\n")
    done = tagmask("evaluate", finished, "--images", listed, "--output", output)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((output / "metrics.json").read_text())
    for split, n in (("train", 2), ("val", 1)):
        assert metrics["splits"][split]["maps"]["void_ignored"]["n_images"] == n
    images = read_split_counts(finished / "evaluate" / "train-images.npz").measures["pseudo_masks"]
    some = images.take([images.ids.index(name) for name in ("train_00001", "train_00003")])
    assert metrics["splits"]["train"]["pseudo_masks"]["void_ignored"]["confusion"] == some.confusion().tolist()
    assert (finished / "metrics.json").read_bytes() == before
    assert tagmask("evaluate", finished, "--images", listed).returncode == 2
    listed.write_text("elsewhere\n")
    none = tagmask("evaluate", finished, "--images", listed, "--output", output)
    assert none.returncode == 2
    assert "none of the 1 images" in none.stderr


def test_a_submission_of_voc(tagmask: Tagmask, tmp_path: Path) -> None:
    run = Workspace(tmp_path / "run")
    for name, label in (("2008_000001", 20), ("2008_000002", 255)):
        save_mask(run.prediction_path(name), np.full((3, 4), label, np.uint8))
    (tmp_path / "test.txt").write_text("2008_000001\n2008_000002\n")
    write_json(run.root / "manifest.json", {"data": {"classes": ["background", *VOC_CLASSES]}})
    done = tagmask("export", "voc-submission", run.root, "--output", tmp_path, "--images", tmp_path / "test.txt")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "VOC2012" / "Segmentation" / "comp6_test_cls"
    assert done.stdout == f"2 masks in {folder}\n"
    assert (load_mask(folder / "2008_000001.png") == 20).all()
    assert (load_mask(folder / "2008_000002.png") == 0).all(), "void is no label of the server"
    save_mask(run.prediction_path("2008_000001", "segment/2"), np.full((3, 4), 7, np.uint8))
    classes = {"classes": ["background", *VOC_CLASSES]}
    write_json(run.root / "manifest.json", {"data": classes, "result_stage": "segment/2"})
    assert tagmask("export", "voc-submission", run.root, "--output", tmp_path / "second").returncode == 0
    last = tmp_path / "second" / folder.relative_to(tmp_path) / "2008_000001.png"
    assert (load_mask(last) == 7).all(), "the last round of self-training is the run's result"
    write_json(run.root / "manifest.json", {"data": classes})
    (tmp_path / "test.txt").write_text("2008_000003\n")
    missing = tagmask("export", "voc-submission", run.root, "--output", tmp_path, "--images", tmp_path / "test.txt")
    assert missing.returncode == 2
    assert "2008_000003" in missing.stderr
    masks = run.stage("segment") / "predictions"
    save_mask(masks / "2008_000001.png", np.full((3, 4), 21, np.uint8))
    wrong = tagmask("export", "voc-submission", masks, "--output", tmp_path, "--competition", "comp5")
    assert wrong.returncode == 2
    assert "label 21" in wrong.stderr
    write_json(run.root / "manifest.json", {"data": {"classes": ["background", "cow"]}})
    other = tagmask("export", "voc-submission", run.root, "--output", tmp_path)
    assert other.returncode == 2
    assert "not the 20 of PASCAL VOC" in other.stderr
    assert tagmask("export", "voc-submission", tmp_path / "nowhere", "--output", tmp_path).returncode == 2


def test_false_alarms_in_images_without_an_object(tagmask: Tagmask, tmp_path: Path) -> None:
    root, marked = tmp_path / "tiles", tmp_path / "marked"
    truth = {"a": 1, "b": 0, "c": 0, "d": 1}
    for name, label in truth.items():
        mask = np.zeros((8, 8), np.uint8)
        mask[:2, :2] = label
        save_mask(root / "SegmentationClass" / f"{name}.png", mask)
        image = root / "JPEGImages" / f"{name}.jpg"
        image.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(image)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, listed in (("train", "d\n"), ("val", "a\nb\nc\n")):
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(listed)
    (root / "classes.txt").write_text("background\ncrack\n")
    for name, label in {"a": 1, "b": 0, "c": 1}.items():
        save_mask(marked / f"{name}.png", np.full((8, 8), label, np.uint8))
    done = tagmask("evaluate", root, "--predictions", marked, "--output", tmp_path / "scored")
    assert done.returncode == 0, done.stderr
    rows = dict(line.strip("| ").split("  ", 1) for line in done.stdout.splitlines() if "clean" in line)
    assert rows["clean images left clean"].split()[0] == "50.0"
    assert rows["false alarms, of the area of clean images"].split()[0] == "50.0"
    metrics = json.loads((tmp_path / "scored" / "metrics.json").read_text())["splits"]["val"]["predictions"]
    # The marked image with the crack ties with the false alarm, and is above the image left clean.
    assert metrics["void_ignored"]["image_level"]["auc"] == {"crack": 0.75}
