"""Mutants of the pure functions, by cosmic-ray's operators, against the tests that are about them.

    pip install -e '.[mutation]'
    python benchmarks/mutation/run.py --sample 12 --results mutants.jsonl
    python benchmarks/mutation/run.py --module methods/lpcam --sample 0      # one at every place of a package
    python benchmarks/mutation/run.py --named                                # changes that once passed, in named.toml

Mutants are made in a copy of the repository without any data beside it, so that what kills them are the repository's
own tests. Of every place one replacement is drawn, and of a module ``--sample`` places, both by the seed. Left out are
annotations (never evaluated, or checks of settings), f-strings (messages) and decorators. A process that has loaded
torch is forked for each mutant. A results file that is there is gone on with.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import Visitor, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PACKAGE = Path("src/tagmask")
LEFT_OUT = ("core/RemoveDecorator", "core/VariableReplacer", "core/VariableInserter", "core/ExceptionReplacer")
PRELOADED = (
    "numpy",
    "scipy.ndimage",
    "torch",
    "torchvision",
    "timm",
    "torchmetrics",
    "pydantic",
    "hypothesis",
    "pytest",
)


@dataclass(frozen=True)
class Mutant:
    """One change: cosmic-ray's operator, which of its places, line and column."""

    module: str
    operator: str
    occurrence: int
    line: int
    column: int

    @property
    def name(self) -> str:
        """Module, line, operator and place in one text."""
        return f"{self.module}:{self.line} {self.operator.removeprefix('core/')} {self.occurrence}"


class Places(Visitor):
    """Where an operator could change something."""

    def __init__(self, operator: object) -> None:
        self.operator, self.places = operator, []

    def visit(self, node: object) -> object:
        """Note the places of a node, change nothing."""
        self.places += list(self.operator.mutation_positions(node))
        return node


def without_effect(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Ranges of annotations, decorators and f-strings."""
    ranges = []
    for node in ast.walk(ast.parse(source)):
        parts = [
            getattr(node, "annotation", None),
            getattr(node, "returns", None),
            *getattr(node, "decorator_list", []),
        ]
        parts += [node] if isinstance(node, ast.JoinedStr) else []
        # Names of types (Tau = Literal[...] | None) are annotations that stand alone.
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id[:1].isupper():
            parts += [node.value] if not node.targets[0].id.isupper() else []
        for part in parts:
            if part is not None:
                ranges.append(((part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)))
    return ranges


def mutants_of(module: str, sample: int, seed: int) -> tuple[list[Mutant], int]:
    """A draw of a module's mutants, and how many places there are."""
    source = (REPOSITORY / PACKAGE / module).read_text(encoding="utf-8")
    ranges, tree = without_effect(source), get_ast(source)
    by_place: dict[tuple[object, ...], list[Mutant]] = {}
    for operator in sorted(operator_names()):
        if operator in LEFT_OUT:
            continue
        visitor = Places(get_operator(operator)())
        visitor.walk(tree)
        for occurrence, (start, end) in enumerate(visitor.places):
            if any(low <= start < high for low, high in ranges):
                continue
            family = operator.split("_")[0]
            by_place.setdefault((start, end, family), []).append(Mutant(module, operator, occurrence, *start))
    drawn = random.Random(f"{seed} {module}")
    places = sorted(by_place.items(), key=lambda item: str(item[0]))
    shuffled = [drawn.choice(options) for _, options in places]
    drawn.shuffle(shuffled)
    chosen: list[Mutant] = []
    for mutant in shuffled:
        if not sample or len(chosen) < sample:
            chosen += [mutant] if compiles(source, mutant) else []
    return sorted(chosen, key=lambda mutant: mutant.line), len(places)


def compiles(source: str, mutant: Mutant) -> bool:
    """False of what no test need be run for: no Python, or the star among parameters taken for a product."""
    if "BinaryOperator" in mutant.operator:
        place = mutant.line, mutant.column
        products = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.BinOp | ast.AugAssign))
        ranges = (((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)) for node in products)
        if not any(low <= place < high for low, high in ranges):
            return False
    try:
        ast.parse(mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence))
    except SyntaxError:
        return False
    return True


def copy_of_repository(folder: Path) -> Path:
    """Tracked and new files as they are, without what git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        if os.path.lexists(REPOSITORY / name):
            target = folder / "repository" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target, follow_symlinks=False)
    return folder / "repository"


class FirstFailure:
    """Writes the name of the first test that fails, or of the file that cannot be collected."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_runtest_logreport(self, report: object) -> None:
        """Of pytest."""
        self.note(report)

    def pytest_collectreport(self, report: object) -> None:
        """Of pytest."""
        self.note(report)

    def note(self, report: object) -> None:
        """The first alone."""
        if report.failed and not self.path.exists():
            self.path.write_text(report.nodeid, encoding="utf-8")


def run_tests(copy: Path, tests: Sequence[str], limit: float) -> tuple[str, float, str]:
    """'survived', 'killed' or 'killed (time)', seconds, the test that failed; in a fork that has not loaded tagmask."""
    failure = copy.parent / "failure.txt"
    failure.unlink(missing_ok=True)
    start = time.monotonic()
    process = os.fork()
    if process == 0:
        os.setsid()
        os.chdir(copy)
        sys.path.insert(0, str(copy / "src"))
        os.environ["PYTHONPATH"] = str(copy / "src")
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        import pytest

        code = 3
        try:
            options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
            code = int(pytest.main([*options, *tests], plugins=[FirstFailure(failure)]))
        finally:
            os._exit(code)
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            by = failure.read_text(encoding="utf-8") if failure.exists() else ""
            return ("survived" if code == 0 else "killed"), time.monotonic() - start, by
        if time.monotonic() - start > limit:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return "killed (time)", time.monotonic() - start, ""
        time.sleep(0.02)


