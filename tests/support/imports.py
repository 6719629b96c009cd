"""Who imports whom in tagmask, read from the files without importing any; and the order of the floors."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"

# The floors of the house from the roof down. A package is one floor; imports only go down.
FLOORS = (
    "cli", "experiments", "export", "pipeline", "predict", "report", "stages", "runs", "models", "engine", "settings",
    "data", "methods", "contracts", "registry", "metrics", "backbones", "storage", "ops", "progress",
)  # fmt: skip
ROOF, GROUND = ("__init__", "__main__", "functional"), ("types", "errors", "version")  # the loose files of the root


def room(module: str) -> str:
    """The package below ``tagmask`` that a module is in, or the loose file that it is."""
    return [*module.split("."), "__init__"][1]


def floor(module: str) -> int:
    """0 is the ground."""
    order = [*ROOF, *FLOORS]
    here = room(module)
    return 0 if here in GROUND else len(order) - order.index(here)


@cache
def modules() -> dict[str, Path]:
    files = {}
    for path in sorted((SOURCE / "tagmask").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


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
