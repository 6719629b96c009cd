"""Images by the names that tables and annotation files give them, which are seldom quite those on the disk.

A file called exactly so always wins. Else a name may have folders in front that are not here (the table was written on
another machine), lack the sub-folders, or differ in case, suffix or leading zeros. It is taken when exactly one file
fits, and never when two names would mean one file: a wrong tag is worse than a missing image.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tagmask.data.files import ImageFile, ImageFolder, clean_name, has_image_suffix, without_suffix
from tagmask.errors import DataError
from tagmask.types import Problem

_SHOWN = 3
_DRIVE = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True)
class Matches:
    """``files`` by name; ``reasons`` why a name has none; ``renamed``: names that are not quite those on the disk."""

    files: dict[str, ImageFile]
    reasons: dict[str, str]
    renamed: dict[str, str] = field(default_factory=dict)

    def problems(self, where: Path) -> list[Problem]:
        """One line on all names that differ from those on the disk."""
        if not self.renamed:
            return []
        name, place = next(iter(self.renamed.items()))
        count = len(self.renamed)
        some = "1 name differs from its file's" if count == 1 else f"{count} names differ from those of the files"
        reason = f"{some} and {'is' if count == 1 else 'are'} read as theirs: '{name}' as '{place}'"
        return [Problem("data", "", str(where), reason, left_out=False)]


class ImageLookup:
    """Lookup in several folders, the likeliest first.

    Args:
        folders: where to look.
        without: folders whose pictures are no images (masks).
    """

    def __init__(self, folders: Sequence[ImageFolder], without: Sequence[Path] = ()) -> None:
        self.folders = folders
        self.without = without
        self._indices: dict[Path, _Index] = {}
        self._places = [(folder, tuple({folder.root.absolute(), folder.root.resolve()})) for folder in folders]

    def is_image(self, name: str) -> bool:
        """Whether a text names an image: by its suffix, or because a file is called so. No folder is walked."""
        return has_image_suffix(name) or self._exact(name) is not None

    def match(self, names: Iterable[str]) -> Matches:
        """Files of many names at once; only so can two names that mean one file be told."""
        return _matches(names, self._exact, self._loose)

    def _exact(self, name: str) -> ImageFile | None:
        for folder, places in self._places:
            try:
                return folder.find(_below(name, places))
            except DataError:
                continue
        return None

    def _loose(self, name: str) -> ImageFile:
        """The only file that a name may mean.

        Raises:
            DataError: none, or several; its text is the reason.
        """
        parts = _parts(name)
        if ".." in parts or not parts:
            clean_name(name)  # says what is wrong
            msg = f"'{name}' points outside the folder. Write file names relative to the folder, without '..'"
            raise DataError(msg)
        for folder in self.folders:
            if folder.root not in self._indices:
                files = folder.walk([])
                self._indices[folder.root] = _Index(
                    file for file in files if not any(file.path.is_relative_to(other) for other in self.without)
                )
            file = self._indices[folder.root].find(name, parts)
            if file is not None:
                return file
        first = self.folders[0].root
        if _is_absolute(name):
            msg = f"'{name}' points outside the folder {first}, and no file in it is called so"
            raise DataError(msg)
        near = next((hint for hint in (self._indices[f.root].near(parts) for f in self.folders) if hint), "")
        msg = f"no file '{name}' in {self.folders[-1].root}{near}"
        raise DataError(msg)


def match_files(names: Iterable[str], files: Sequence[ImageFile]) -> Matches:
    """As :meth:`ImageLookup.match`, of files that are known already instead of folders."""
    index = _Index(files)
    by_name = {name: file for file in reversed(files) for name in (file.relative, file.id)}

    def loose(name: str) -> ImageFile:
        parts = _parts(name)
        file = index.find(name, parts) if parts else None
        if file is None:
            msg = f"'{name}' is none of the {len(files)} images"
            raise DataError(msg)
        return file

    return _matches(names, by_name.get, loose)


def _matches(
    names: Iterable[str], exact: Callable[[str], ImageFile | None], loose: Callable[[str], ImageFile]
) -> Matches:
    """Files of names: those called so, else what ``loose`` takes (it raises DataError), unless two would be one."""
    matches = Matches({}, {})
    aliases_of: dict[Path, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        file = exact(name)
        if file is None:
            try:
                file = loose(name)
            except DataError as error:
                matches.reasons[name] = str(error)
                continue
            aliases_of[file.path].append(name)
            matches.renamed[name] = file.relative
        matches.files[name] = file
    taken = {file.path for name, file in matches.files.items() if name not in matches.renamed}
    for path, aliases in aliases_of.items():
        if len({_parts(name) for name in aliases}) + (path in taken) > 1:
            for name in aliases:
                file = matches.files.pop(name)
                del matches.renamed[name]
                other = next((alias for alias in aliases if alias != name), file.relative)
                matches.reasons[name] = f"'{name}' and '{other}' would both be {file.relative}. Correct the names"
    return matches


class _Index:
    """Images by the last part of their names, without case and suffix."""

    def __init__(self, files: Iterable[ImageFile]) -> None:
        self.by_base: dict[str, list[ImageFile]] = defaultdict(list)
        for file in files:
            self.by_base[_key(file.relative.rpartition("/")[2])].append(file)

    def find(self, name: str, parts: tuple[str, ...]) -> ImageFile | None:
        """The only file whose path ends in the name, or that the name ends in.

        Raises:
            DataError: there are several.
        """
        keys = _keys(parts)
        nearest: dict[int, list[ImageFile]] = defaultdict(list)
        for file in self.by_base.get(keys[-1], ()):
            place = _keys(file.relative.split("/"))
            length = min(len(place), len(keys))
            if place[-length:] == keys[-length:]:
                nearest[length].append(file)
        if not nearest:
            return None
        files = nearest[max(nearest)]
        for closer in (_same_case, _same_suffix):
            files = [file for file in files if closer(file, parts)] or files
        if len(files) > 1:
            shown = ", ".join(file.relative for file in files[:_SHOWN])
            msg = f"'{name}' may be {len(files)} files ({shown}): write the folder in front, and the suffix"
            raise DataError(msg)
        return files[0]

    def near(self, parts: tuple[str, ...]) -> str:
        """What else is called so, in other folders than the name says."""
        files = self.by_base.get(_key(parts[-1]), ())
        return f" (but there is {files[0].relative})" if files else ""


def _same_case(file: ImageFile, parts: tuple[str, ...]) -> bool:
    return without_suffix(file.relative.rpartition("/")[2]) == without_suffix(parts[-1])


def _same_suffix(file: ImageFile, parts: tuple[str, ...]) -> bool:
    return os.path.splitext(file.relative)[1].lower() == os.path.splitext(parts[-1])[1].lower()


def _keys(parts: Sequence[str]) -> list[str]:
    return [*(part.casefold() for part in parts[:-1]), _key(parts[-1])]


def _key(name: str) -> str:
    """A file's name as it is compared: no suffix, no case, and numbers without leading zeros (Excel drops them)."""
    stem = without_suffix(name).casefold()
    return (stem.lstrip("0") or "0") if stem.isdecimal() else stem


def _parts(name: str) -> tuple[str, ...]:
    text = unicodedata.normalize("NFC", name.strip()).replace("\\", "/")
    text = _DRIVE.sub("", text)
    return tuple(part for part in text.split("/") if part not in ("", "."))


def _is_absolute(name: str) -> bool:
    return name.startswith(("/", "\\")) or _DRIVE.match(name) is not None


def _below(name: str, places: Iterable[Path]) -> str:
    """An absolute name inside a folder as a relative one; any other as it is."""
    if not os.path.isabs(name):
        return name
    path = Path(name)
    place = next((place for place in places if path.is_relative_to(place)), None)
    return name if place is None else path.relative_to(place).as_posix()
