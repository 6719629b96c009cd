"""One complete fake run for the tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_run import FakeRun, make_run, make_source
from tagmask.report.run.page import write_report


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    root = tmp_path_factory.mktemp("report")
    source = make_source(root / "pictures")
    return FakeRun(make_run(root / "run", source), source)


@pytest.fixture(scope="session")
def full_page(full_run: FakeRun) -> str:
    path: Path = write_report(full_run.workspace, full_run.source)
    return path.read_text(encoding="utf-8")
