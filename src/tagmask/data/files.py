"""The files of an image folder: listed once per directory, found by name with or without suffix.

Loading a source never opens an image; it lists directories and reads file sizes, nothing else.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from tagmask.errors import DataError
from tagmask.types import Problem

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2", ".heic", ".heif",
)  # fmt: skip
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")  # no JPEG: its values bleed into each other


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file: its place, its name relative to the folder ('/' between parts, NFC), its size in bytes."""

    path: Path
    relative: str
    n_bytes: int

    @property
    def id(self) -> str:
        """Relative name without its image suffix."""
        return without_suffix(self.relative)

    def id_below(self, root: Path) -> str:
        """Path below another folder without suffix; the id itself where the file lies elsewhere."""
        if not self.path.is_relative_to(root):
            return self.id
        return without_suffix(unicodedata.normalize("NFC", self.path.relative_to(root).as_posix()))


def without_suffix(name: str) -> str:
    """Drop a known image suffix only, so that 'v1.5_cow' keeps its dot."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def files_below(
    folder: Path, *, without: Iterable[Path] = (), suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> list[Path]:
    """Files of a folder and of all folders inside, sorted; hidden ones are left out.

    Args:
        folder: where to look.
        without: folders inside whose files do not count, such as those that the command writes to.
        suffixes: which files; images by default.
    """
    here = folder.resolve()
    others = [place for place in (other.resolve() for other in without) if here in place.parents]
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and all(map(is_visible, path.relative_to(folder).parts))
        and path.is_file()
        and not any(path.resolve().is_relative_to(other) for other in others)
    )


def has_image_suffix(name: str) -> bool:
    """Whether a name ends as those of images do."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def clean_name(name: str) -> str:
    """Clean a relative name: '/' between parts, no '.', NFC.

    Raises:
        DataError: empty, absolute, with '..' (such a name could leave its folder), or with a NUL, which no name has.
    """
    text = unicodedata.normalize("NFC", name.strip()).replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts:
        msg = "the file name is empty"
        raise DataError(msg)
    if "\0" in text:
        msg = f"{name[:100]!r} is no file name"
        raise DataError(msg)
    if text.startswith("/") or ".." in parts or (":" in text and PureWindowsPath(text).drive):
        msg = f"'{name}' points outside the folder. Write file names relative to the folder, without '..'"
        raise DataError(msg)
    return "/".join(parts)


@dataclass(frozen=True, slots=True)
class _Listing:
    files: dict[str, os.DirEntry[str]]
    stems: dict[str, str]
    folders: tuple[str, ...]


class ImageFolder:
    """Lookup in one folder tree. Each directory is read once, when first asked for.

    Args:
        root: the folder; it need not exist, then nothing is found.
        suffixes: which files count, in order of preference when a name is given without suffix.
    """

    def __init__(self, root: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> None:
        self.root = root
        self.suffixes = suffixes
        self._listings: dict[str, _Listing] = {}

    def find(self, name: str) -> ImageFile:
        """The file called ``name``, with or without suffix.

        Raises:
            DataError: no such file below the folder, or the name points outside; its text is the reason.
        """
        relative = clean_name(name)
        directory, _, base = relative.rpartition("/")
        listing = self._list(directory)
        actual = base if base in listing.files else listing.stems.get(base)
        if actual is None:
            msg = f"no file '{name}' in {self.root}"
            raise DataError(msg)
        return _image_file(directory, actual, listing.files[actual])

    def path_of(self, name: str) -> Path | None:
        """Path of the file called ``name``, None when there is none."""
        try:
            return self.find(name).path
        except DataError:
            return None

    def walk(self, problems: list[Problem]) -> Iterator[ImageFile]:
        """Every image below the folder in a fixed order; hidden files and folders are left out.

        Links that lead nowhere are added to ``problems``.
        """
        seen: set[tuple[int, int]] = set()
        pending = [""] if self.root.is_dir() else []
        while pending:
            directory = pending.pop()
            status = self._place(directory).stat()
            # Links may point to other disks (they are followed) or back up (then this ends it).
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            listing = self._list(directory)
            pending.extend(_join(directory, name) for name in reversed(listing.folders))
            for base in sorted(listing.files):
                if is_visible(base) and os.path.splitext(base)[1].lower() in self.suffixes:
                    try:
                        file = _image_file(directory, base, listing.files[base])
                    except DataError as error:
                        problems.append(Problem("data", _join(directory, base), listing.files[base].path, str(error)))
                    else:
                        yield file

    def _place(self, directory: str) -> Path:
        """The folder on disk: names are kept composed (NFC), macOS may have stored them decomposed."""
        place = self.root / directory
        decomposed = self.root / unicodedata.normalize("NFD", directory)
        return decomposed if not os.path.isdir(place) and os.path.isdir(decomposed) else place

    def _list(self, directory: str) -> _Listing:
        if directory not in self._listings:
            files: dict[str, os.DirEntry[str]] = {}
            folders: list[str] = []
            try:
                with os.scandir(self._place(directory)) as entries:
                    for entry in entries:
                        name = unicodedata.normalize("NFC", entry.name)
                        if not entry.is_dir():
                            files[name] = entry
                        elif is_visible(name):
                            folders.append(name)
            except (FileNotFoundError, NotADirectoryError):
                files = {}  # a missing folder holds no file; the caller names the file it looked for
            except OSError as error:
                msg = f"{self.root / directory}: cannot be listed ({error.strerror or error})"
                raise DataError(msg) from error
            self._listings[directory] = _Listing(files, self._by_stem(files), tuple(sorted(folders)))
        return self._listings[directory]

    def _by_stem(self, names: Iterable[str]) -> dict[str, str]:
        rank = {suffix: place for place, suffix in enumerate(self.suffixes)}
        stems: dict[str, str] = {}
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in rank:
                continue
            taken = stems.get(stem)
            if taken is None or rank[suffix.lower()] < rank[os.path.splitext(taken)[1].lower()]:
                stems[stem] = name
        return stems


def _image_file(directory: str, base: str, entry: os.DirEntry[str]) -> ImageFile:
    try:
        n_bytes = entry.stat().st_size
    except OSError as error:
        msg = f"'{entry.path}' cannot be read ({error.strerror or error})"
        raise DataError(msg) from error
    return ImageFile(Path(entry.path), _join(directory, base), n_bytes)


def _join(directory: str, name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    return f"{directory}/{name}" if directory else name


def is_visible(name: str) -> bool:
    """Whether a file or folder is meant to be seen: not hidden, and none of macOS's copies of attributes."""
    return not name.startswith(".") and name != "__MACOSX"
