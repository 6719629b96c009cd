"""Text files of people, whatever program wrote them: UTF-8 with or without BOM, UTF-16, else Latin-1."""

from __future__ import annotations

import codecs
from pathlib import Path

_HEAD = 4096


def read_text(path: Path) -> tuple[str, int | None]:
    """The text of a file, and the first line that is not UTF-8 where it had to be read as Latin-1 (else None).

    Raises:
        OSError: it cannot be read; the caller knows the remedy.
    """
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace"), None
    head = content[:_HEAD]
    nulls = head[1::2].count(0), head[0::2].count(0)
    if 4 * max(nulls) > len(head):  # UTF-16 without a mark: every other byte of plain letters is 0
        return content.decode("utf-16-le" if nulls[0] > nulls[1] else "utf-16-be", errors="replace"), None
    try:
        return content.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        return content.decode("latin-1"), content.count(b"\n", 0, error.start) + 1
