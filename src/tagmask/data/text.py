"""Text files of people, whatever program wrote them: UTF-8 with or without BOM, UTF-16 with BOM, else Latin-1."""

from __future__ import annotations

import codecs
from pathlib import Path


def read_text(path: Path) -> tuple[str, int | None]:
    """The text of a file, and the first line that is not UTF-8 where it had to be read as Latin-1 (else None).

    Raises:
        OSError: it cannot be read; the caller knows the remedy.
    """
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace"), None
    try:
        return content.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        return content.decode("latin-1"), content.count(b"\n", 0, error.start) + 1
