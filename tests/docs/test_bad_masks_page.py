"""docs/bad-masks.md quotes what the program says, all of it and nothing else, and its limits are those of the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bad_runs import CAUSES, TRAINING, facts_of
from tagmask.errors import DataError
from tagmask.methods.threshold.automatic import AutoThreshold
from tagmask.report.run.diagnosis import LIMITS, diagnosis
from tagmask.runs.workspace import Workspace
from tagmask.stages.refine.constant_maps import why_constant
from tagmask.storage.records import write_json


def quotes(page: str) -> list[str]:
    """Block quotes, each as one line."""
    blocks = re.findall(r"(?:^> .*\n)+", page, flags=re.M)
    return [" ".join(line.removeprefix("> ") for line in block.splitlines()) for block in blocks]


def error_of_constant_maps(folder: Path, *, updates: int | None, precision: float) -> str:
    """What a run ends with; without updates the classifier was given."""
    space = Workspace(folder)
    trained = {"trainings": {"classify": {**TRAINING, "updates": updates}}}
    given = {"settings": {"settings": {"classifier": "sha256 0123"}}}
    write_json(space.root / "manifest.json", {"stages": {"classify": given if updates is None else trained}})
    space.stage("classify").mkdir(parents=True)
    (space.stage("classify") / "history.jsonl").write_text(json.dumps({"train_map": precision}) + "\n")
    context: Any = SimpleNamespace(recipe=SimpleNamespace(last_training="classify"), workspace=space)
    statistic = AutoThreshold()
    statistic.n_images = 48
    with pytest.raises(DataError) as error:
        statistic.choose()
    return f"refine: {error.value} {why_constant(context)}"


def test_every_sentence_is_one_the_program_prints_and_none_is_missing(root: Path, tmp_path: Path) -> None:
    printed = [sentence for changes in CAUSES.values() for sentence in diagnosis(facts_of(**changes))]
    printed += [
        error_of_constant_maps(tmp_path / "few", updates=16, precision=0.9),
        error_of_constant_maps(tmp_path / "unlearnt", updates=130, precision=0.31),
        error_of_constant_maps(tmp_path / "given", updates=None, precision=0.31),
        error_of_constant_maps(tmp_path / "learnt", updates=130, precision=0.9),
    ]
    page = quotes((root / "docs" / "bad-masks.md").read_text(encoding="utf-8"))
    assert sorted(page) == sorted(printed)


def test_the_limits_are_those_of_the_code(root: Path) -> None:
    page = (root / "docs" / "bad-masks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .* \| ([\d.]+) \|$", page, flags=re.M)
    assert {name: float(value) for name, value in rows} == LIMITS
