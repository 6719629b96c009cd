"""What keeps the house readable: small files and functions, narrow rooms, addresses that say what is there."""

from __future__ import annotations

import ast
import re
import statistics
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from tagmask import registry

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, TESTS = ROOT / "src" / "tagmask", ROOT / "tests"
FILES = sorted(PACKAGE.rglob("*.py"))
#: Folders of tests that are about no package of their own.
APART = {"docs", "faults", "house", "published", "support"}
KINDS = [kind for kind in get_args(registry.Kind) if kind != "data"]


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def functions(tree: ast.AST) -> dict[str, int]:
    """Name -> lines, docstring included."""
    return {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def homes(kind: registry.Kind) -> set[str]:
    """Modules of tagmask that hold a method of a kind; other packages may have theirs where they like."""
    modules = {entry.where.partition(":")[0] for entry in registry.entries(kind).values()}
    return {module for module in modules if module.startswith("tagmask.")}


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_file_is_long() -> None:
    assert {shown(path): lines(path) for path in FILES if lines(path) > 400} == {}
    assert statistics.median(lines(path) for path in FILES if path.name != "__init__.py") <= 130


def test_no_function_is_long() -> None:
    long = {
        f"{shown(path)}:{name}": size
        for path in FILES
        for name, size in functions(ast.parse(path.read_text(encoding="utf-8"))).items()
        if size > 60
    }
    assert long == {}


def test_a_long_function_is_seen() -> None:
    body = "    x = 1\n" * 60
    assert functions(ast.parse(f"def f():\n{body}class A:\n    async def g(self):\n        pass\n")) == {
        "f": 61,
        "g": 2,
    }


def test_no_package_is_wide() -> None:
    wide = {shown(folder): n for folder, n in Counter(path.parent for path in FILES).items() if n > 16}
    assert wide == {}


def test_few_files_are_loose() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 6


def test_a_file_is_named_after_what_it_does() -> None:
    vague = re.compile(r"(utils?|misc|helpers?|common|tools?|stuff)\d*")
    assert [shown(path) for path in FILES if vague.fullmatch(path.stem)] == []


def test_tests_mirror_the_package() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    strangers = {str(folder) for folder in folders if not (PACKAGE / folder).is_dir()}
    assert {folder for folder in strangers if folder.partition("/")[0] not in APART} == set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_lives_in_its_papers_folder_in_the_file_of_its_kind(kind: registry.Kind) -> None:
    files = {f"tagmask.methods.{path.parent.name}.{kind}" for path in PACKAGE.glob(f"methods/*/{kind}.py")}
    assert homes(kind) == files  # so that ls methods/*/localizer.py lists all localizers


def test_data_formats_live_with_the_data() -> None:
    assert {".".join(home.split(".")[:2]) for home in homes("data")} == {"tagmask.data"}
