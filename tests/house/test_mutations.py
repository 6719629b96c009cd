"""The lists of the mutation runs lead to what is there: a change that cannot be made would count as found."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "mutation"
NAMED = tomllib.loads((FOLDER / "named.toml").read_text(encoding="utf-8"))["mutation"]
MODULES = tomllib.loads((FOLDER / "modules.toml").read_text(encoding="utf-8"))["modules"]


@pytest.mark.parametrize("mutation", NAMED, ids=[mutation["what"] for mutation in NAMED])
def test_a_named_change_can_be_made(mutation: dict[str, Any]) -> None:
    assert (ROOT / mutation["file"]).read_text(encoding="utf-8").count(mutation["old"]) == 1
    assert mutation["old"] != mutation["new"]
    assert all((ROOT / test).exists() for test in mutation["tests"])


def test_modules_and_their_tests_are_there() -> None:
    missing = [name for name in MODULES if not (ROOT / "src" / "tagmask" / name).is_file()]
    missing += [test for tests in MODULES.values() for test in tests if not (ROOT / test).exists()]
    assert missing == []


def test_every_module_of_public_functions_is_among_them() -> None:
    lines = (ROOT / "src" / "tagmask" / "functional.py").read_text(encoding="utf-8").splitlines()
    homes = {
        line.split()[1].removeprefix("tagmask.").replace(".", "/") + ".py" for line in lines if line[:5] == "from "
    }
    assert homes <= MODULES.keys()
