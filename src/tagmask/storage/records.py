"""JSON and JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tagmask.errors import RunError
from tagmask.storage.files import atomic_write


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: sorted as given, UTF-8, NaN not allowed."""
    with atomic_write(path, "w") as stream:
        stream.write(json_text(value, indent=1) + "\n")


def json_text(value: Any, indent: int | None = None) -> str:
    """Readable JSON; escapes only where a text (a file name, say) is not valid Unicode."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, allow_nan=False)
    return text


def read_json(path: Path) -> Any:
    """Read a JSON artifact; a broken one is a RunError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read as JSON ({error}). Delete it to make it again."
        raise RunError(msg) from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Lines of a JSON-lines file; a torn last line (killed while appending) is dropped."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
