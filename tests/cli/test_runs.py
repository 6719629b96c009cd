"""From tags to report once, in a process of its own; then every door on that run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask import cli
from tagmask import load as tagmask_load

TINY = Path(__file__).parent / "tiny.yaml"


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def tagmask(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """A command in this process: what it does is the same, and torch is loaded already."""

    def call(*arguments: str | Path) -> Done:
        with pytest.raises(SystemExit) as left:
            cli.main([str(argument) for argument in arguments])
        return Done(int(left.value.code or 0), *capsys.readouterr())

    return call


Tagmask = Callable[..., Done]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    command = [sys.executable, "-m", "tagmask", "run", str(TINY), "--output", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report: {folder / 'report.html'}"
    assert "mIoU" in done.stdout
    assert "\x1b" not in done.stderr + done.stdout
    assert "classify: new" in done.stderr
    return folder


def test_the_log_holds_what_was_said(run: Path) -> None:
    assert "classify: new" in (run / "log.txt").read_text(encoding="utf-8")


def test_the_same_command_again_has_nothing_to_do(tagmask: Tagmask, run: Path) -> None:
    before = (run / "segment" / "model.safetensors").read_bytes()
    for again in (tagmask("run", TINY, "--output", run), tagmask("run", run)):
        assert again.returncode == 0, again.stderr
        assert "classify: up to date" in again.stderr
        assert "segment: up to date" in again.stderr
    assert (run / "segment" / "model.safetensors").read_bytes() == before


def test_status_shows_every_stage(tagmask: Tagmask, run: Path) -> None:
    shown = tagmask("status", run)
    assert shown.returncode == 0, shown.stderr
    for stage in ("classify", "localize", "refine", "segment", "evaluate"):
        assert stage in shown.stdout
    nowhere = tagmask("status", run.parent)
    assert nowhere.returncode == 2
    assert "not a run directory" in nowhere.stderr


def test_predict_writes_masks_and_leaves_out_what_is_no_image(tagmask: Tagmask, run: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(images / "good.png")
    (images / "bad.jpg").write_bytes(b"")
    done = tagmask("predict", run, images, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "1 of 2 masks" in done.stdout
    assert "skipped" in done.stderr
    assert "bad.jpg" in done.stderr
    with Image.open(tmp_path / "out" / "masks" / "good.png") as mask:
        assert (mask.mode, mask.size) == ("P", (50, 40))
    names = (tmp_path / "out" / "classes.txt").read_text(encoding="utf-8").splitlines()
    assert names == list(tagmask_load(run).classes)
    assert names[0] == "background"
    none = tagmask("predict", run, images / "bad.jpg", "--output", tmp_path / "none")
    assert none.returncode == 2


def test_evaluate_again_gives_the_same_figures_and_a_report(tagmask: Tagmask, run: Path) -> None:
    before = json.loads((run / "metrics.json").read_text())
    (run / "report.html").unlink()
    done = tagmask("evaluate", run)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "metrics.json").read_text()) == before
    assert (run / "report.html").stat().st_size > 1000


def test_a_folder_of_masks_is_scored_like_the_run_itself(tagmask: Tagmask, run: Path) -> None:
    folder = run / "segment" / "predictions"
    done = tagmask("evaluate", run, "--predictions", folder, "--split", "val")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((run / "metrics.json").read_text())
    miou = metrics["splits"]["val"]["segmentation"]["void_ignored"]["miou"]
    (mean,) = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("mean")]
    assert mean[1] == f"{100 * miou:.1f}"
    assert tagmask("evaluate", run, "--predictions", run / "classify").returncode == 2


def test_report_and_compare(tagmask: Tagmask, run: Path, tmp_path: Path) -> None:
    (run / "report.html").unlink(missing_ok=True)
    assert tagmask("report", run).stdout == f"report: {run / 'report.html'}\n"
    assert (run / "report.html").is_file()
    files = [tmp_path / name for name in ("table.md", "table.csv", "table.html")]
    done = tagmask("compare", run, "--markdown", files[0], "--csv", files[1], "--html", files[2])
    assert done.returncode == 0, done.stderr
    assert "tiny" in done.stdout
    assert all("tiny" in path.read_text(encoding="utf-8") for path in files)


def test_sweep_and_compare_run_recipes(tagmask: Tagmask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(TINY.read_text(encoding="utf-8").replace("name: tiny", "name: mine"), encoding="utf-8")
    small = ["data.train=8", "data.val=4", "segment=null"]
    swept = tagmask("sweep", recipe, "localize.scales=[1.0],[0.5]", *small)
    assert swept.returncode == 0, swept.stderr
    folder = Path("sweeps/mine-scales")
    assert swept.stdout.splitlines()[-1] == f"page:   {folder / 'sweep.html'}"
    assert (folder / "scales=0.5" / "metrics.json").is_file()
    done = tagmask("compare", folder / "scales=0.5", recipe, *small, "--seeds", "0")
    assert done.returncode == 0, done.stderr
    assert "reused from sweeps/mine-scales/scales=0.5" in done.stderr
    assert "localize / CAM" in done.stdout
    assert (tmp_path / "comparisons" / "mine" / "compare.html").is_file()
    wrong = tagmask("compare", "sweeps/mine-scale", "--seeds", "a")
    assert wrong.returncode == 2
    assert "Did you mean 'sweeps/mine-scales'?" in wrong.stderr
    assert "whole numbers" in tagmask("compare", recipe, "--seeds", "a").stderr
    assert tagmask("sweep", recipe, "seed=0").returncode == 2


def test_ctrl_c_says_how_to_go_on_and_the_run_does(tagmask: Tagmask, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "tagmask", "run", str(TINY), "classify.epochs=200", "--output", str(folder)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts its background jobs with Ctrl-C ignored, and processes inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    checkpoint = folder / "classify" / "state.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "interrupted; start the same command again to continue"
    assert "Traceback" not in said
    again = tagmask("run", folder, "classify.epochs=1", "--until", "classify")
    assert again.returncode == 0, again.stderr
    assert "classify: changed: epochs 200 -> 1" in again.stderr
