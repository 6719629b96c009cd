"""What docstrings, comments and pages name is there: files of the repository, and modules and functions of tagmask."""

from __future__ import annotations

import ast
import importlib
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "tests", "benchmarks", "recipes", "docs")
SUFFIXES = (".py", ".yaml", ".md")

#: Files of published repositories. A text that names one must name its repository too.
PUBLISHED = {
    "jiwoon-ahn/irn": {
        "net/resnet50_irn.py",
        "step/cam_to_ir_label.py",
        "step/make_ins_seg_labels.py",
        "step/make_sem_seg_labels.py",
        "step/train_irn.py",
    },
    "allenwu97/EDAM": {"infer_cls.py"},
    "gaviotas/AMN": {"net/resnet50_amn.py", "step/make_amn_cam.py", "step/train_amn.py"},
    "jiwoon-ahn/psa": {"network/resnet38d.py", "infer_aff.py", "train_aff.py"},
}
#: Files that tagmask writes into run directories, sweeps and comparisons.
WRITTEN = {"recipe.yaml", "table.md", "pair.md"}
#: The reader's own files in examples.
EXAMPLES = {"data.yaml", "shop.yaml", "mine.yaml", "other.yaml"}

# Neither in the middle of a longer path or a link, nor with a wildcard or a placeholder in it.
FILE = re.compile(r"(?<![\w./\-*{}<>])(?:[\w.\-]+/)*[\w\-]+\.(?:md|py|yaml)\b(?![\w(])")
NAME = re.compile(r"(?<![\w./\-])tagmask(?:\.[A-Za-z_]\w*)+")
ROLE = re.compile(r":(?:class|func|meth|data):`~?(?!tagmask\.)[\w.]*?(\w+)`")


def texts_of(path: Path) -> Iterator[str]:
    """The docstrings and comments of a Python file, the comments of a recipe, a page as a whole."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield content
    elif path.suffix == ".yaml":
        yield from re.findall(r"#.*", content)
    else:
        tokens = tokenize.generate_tokens(io.StringIO(content).readline)
        yield from (token.string for token in tokens if token.type == tokenize.COMMENT)
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield ast.get_docstring(node) or ""


@cache
def texts() -> list[tuple[Path, str]]:
    """(file, text) of everything a reader reads."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
    return [(path, text) for path in [*paths, *sorted(ROOT.glob("*.md"))] for text in texts_of(path) if text]


def repository_of(name: str, text: str) -> str | None:
    """The published repository that has this file and is named in the text."""
    return next((repo for repo, files in PUBLISHED.items() if name in files and repo in text), None)


def is_there(name: str, path: Path, text: str) -> bool:
    """Whether the file exists: below the root, the package or the citing file's folder, or in a named repository."""
    if name in WRITTEN | EXAMPLES or repository_of(name, text):
        return True
    return any((base / name).is_file() for base in (ROOT, ROOT / "src" / "tagmask", path.parent))


def resolves(name: str) -> bool:
    """Whether a dotted name is a module of tagmask, or something in one."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            if not hasattr(value, part):
                return part in getattr(value, "model_fields", {})
            value = getattr(value, part)
        return True
    return False


@cache
def identifiers(path: Path) -> frozenset[str]:
    """Every name in the code of a Python file, its docstrings and comments aside."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    return frozenset(token.string for token in tokens if token.type == tokenize.NAME)


def test_files_that_are_cited_exist() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, text in texts()
        for name in FILE.findall(text)
        if not is_there(name, path, text)
    ]
    assert missing == []


def test_names_of_tagmask_that_are_cited_exist() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, text in texts()
        for name in NAME.findall(text)
        if not resolves(name)
    ]
    assert missing == []


def test_short_references_are_to_something_in_their_file() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, text in texts()
        for name in ROLE.findall(text)
        if name not in identifiers(path)
    ]
    assert missing == []


def test_every_exception_is_cited_somewhere() -> None:
    cited = {(name, repository_of(name, text)) for _, text in texts() for name in FILE.findall(text)}
    exceptions = {(name, repo) for repo, files in PUBLISHED.items() for name in files}
    exceptions |= {(name, None) for name in WRITTEN | EXAMPLES}
    assert exceptions - cited == set()


def test_a_citation_of_what_is_not_there_is_seen() -> None:
    here = Path(__file__)
    assert not is_there("step/train_irn.py", here, "as in step/train_irn.py")
    assert is_there("step/train_irn.py", here, "``step/train_irn.py`` of jiwoon-ahn/irn")
    assert not is_there("notes.md", here, "see notes.md")
    assert FILE.findall("(notes.md 10.2), docs/*.md, `runs/NAME/recipe.yaml`.") == ["notes.md", "runs/NAME/recipe.yaml"]
    assert not resolves("tagmask.nowhere.something")
    assert not resolves("tagmask.functional.something")
