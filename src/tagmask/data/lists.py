"""Lists with one entry a line: image ids, split lists, class lists. A name may hold blanks."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from tagmask.data.files import clean_name, without_suffix
from tagmask.data.text import read_text
from tagmask.errors import DataError

# What tools append to a name: labels (ImageSets/Main: '1', '-1') or a mask (deeplab: '/SegmentationClass/a.png').
_LABELS = re.compile(r"-?\d+(\s+-?\d+)*")
_MASK = re.compile(r"/.*|.*\.(png|bmp|tiff?|gif)", re.IGNORECASE)


def read_lines(path: Path, *, remedy: str = "Write one image id per line.") -> list[tuple[int, str]]:
    """Line numbers from 1 and lines of a list, without blanks around them; empty lines are passed over.

    Raises:
        DataError: missing, or no UTF-8 (or UTF-16) text; the message ends in ``remedy``.
    """
    try:
        text, odd_line = read_text(path)
    except FileNotFoundError as error:
        msg = f"{path}: no such list. {remedy}"
        raise DataError(msg) from error
    except OSError as error:
        msg = f"{path}: cannot be read as UTF-8 text ({error.strerror or error}). {remedy}"
        raise DataError(msg) from error
    if odd_line is not None:
        msg = f"{path}: cannot be read as UTF-8 text (line {odd_line} is in another encoding). {remedy}"
        raise DataError(msg)
    # StringIO ends lines at CR and LF alone; str.splitlines would also cut a name at U+2028 or U+0085.
    lines = enumerate((line.strip() for line in io.StringIO(text, newline=None)), start=1)
    return [(number, line) for number, line in lines if line]


def split_line(line: str, exists: Callable[[str], bool]) -> tuple[str, str]:
    """Name of the image and what else the line says.

    The longest beginning that is a name counts, so that neither 'my photo.jpg' nor 'my photo.jpg 1' is cut. Where
    none is, the line is a name, unless its first word has a suffix or labels behind it.
    """
    if exists(line):
        return line, ""
    for cut in reversed([place for place, character in enumerate(line) if character in " \t"]):
        name, more = line[:cut].rstrip(), line[cut:].strip()
        if (_LABELS.fullmatch(more) or _MASK.fullmatch(more)) and exists(name):
            return name, more
    first, *rest = line.split(None, 1)
    if rest and (_LABELS.fullmatch(rest[0]) or without_suffix(first) != first):
        return first, rest[0]
    return line, ""


def ascending(ids: Sequence[str]) -> list[int]:
    """Indices of the ids in ascending order, the numbers in them by their value: 'a9' comes before 'a10'."""

    def key(index: int) -> list[tuple[int, str]]:
        parts = re.split(r"([0-9]+)", ids[index])
        return [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(parts)]

    return sorted(range(len(ids)), key=key)


def match_ids(lines: Sequence[str], ids: Collection[str]) -> list[str]:
    """The ids that lines name, in their order and each once; a line that names none stays as it is.

    A name may have a suffix, backslashes, a leading './', and more behind it (see :func:`split_line`).
    """
    known = frozenset(ids)

    def id_of(name: str) -> str | None:
        if name in known:
            return name
        try:
            key = without_suffix(clean_name(name.lstrip("/")))
        except DataError:
            return None
        return key if key in known else None

    names = (split_line(line, lambda name: id_of(name) is not None)[0] for line in lines)
    return list(dict.fromkeys(id_of(name) or name for name in names))
