"""The floors of the house: imports only go down, no stage knows another, nothing goes in circles."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import json
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import get_args

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"

# First match decides. Whatever no line names is maths, on the ground floor.
DOOR, STAGE, GROUND = 2, 1, 0
FLOORS = (
    ("tagmask", DOOR),
    ("tagmask.__main__", DOOR),
    ("tagmask.cli", DOOR),
    ("tagmask.cli.*", DOOR),
    ("tagmask.doctor", DOOR),
    ("tagmask.terminal", DOOR),
    ("tagmask.*.stage", STAGE),
    ("tagmask.engine", STAGE),
    ("tagmask.workspace", STAGE),
    ("tagmask.context", STAGE),
    ("tagmask.street", STAGE),
    ("tagmask.planning", STAGE),
    ("tagmask.recipe", STAGE),
    ("tagmask.predictor", STAGE),
    ("tagmask.batch", STAGE),
    ("tagmask.export", STAGE),
    ("tagmask.export.*", STAGE),
    ("tagmask.rescore", STAGE),
    ("tagmask.image_scores", STAGE),
    ("tagmask.pairing", STAGE),
    ("tagmask.submission", STAGE),
    ("tagmask.grid", STAGE),
    ("tagmask.comparison", STAGE),
    ("tagmask.crf_folder", STAGE),
    ("tagmask.processes", STAGE),
    ("tagmask.memory", STAGE),
    ("tagmask.settings", STAGE),
    ("tagmask.weights", STAGE),
    ("tagmask.training", STAGE),
    ("tagmask.classify.model", STAGE),
    ("tagmask.classify.subcategories", STAGE),
    ("tagmask.classify.patches", STAGE),
    ("tagmask.segment.schedule", STAGE),
    ("tagmask.evaluate.objects", STAGE),
    ("tagmask.evaluate.counting_images", STAGE),
    ("tagmask.refine.choose_threshold", STAGE),
    ("tagmask.refine.fitting", STAGE),
    ("tagmask.refine.instance_masks", STAGE),
    ("tagmask.saliency.folder", STAGE),
    ("tagmask.segment.self_training", STAGE),
    ("tagmask.segment.guides", STAGE),
    ("tagmask.data.transforms", GROUND),  # arrays and tensors only; localizers scale images with it
    ("tagmask.data", STAGE),
    ("tagmask.data.*", STAGE),
    ("tagmask.report", STAGE),
    ("tagmask.report.*", STAGE),
)
# The street walks the stages; these two offer one stage's work without a run around it.
SEES_STAGES = ("tagmask.street", "tagmask.predictor", "tagmask.rescore")
# The manifest names tagmask's version, which the bare package holds.
ALLOWED_UP = {("tagmask.street", "tagmask")}
# On the ground floor, but maths has nothing to say to a terminal.
NOT_FOR_MATHS = ("tagmask.progress",)
NO_MATHS = ("tagmask.progress", "tagmask.registry", "tagmask.errors", "tagmask.interfaces", "tagmask.method")
FOREIGN_TO_MATHS = frozenset({
    "jinja2", "lightning_fabric", "pyarrow", "rich", "subprocess", "typer", "yaml",
})  # fmt: skip


def floor(module: str) -> int:
    return next((level for pattern, level in FLOORS if fnmatch.fnmatchcase(module, pattern)), GROUND)


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((SOURCE / "tagmask").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, path: Path, *, types: bool = True) -> set[str]:
    """Everything a file imports, however deep in its code; ``types=False``: but for TYPE_CHECKING blocks."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden: set[ast.AST] = set()
    if not types:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                hidden.update(inner for statement in node.body for inner in ast.walk(statement))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    targets: set[str] = set()
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            targets.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, base]).rstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                targets.add(inner if inner in modules() else base)
    return targets


def graph(*, types: bool = True) -> dict[str, set[str]]:
    return {module: imports_of(module, path, types=types) for module, path in modules().items()}


def inside(targets: set[str]) -> set[str]:
    return {target for target in targets if target in modules()}


def test_the_reader_of_imports_sees_all_forms(tmp_path: Path) -> None:
    path = tmp_path / "stage.py"
    path.write_text(
        "import torch.nn\nfrom tagmask import registry\nfrom ..errors import TagmaskError\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tagmask.engine import Engine\n"
        "def f():\n    from tagmask.workspace import Workspace\n"
    )
    seen = imports_of("tagmask.classify.stage", path)
    assert seen == {
        "torch.nn", "tagmask.registry", "tagmask.errors", "typing", "tagmask.engine", "tagmask.workspace",
    }  # fmt: skip
    assert "tagmask.engine" not in imports_of("tagmask.classify.stage", path, types=False)


def test_imports_only_go_down() -> None:
    up = [
        f"{module} -> {target}"
        for module, targets in graph().items()
        for target in sorted(inside(targets))
        if floor(target) > floor(module) and (module, target) not in ALLOWED_UP
    ]
    assert up == []


def test_maths_knows_neither_the_machine_nor_the_terminal() -> None:
    wrong = [
        f"{module} -> {target}"
        for module, targets in graph().items()
        if floor(module) == GROUND and module not in NO_MATHS
        for target in sorted(targets)
        if target in NOT_FOR_MATHS or target.partition(".")[0] in FOREIGN_TO_MATHS
    ]
    assert wrong == []


def test_a_stage_never_imports_another_stage() -> None:
    wrong = [
        f"{module} -> {target}"
        for module, targets in graph().items()
        if module not in SEES_STAGES
        for target in sorted(inside(targets))
        if target.endswith(".stage") and target != module
    ]
    assert wrong == []


def test_no_cycle() -> None:
    edges = {module: inside(targets) - {module} for module, targets in graph(types=False).items()}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' -> '.join(error.args[1])}")


def test_every_registered_name_leads_to_something() -> None:
    from tagmask import registry

    for kind in get_args(registry.Kind):
        for name, entry in registry.entries(kind).items():
            module, _, attribute = entry.where.partition(":")
            assert hasattr(importlib.import_module(module), attribute), f"{kind} {name}: {entry.where}"


@pytest.mark.parametrize("name", ["run", "load", "sweep", "compare"])
def test_no_module_hides_a_public_function(name: str) -> None:
    assert f"tagmask.{name}" not in modules()


def _loaded_after(code: str) -> set[str]:
    """Top-level names in sys.modules of a fresh interpreter that ran the code."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


HEAVY = {"torch", "pydantic", "numpy", "PIL", "yaml", "rich", "timm"}


def test_import_tagmask_does_nothing() -> None:
    assert _loaded_after("import tagmask") & (HEAVY | {"typer"}) == set()


def test_help_loads_nothing_heavy() -> None:
    code = "from tagmask.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    loaded = _loaded_after(code)
    assert "typer" in loaded
    assert loaded & HEAVY == set()


def test_public_names() -> None:
    import tagmask

    assert set(tagmask.__all__) <= set(dir(tagmask))
    for name in tagmask.__all__:
        assert getattr(tagmask, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = tagmask.lode  # type: ignore[attr-defined]