def difference(old: str, new: str) -> str:
    """The lines that differ, old and new."""
    pairs = zip(old.splitlines(), new.splitlines(), strict=False)
    return next((f"{a.strip()}  ->  {b.strip()}" for a, b in pairs if a != b), "")


def trials(copy: Path, module: str, tests: Sequence[str], mutants: Sequence[Mutant]) -> Iterator[dict[str, object]]:
    """A record of every mutant of a module."""
    path = copy / PACKAGE / module
    original = path.read_text(encoding="utf-8")
    for mutant in mutants:
        changed = mutate_code(original, get_operator(mutant.operator)(), mutant.occurrence)
        assert changed is not None
        path.write_text(changed, encoding="utf-8")
        try:
            outcome, seconds, by = run_tests(copy, tests, 300)
        finally:
            path.write_text(original, encoding="utf-8")
        change = difference(original, changed)
        yield {
            "mutant": mutant.name, "module": module, "outcome": outcome, "by": by, "seconds": round(seconds, 1),
            "change": change,
        }  # fmt: skip


def check_tests(copy: Path, records: Sequence[dict[str, object]]) -> None:
    """Whatever killed a mutant must pass without one.

    Raises:
        SystemExit: it does not.
    """
    tests = sorted({str(record["by"]) for record in records if record.get("by")})
    if tests:
        outcome, _, by = run_tests(copy, tests, 1800)
        if outcome != "survived":
            raise SystemExit(f"{by or tests}: fails without any change; delete the records that it killed")


def named_trials(copy: Path) -> Iterator[dict[str, object]]:
    """A record of every change of named.toml; none where a test fails without any."""
    mutations = tomllib.loads((HERE / "named.toml").read_text(encoding="utf-8"))["mutation"]
    tests = sorted({test for mutation in mutations for test in mutation["tests"]})
    if run_tests(copy, tests, 600)[0] != "survived":
        raise SystemExit(f"tests fail without any change: {' '.join(tests)}")
    for mutation in mutations:
        path = copy / mutation["file"]
        original = path.read_text(encoding="utf-8")
        path.write_text(original.replace(mutation["old"], mutation["new"], 1), encoding="utf-8")
        try:
            outcome, took, _ = run_tests(copy, mutation["tests"], 300)
        finally:
            path.write_text(original, encoding="utf-8")
        yield {"outcome": outcome, "what": mutation["what"], "seconds": round(took, 1)}


def preload() -> None:
    """Load what all tests load, before the first fork."""
    sys.dont_write_bytecode = True  # two versions of a file may have one size within a second
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    for name in PRELOADED:
        __import__(name)


def table(records: Sequence[dict[str, object]], places: dict[str, int], explained: dict[str, str]) -> Iterator[str]:
    """Per module: places, drawn, killed; then the survivors."""
    yield "| module | places | drawn | killed |"
    yield "|---|---|---|---|"
    for module in dict.fromkeys(str(record["module"]) for record in records):
        own = [record for record in records if record["module"] == module]
        killed = sum(str(record["outcome"]).startswith("killed") for record in own)
        yield f"| `{module}` | {places.get(module, 0)} | {len(own)} | {killed} |"
    killed = sum(str(record["outcome"]).startswith("killed") for record in records)
    yield f"| all | {sum(places.values())} | {len(records)} | {killed} ({100 * killed / max(1, len(records)):.1f} %) |"
    for record in records:
        if record["outcome"] == "survived":
            reason = explained.get(str(record["change"]), "")
            yield f"survived: {record['mutant']}: {record['change']}{f' [{reason}]' if reason else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", default="", help="only modules whose path begins so; several with commas")
    parser.add_argument("--sample", type=int, default=12, help="mutants a module; 0: one at every place")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="JSON lines; records that are there are not made again")
    parser.add_argument("--named", action="store_true", help="the changes of named.toml instead")
    parser.add_argument("--list", action="store_true", help="count the mutants, run nothing")
    arguments = parser.parse_args()
    if arguments.named:
        preload()
        with tempfile.TemporaryDirectory() as folder:
            for record in named_trials(copy_of_repository(Path(folder))):
                print(record["outcome"], record["what"], f"{record['seconds']} s", flush=True)
        return
    settings = tomllib.loads((HERE / "modules.toml").read_text(encoding="utf-8"))
    chosen = {
        name: tests
        for name, tests in settings["modules"].items()
        if name.startswith(tuple(arguments.module.split(",")))
    }
    places: dict[str, int] = {}
    records: list[dict[str, object]] = []
    if arguments.results and arguments.results.exists():
        lines = arguments.results.read_text(encoding="utf-8").splitlines()
        records = [record for line in lines if (record := json.loads(line))["module"] in chosen]
    if arguments.list:
        places = {name: mutants_of(name, 0, arguments.seed)[1] for name in chosen}
    else:
        preload()
        done = {record["mutant"] for record in records}
        with tempfile.TemporaryDirectory() as folder:
            copy = copy_of_repository(Path(folder))
            for module, tests in chosen.items():
                drawn, places[module] = mutants_of(module, arguments.sample, arguments.seed)
                mutants = [mutant for mutant in drawn if mutant.name not in done]
                for record in trials(copy, module, tests, mutants):
                    records.append(record)
                    print(record["outcome"], record["mutant"], record["change"], f"{record['seconds']} s", flush=True)
                    if arguments.results:
                        with arguments.results.open("a", encoding="utf-8") as stream:
                            stream.write(json.dumps(record) + "\n")
            check_tests(copy, records)
    print("\n".join(table(records, places, settings.get("equivalent", {}))))


if __name__ == "__main__":
    main()
