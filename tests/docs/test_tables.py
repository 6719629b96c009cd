"""What methods declare of themselves is what README and the site's navigation say, and their pages are there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from scripts import load_script
from tagmask import registry

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "docs/tables/methods.py"


@pytest.mark.parametrize(("page", "written"), list(load_script(SCRIPT).WRITTEN.items()))
def test_what_a_script_writes_is_what_stands_there(page: str, written: Callable[[str], str]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert written(text) == text, f"run: python {SCRIPT}"


def test_a_method_that_is_missing_is_written() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = text.splitlines(keepends=True)
    without = "".join(row for row in rows if "[`ssa`]" not in row)
    assert without != text
    assert load_script(SCRIPT).readme(without) == text


@pytest.mark.parametrize("kind", [kind for kind in get_args(registry.Kind) if kind != "data"])
def test_every_method_has_a_page_that_is_about_it(kind: registry.Kind) -> None:
    for name, entry in load_script(SCRIPT).ours(kind).items():
        page = (ROOT / "docs" / entry.page).read_text(encoding="utf-8")
        assert re.search(rf"\b{name}\b", page), f"{kind} {name}: {entry.page}"
