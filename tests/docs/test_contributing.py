"""The worked example of CONTRIBUTING: a package with a head and a localizer, installed, and run on tiny data."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    (text,) = [text for text in blocks if containing in text]
    return str(text)


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that has the package as pip would have left it."""
    site = tmp_path / "site"
    info = site / "lse_cam-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "lse_cam.py").write_text(block("python", "class RivalCam"), encoding="utf-8")
    points = tomllib.loads(block("toml", "rival_cam"))["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items()) for group, named in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lse-cam\nVersion: 1.0\n", encoding="utf-8")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)]), "COLUMNS": "200"}


def tagmask(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tagmask", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_example_is_short() -> None:
    assert len((block("python", "class RivalCam") + block("toml", "rival_cam")).splitlines()) < 60


def test_an_installed_package_brings_its_methods(
    installed: dict[str, str], short: dict[str, Any], tmp_path: Path
) -> None:
    listed = tagmask(installed, "methods").stdout
    assert re.search(r"^head +lse +from lse-cam", listed, flags=re.M), listed
    assert re.search(r"^localizer +rival_cam +from lse-cam", listed, flags=re.M), listed

    (tmp_path / "recipe.yaml").write_text(json.dumps({**short, "segment": None}), encoding="utf-8")
    (command,) = re.findall(r"^tagmask run demo (classify.head=lse .*)", PAGE.read_text(encoding="utf-8"), flags=re.M)
    overrides = shlex.split(command)
    run = tmp_path / "run"
    done = tagmask(installed, "run", str(tmp_path / "recipe.yaml"), *overrides, "--output", str(run), "--plain")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["stages"]
    assert manifest["classify"]["settings"]["settings"]["head"] == {"name": "lse", "sharpness": 4.0}
    assert manifest["localize"]["settings"]["settings"]["share"] == 0.5
    assert len(list((run / "localize" / "maps").glob("*.npz"))) == 16

    wrong = tagmask(installed, "run", str(run), "localize.shar=1", "--plain")
    assert wrong.returncode == 2
    assert "Did you mean 'share'" in wrong.stderr

    polished = tagmask(installed, "run", str(run), "localize={name: ssa, inner: rival_cam}", "--until", "localize")
    assert polished.returncode == 0, polished.stderr
    assert "localize: changed: name rival_cam -> ssa" in polished.stderr
    refused = tagmask(installed, "run", str(run), "localize={name: advcam, inner: rival_cam}")
    assert refused.returncode == 2
    assert "advcam climbs the response of a linear view method" in refused.stderr
