"""Device, ranks, and the loop over images; two processes give the bits of one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tagmask.engine.engine import Engine
from tagmask.engine.image_loop import gather_images, process_images
from tagmask.errors import RunError
from tagmask.progress.listeners import SilentProgress
from tagmask.settings.engine import EngineSettings
from tagmask.types import Problem


def engine(**options: Any) -> Engine:
    return Engine(EngineSettings.model_validate({"device": "cpu", **options}), seed=0)


class Bar(SilentProgress):
    def __init__(self) -> None:
        self.total = self.done = self.advanced = 0

    def start(self, description: str, total: int, done: int = 0) -> None:
        self.total, self.done = total, done

    def advance(self, n: int = 1, **values: float) -> None:
        self.advanced += n


def loop(
    work: Any, items: Sequence[Any], *, done: Any = lambda item: False, bar: Bar | None = None, **options: Any
) -> Any:
    return process_images(
        engine(threads=3), items, work, done=done, progress=bar or Bar(), description="images", **options
    )


# -- the loop over images --------------------------------------------------------------------------------


def test_only_what_is_not_done_is_worked_on() -> None:
    seen: list[int] = []
    bar = Bar()
    assert loop(seen.append, range(6), done=lambda item: item % 2 == 0, bar=bar) == []
    assert sorted(seen) == [1, 3, 5]
    assert (bar.total, bar.done, bar.advanced) == (6, 3, 3)


def test_problems_come_in_the_order_of_the_images() -> None:
    def work(item: int) -> Problem | None:
        time.sleep(0.002 * (7 - item))
        return Problem("s", str(item), "p", "r") if item % 2 else None

    assert [problem.id for problem in loop(work, range(7))] == ["1", "3", "5"]


def test_all_failed_is_an_error_with_the_first_reason() -> None:
    with pytest.raises(RunError, match="images: all 2 images failed; the first: r0"):
        loop(lambda item: Problem("s", str(item), "p", f"r{item}"), range(2))
    assert loop(lambda item: None, []) == []


def test_several_images_at_once_but_one_thread_each() -> None:
    busy, most, threads, lock = 0, 0, set(), threading.Lock()

    def work(item: int) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
            threads.add(torch.get_num_threads())
        time.sleep(0.02)
        with lock:
            busy -= 1

    try:
        loop(work, range(9))
        assert (most, threads) == (3, {1})
        assert torch.get_num_threads() == 3
        most = 0
        loop(work, range(4), at_once=1)
        assert most == 1
    finally:
        torch.set_num_threads(1)


def test_an_error_of_ours_ends_the_loop_at_once() -> None:
    seen: list[int] = []

    def work(item: int) -> None:
        seen.append(item)
        if item == 3:
            msg = "the disk is full"
            raise RunError(msg)

    with pytest.raises(RunError, match="disk is full"):
        loop(work, range(1000))
    assert len(seen) < 20
    torch.set_num_threads(1)


def test_memory_of_the_loop_does_not_grow_with_the_images() -> None:
    """Images are handed out as they are worked on, not all at once."""
    alive, most, lock = 0, 0, threading.Lock()

    class Item:
        def __init__(self) -> None:
            nonlocal alive, most
            with lock:
                alive += 1
                most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            with lock:
                alive -= 1

    for _ in engine(threads=2).map(lambda item: None, (Item() for _ in range(200)), at_once=2):  # type: ignore[arg-type]
        pass
    torch.set_num_threads(1)
    assert most < 10


def test_gathered_results_come_in_the_order_of_the_images() -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (7 - item))
        return item * item

    bar = Bar()
    results = gather_images(engine(threads=3), range(7), work, progress=bar, description="squares")
    torch.set_num_threads(1)
    assert results == [0, 1, 4, 9, 16, 25, 36]
    assert (bar.total, bar.advanced) == (7, 7)


def test_one_rank_has_everything_and_gathers_itself() -> None:
    alone = engine(threads=1)
    assert list(alone.share([1, 2, 3])) == [1, 2, 3]
    assert alone.gather("x") == ["x"]
    assert alone.sum_over_ranks(torch.ones(2)).tolist() == [1, 1]
    assert alone.is_main


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(RunError, match=r"engine\.device=cuda: this machine has none"):
        engine(device="cuda")
    assert engine(device="auto", threads=1).device.type == "cpu"


@pytest.mark.parametrize(("asked", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_the_one_asked_for(asked: str, dtype: torch.dtype) -> None:
    chosen = engine(precision=asked, threads=1)
    assert chosen.precision == asked
    with chosen.autocast():
        assert torch.nn.functional.linear(torch.ones(1, 2), torch.ones(1, 2)).dtype == dtype


# -- two processes ---------------------------------------------------------------------------------------


def tagmask(*arguments: Any, launcher: Sequence[str] = (), timeout: float = 180) -> subprocess.CompletedProcess[str]:
    """The command in processes of its own, with as many threads as it likes."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    command = [sys.executable, *(launcher or ("-m", "tagmask")), *map(str, arguments), "--plain"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=timeout)


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tagmask")


@pytest.fixture
def recipe_file(tiny: dict[str, Any], tmp_path: Path) -> Path:
    tiny["engine"]["threads"] = None  # one and two processes get different defaults; the bits must not care
    tiny["segment"]["supervision"] = "weak"
    tiny["segment"]["epochs"] = 1
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny))
    return path


