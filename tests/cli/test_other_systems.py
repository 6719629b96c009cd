"""What other systems lack: no module of POSIX alone is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "resource", "pwd", "grp", "termios"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Block())
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules.pop(name, None)
from tagmask.cli import main
main()
"""


def test_a_run_without_the_modules_of_posix(tmp_path: Path) -> None:
    recipe = Path(__file__).parent / "tiny.yaml"
    command = (
        "run",
        recipe,
        "data.train=8",
        "data.val=2",
        "--until",
        "classify",
        "--plain",
        "--output",
        tmp_path / "run",
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for arguments in (command, ("status", tmp_path / "run")):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert "classify" in done.stdout
