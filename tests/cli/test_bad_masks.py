"""What a person is told whose masks are bad: in the run, its report, by ``data check``, and when nothing can go on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tagmask import cli
from tagmask.storage.records import read_json, write_json

TINY = Path(__file__).parent / "tiny.yaml"


def leave(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three updates that nothing can come of."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert leave("run", TINY, "--output", folder) == 0
    return folder


def test_a_run_that_was_too_short_is_told_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "warning: classify: 3 updates are few for 8 classes, 92 or more are advised" in (run / "log.txt").read_text()
    page = (run / "report.html").read_text()
    assert leave("data", "check", run) == 0
    _, _, advice = capsys.readouterr().out.partition("\nadvice\n")
    for sentence in (
        "The classifier was trained too little: 3 updates, where 92 or more are advised for 8 classes. Set classify.",
        "The network was trained too little: 3 updates, where 280 or more are advised for 8 classes. Set segment.",
        "The classifier does not know its own training images (average precision",
    ):
        assert sentence in page
        assert f"\n  {sentence}" in f"\n{advice}"


def test_a_run_under_changes_is_judged_as_a_recipe(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What would be trained, not what was."""
    assert leave("data", "check", run, "classify.iterations=auto") == 0
    _, _, advice = capsys.readouterr().out.partition("\nadvice\n")
    (only,) = advice.splitlines()
    assert only.startswith("  segment: 3 updates are few for 8 classes")


def test_a_run_that_did_not_note_its_trainings_is_judged_by_its_recipe(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = shutil.copytree(run, tmp_path / "old")
    manifest = read_json(old / "manifest.json")
    for entry in manifest["stages"].values():
        entry.pop("trainings", None)
    write_json(old / "manifest.json", manifest)
    assert leave("data", "check", old) == 0
    _, _, advice = capsys.readouterr().out.partition("\nadvice\n")
    assert advice.startswith("  classify: 3 updates are few for 8 classes")
    assert "The classifier was trained too little" not in advice
    assert "The classifier does not know its own training images" in advice


def test_what_masks_mark_is_measured_without_ground_truth(run: Path) -> None:
    marked = read_json(run / "metrics.json")["marked"]
    assert marked["train"]["pseudo_masks"]["images"] == 24
    assert marked["val"]["segmentation"]["images"] == 8
    assert 0 <= marked["train"]["pseudo_masks"]["foreground"] <= 1
    # Pseudo masks are made within the tags.
    assert marked["train"]["pseudo_masks"]["in_tags"] in (None, 1.0)


def test_no_threshold_has_a_cause(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images of one colour each: nothing in them is an object and nothing is background."""
    for name, colour in (("reds", (200, 30, 30)), ("greens", (30, 200, 30))):
        (tmp_path / "shop" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (40, 40), colour).save(tmp_path / "shop" / name / f"{number}.png")
    data = ("data={format: folders, root: %s, val_fraction: 0}" % (tmp_path / "shop"), "segment=null")
    arguments = ("run", TINY, *data, "refine.threshold.value=auto", "--output", tmp_path / "run")
    assert leave(*arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "refine: no threshold can be chosen from 12 images: every map or image is constant." in error
    assert "The classifier (classify) was trained too little: 1 update is few for 2 classes, 68 or more are" in error
    assert leave(*arguments, "classify.iterations=68", "classify.batch_size=2") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "The classifier has learnt the tags, but nothing stands out in its maps: look at them and at the" in error
