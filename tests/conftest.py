"""Fixtures for all tests: real data where it lies beside the repository, goldens, one cache, one thread."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# A shared machine can stall any example for a second; pytest-timeout bounds what hangs.
settings.register_profile("tagmask", deadline=None)
settings.load_profile("tagmask")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data, weights and goldens; they are not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"needs real data in '{SHARED.name}' beside the repository, which is not here")
    return SHARED


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], Mapping[str, np.ndarray[Any, Any]]]:
    """``golden("pamr")``: arrays made by a published implementation, by name."""

    def load(name: str) -> Mapping[str, np.ndarray[Any, Any]]:
        path = shared / "golden" / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"{path.name} is not among the goldens")
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}

    return load


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for the session: PartsWorld is drawn once, and nobody's real cache is touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The order of floating-point sums depends on the number of threads; tests want one order."""
    os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is itself started by a launcher or with debugging on must not inherit either."""
    for variable in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "TAGMASK_DEBUG"):
        monkeypatch.delenv(variable, raising=False)


SMALL: Mapping[str, Any] = {"channels": [8, 16, 24, 32], "stem_width": 8}


@pytest.fixture
def tiny() -> dict[str, Any]:
    """A recipe of every stage that takes two seconds once torch is loaded; change it as you like."""
    return tiny_recipe()


@pytest.fixture(scope="session")
def short() -> dict[str, Any]:
    """The tiny recipe without what takes time, for tests that walk it often; copy it to change it."""
    recipe = tiny_recipe()
    recipe["classify"]["epochs"] = 1
    return {**recipe, "refine": [{"name": "threshold", "value": 0.4}]}


def tiny_recipe() -> dict[str, Any]:
    return {
        "name": "tiny",
        "data": {"format": "partsworld", "train": 12, "val": 4, "size": 48},
        "engine": {"device": "cpu", "precision": "float32", "threads": 1},
        "classify": {
            "backbone": "resnet10t",
            "backbone_args": dict(SMALL),
            "batch_norm": "train",
            "epochs": 2,
            "batch_size": 4,
            "augment": {"crop": 48},
        },
        "localize": {"name": "cam", "scales": [1.0, 0.5]},
        "refine": ["colour_walk", {"name": "threshold", "value": 0.4}],
        "segment": {
            "network": {
                "name": "deeplabv3plus",
                "encoder": "resnet10t",
                "encoder_args": dict(SMALL),
                "weights": "classifier",
                "decoder_channels": 8,
                "atrous_rates": [1, 2, 3],
            },
            "supervision": "both",
            "epochs": 2,
            "batch_size": 4,
            "augment": {"crop": 48},
        },
        "evaluate": {"thresholds": 20},
    }


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, _own_cache: None, _one_thread: None) -> Path:
    """The run directory of the tiny recipe, done once. Read it; to change it, copy it first."""
    from tagmask.pipeline.execute import run

    return run(tiny_recipe(), output=tmp_path_factory.mktemp("finished") / "tiny").path


@pytest.fixture
def context_of(tmp_path: Path) -> Callable[..., Any]:
    """``context_of(recipe, source=None, root=None)``: what one stage is handed, without a run around it."""
    from tagmask.engine.engine import Engine
    from tagmask.progress.listeners import SilentProgress
    from tagmask.runs.context import Context
    from tagmask.runs.workspace import Workspace
    from tagmask.settings.loading import load_recipe

    def make(values: Mapping[str, Any], source: Any = None, root: Path | None = None, progress: Any = None) -> Any:
        recipe = load_recipe(values)
        engine = Engine(recipe.engine, seed=recipe.seed)
        return Context(
            recipe,
            Workspace(root or tmp_path / "run"),
            engine,
            source or recipe.data.open(),
            progress or SilentProgress(),
        )

    return make


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A finished run that may be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``command("data", "check", DIR)``: exit code, standard output and standard error of tagmask."""
    from tagmask import cli

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main([str(argument) for argument in arguments])
        return int(left.value.code or 0), *capsys.readouterr()

    return call
