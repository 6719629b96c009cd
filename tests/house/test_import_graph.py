"""The house: a package is a floor, imports only go down, no stage knows another, nothing goes in circles."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import get_args

import pytest

from imports import FLOORS, GROUND, ROOF, floor, graph, imports_of, inside, modules, room

MATHS = ("methods", "contracts", "registry", "metrics", "backbones", "ops")
FOREIGN_TO_MATHS = frozenset({
    "jinja2", "lightning_fabric", "pyarrow", "rich", "subprocess", "typer", "yaml",
})  # fmt: skip


def test_the_reader_of_imports_sees_all_forms(tmp_path: Path) -> None:
    path = tmp_path / "stage.py"
    path.write_text(
        "import torch.nn\nfrom tagmask import registry\nfrom ...errors import TagmaskError\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tagmask.engine.engine import Engine\n"
        "def f():\n    from tagmask.runs.workspace import Workspace\n"
    )
    seen = imports_of("tagmask.stages.classify.stage", path)
    assert seen == {
        "torch.nn", "tagmask.registry", "tagmask.errors", "typing", "tagmask.engine.engine",
        "tagmask.runs.workspace",
    }  # fmt: skip
    assert "tagmask.engine.engine" not in imports_of("tagmask.stages.classify.stage", path, types=False)


def test_every_file_stands_on_a_floor() -> None:
    known = {*ROOF, *GROUND, *FLOORS}
    assert sorted({room(module) for module in modules()} - known) == []


def test_imports_only_go_down() -> None:
    up = [
        f"{module} -> {target}"
        for module, targets in graph().items()
        for target in sorted(inside(targets))
        if floor(target) > floor(module)
    ]
    assert up == []


def test_maths_knows_neither_the_machine_nor_the_terminal() -> None:
    wrong = [
        f"{module} -> {target}"
        for module, targets in graph().items()
        if room(module) in MATHS
        for target in sorted(targets)
        if target.startswith("tagmask.progress") or target.partition(".")[0] in FOREIGN_TO_MATHS
    ]
    assert wrong == []


def test_a_stage_never_imports_another_stage() -> None:
    def stage(module: str) -> str:
        parts = module.split(".")
        return parts[2] if parts[1:2] == ["stages"] and len(parts) > 3 else ""

    wrong = [
        f"{module} -> {target}"
        for module, targets in graph().items()
        for target in sorted(inside(targets))
        if stage(module) and stage(target) not in ("", stage(module))
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
    from tagmask.registry import Kind

    for kind in get_args(Kind):
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


def test_no_stage_knows_a_method() -> None:
    """What a stage needs of a method it is told by the contracts."""
    known = [
        f"{module} -> {target}"
        for module, targets in graph().items()
        if room(module) == "stages"
        for target in sorted(inside(targets))
        if room(target) == "methods"
    ]
    assert known == []
