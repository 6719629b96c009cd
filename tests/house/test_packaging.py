"""What is installed: pinned versions that fit the requirements, and a wheel with everything in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    with (root / "pyproject.toml").open("rb") as stream:
        return dict(tomllib.load(stream)["project"])


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    wrong = [line for line in kept if not re.fullmatch(r"[\w.-]+==[\w.!+-]+", line)]
    assert wrong == [], "constraints are 'name==version' only: no index, no address, no option"
    pairs = [line.split("==") for line in kept]
    found = {canonicalize_name(name): version for name, version in pairs}
    assert len(found) == len(pairs), "a name is pinned twice"
    return found


def test_every_requirement_is_pinned_to_a_version_that_fits(project: dict[str, Any], pins: dict[str, str]) -> None:
    texts = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    for requirement in map(Requirement, texts):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(version), f"{requirement} does not allow {version}"
        assert "+" not in version, f"{requirement.name}: a local version exists on one index only"


def test_only_plain_sources(root: Path) -> None:
    for name in ("Makefile", "constraints.txt", "pyproject.toml", ".ci/run"):
        text = (root / name).read_text(encoding="utf-8")
        for word in ("index-url", "find-links", "trusted-host", "://"):
            assert word not in text, f"{name} names a place to install from: {word}"


def test_the_wheel_holds_code_types_licence_recipes_and_templates(root: Path, tmp_path: Path) -> None:
    if find_spec("setuptools") is None:
        pytest.skip("needs setuptools to build a wheel")
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tree)
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "recipes"):
        shutil.copytree(root / name, tree / name, symlinks=True, ignore=leave)
    build = "from setuptools.build_meta import build_wheel; build_wheel('out')"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True)
    (wheel,) = (tree / "out").glob("tagmask-*.whl")
    with zipfile.ZipFile(wheel) as stored:
        names = set(stored.namelist())
    expected = {
        path.relative_to(root / "src").as_posix()
        for pattern in ("*.py", "py.typed")
        for path in (root / "src" / "tagmask").rglob(pattern)
    }
    expected |= {f"tagmask/{path.relative_to(root).as_posix()}" for path in root.glob("recipes/**/*.yaml")}
    templates = root / "src" / "tagmask" / "report" / "templates"
    expected |= {path.relative_to(root / "src").as_posix() for path in templates.iterdir()}
    assert expected - names == set()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests", "docs", "benchmarks")) for name in names)


def test_supported_pythons_are_named_alike(project: dict[str, Any], root: Path) -> None:
    classifiers = {text.rpartition(" ")[2] for text in project["classifiers"] if "Python :: 3." in text}
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    assert project["requires-python"] == ">=3.11,<3.14"
    assert classifiers == {"3.11", "3.12", "3.13"}
    assert all(f"python{version}" in makefile for version in classifiers)