def artifacts(root: Path, *stages: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for stage in stages
        for path in sorted((root / stage).rglob("*"))
        if path.is_file()
    }


def processes(root: Path) -> int:
    return int(json.loads((root / "manifest.json").read_text())["environment"]["processes"])


GATHER = """
import json, pathlib, sys
from tagmask.engine.engine import Engine
from tagmask.engine.image_loop import gather_images
from tagmask.progress.listeners import SilentProgress
from tagmask.settings.engine import EngineSettings
engine = Engine(EngineSettings.model_validate({"device": "cpu"}), seed=0)
rank, mine = engine.fabric.global_rank, []
def work(item):
    mine.append(item)
    return f"item {item}"
gathered = [gather_images(engine, range(n), work, progress=SilentProgress(), description="d") for n in (5, 1, 0)]
pathlib.Path(sys.argv[1], f"{rank}.json").write_text(json.dumps([mine, gathered]))
"""


def test_every_process_gathers_the_results_of_all_in_order(tmp_path: Path) -> None:
    (tmp_path / "gather.py").write_text(GATHER)
    command = [sys.executable, *TORCHRUN[:-2], str(tmp_path / "gather.py"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=120)
    (first, gathered), (second, same) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (sorted(first), second) == ([0, 0, 2, 4], [1, 3])
    assert gathered == same == [[f"item {number}" for number in range(n)] for n in (5, 1, 0)]


def test_two_processes_leave_the_bits_of_one(recipe_file: Path, finished: Path, tmp_path: Path) -> None:
    """From one classifier; the threshold is chosen, so that sums over ranks count too."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copytree(finished / "classify", tmp_path / name / "classify")
        shutil.copy(finished / "manifest.json", tmp_path / name)
        shutil.copy(finished / "recipe.yaml", tmp_path / name)
    arguments = ("run", recipe_file, "refine.threshold.value=auto", "engine.threads=3", "--until", "refine")
    one = tagmask(*arguments, "--output", tmp_path / "one")
    two = tagmask(*arguments, "engine.threads=1", "--devices", 2, "--output", tmp_path / "two")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert "classify: up to date" in two.stderr
    assert (processes(tmp_path / "one"), processes(tmp_path / "two")) == (1, 2)
    expected = artifacts(tmp_path / "one", "localize", "refine")
    assert len(expected) == 16 * 3 + 2  # thresholds.json, masks.json
    assert artifacts(tmp_path / "two", "localize", "refine") == expected


def test_two_processes_go_all_the_way_and_only_the_first_speaks(recipe_file: Path, tmp_path: Path) -> None:
    """A batch of one, so that one of the two processes has nothing of its own to train on."""
    overrides = ("classify.batch_size=1", "classify.epochs=1", "segment.batch_size=2")
    done = tagmask("run", recipe_file, *overrides, "--devices", 2, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert processes(tmp_path / "run") == 2
    for stage in ("classify", "localize", "refine", "segment", "evaluate"):
        assert done.stderr.count(f"{stage}: new") == 1
    assert done.stdout.count("report:") == 1
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["splits"]["val"]["segmentation"]


def test_torchrun_starts_it_too(recipe_file: Path, tmp_path: Path) -> None:
    done = tagmask("run", recipe_file, "--until", "localize", "--output", tmp_path / "run", launcher=TORCHRUN)
    assert done.returncode == 0, done.stderr
    assert processes(tmp_path / "run") == 2
    assert len(list((tmp_path / "run" / "localize" / "maps").iterdir())) == 16
    assert done.stdout.count("run:") == 1


def test_an_error_ends_both_processes_and_is_said_once(recipe_file: Path, tmp_path: Path) -> None:
    """A wrong path before the processes know of each other; a wild rate while both are training."""
    wrong = tagmask("run", recipe_file, "data={format: voc, root: nowhere}", "--devices", 2, timeout=60)
    assert wrong.returncode == 2
    assert wrong.stderr.count("error:") == wrong.stderr.count("\n") == 1
    rates = ("classify.optimizer.lr=1e30", "classify.optimizer.head_lr=1e30", "classify.optimizer.warmup_steps=0")
    wild = tagmask("run", recipe_file, *rates, "--devices", 2, "--output", tmp_path / "run", timeout=60)
    assert wild.returncode == 1
    assert wild.stderr.splitlines()[-1].startswith("error: the loss is not finite")
    assert wild.stderr.count("error") == 1


BREAK_SECOND = """
import os, sys
from tagmask import cli
from tagmask.storage import arrays, files, pictures, records, weights
from tagmask.runs import workspace
if os.environ.get("LOCAL_RANK") == "1":
    def fail(path, mode="wb"):
        raise files.write_error(path, OSError(28, "No space left on device"))
    for module in (arrays, pictures, records, weights, workspace):
        module.atomic_write = fail
cli.main(sys.argv[1:])
"""


def test_a_second_process_whose_disk_is_full_is_heard(recipe_file: Path, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BREAK_SECOND)
    arguments = ("run", recipe_file, "--reuse", finished, "localize.flip=false", "--devices", 2)
    done = tagmask(*arguments, "--output", tmp_path / "run", launcher=(str(tmp_path / "broken.py"),), timeout=60)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr.splitlines()[-1]
    assert done.stderr.count("error") == 1
    assert len(list((tmp_path / "run" / "localize" / "maps").iterdir())) == 8  # the first one's share is there
