"""Files of a run: names that are safe everywhere, and writes that happen whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from tagmask.errors import RunError

_LONGEST_NAME = 150
TEMPORARY_PREFIX = ".tmp-"


def artifact_name(sample_id: str) -> str:
    """File name for a sample id: safe on every file system, inside its folder, unique.

    Everything but letters, digits, '-', '_' and '.' is percent-encoded ('/' too, so no id can leave its
    folder); long names keep a readable head and end in a hash.
    """
    name = quote(sample_id, safe="", errors="surrogateescape")  # a Linux file name need not be Unicode
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(sample_id.encode(errors="surrogateescape")).hexdigest()[:16]
        name = f"{name[:_LONGEST_NAME]}~{digest}"
    return name


def user_cache() -> Path:
    """Where what can be made again is kept between runs: ``$XDG_CACHE_HOME``, else ``~/.cache``."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    return Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"


@contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``; it takes the name only when the block ends well.

    Raises:
        RunError: disk full or folder not writable; says which path and what to do.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY_PREFIX)
        encoding = None if "b" in mode else "utf-8"
        with os.fdopen(handle, mode, encoding=encoding) as stream:
            yield stream
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise write_error(path, error) from error
    except RuntimeError as error:  # torch's archive writer fails once more while it closes
        if isinstance(error.__context__, OSError):
            raise write_error(path, error.__context__) from error
        raise
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_error(path: Path, error: OSError) -> RunError:
    """Translate an OSError of writing into one line with the remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(
            f"{path}: the disk is full. Free some space and start the same command again; "
            "the run goes on where it stopped."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RunError(f"{path}: cannot write here ({error.strerror}). Choose another folder with --output DIR.")
    return RunError(f"{path}: cannot write ({error.strerror or error}).")


def link_or_copy(source: str, target: str) -> None:
    """A hard link, or a copy where the file system knows no links between the two places."""
    try:
        os.link(source, target)
    except OSError:  # other file system, or links not supported
        shutil.copy2(source, target)
