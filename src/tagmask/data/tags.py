"""Class lists and tags: names on the user's side, mask labels on ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tagmask.data.lists import read_lines
from tagmask.errors import DataError, UnknownNameError, nearest
from tagmask.types import ClassList, Problem

#: Names that mean "no object" wherever a class or tag is expected.
BACKGROUND_NAMES = frozenset({"background", "_background_", "__background__", "bg", "none"})
_NO_CLASS = "__ignore__"


def is_background(name: str) -> bool:
    """Whether a name says "no object"."""
    return name.strip().casefold() in BACKGROUND_NAMES


def make_classes(names: Sequence[str], where: str) -> ClassList:
    """A class list; the background is put in front unless the first name already says so.

    Raises:
        DataError: fewer than one class, more than 254, or a name twice; ``where`` names the place.
    """
    classes = [name.strip() for name in names if name.strip() and name.strip() != _NO_CLASS]
    if not classes or not is_background(classes[0]):
        classes.insert(0, "background")
    try:
        return ClassList(tuple(classes))
    except DataError as error:
        msg = f"{where}: {error}"
        raise DataError(msg) from error


def read_classes(path: Path) -> ClassList:
    """Read a class list file: one name per line, line number - 1 = mask label.

    Raises:
        DataError: missing, not UTF-8, or an impossible list.
    """
    lines = read_lines(path, remedy="Correct data.classes, or write one class name per line there.")
    return make_classes([line for _, line in lines], str(path))


def joined_names(names: Collection[str]) -> tuple[str, str] | None:
    """A class name that seems to be several tags, and the separator between them; None where all names look single.

    Commas, semicolons and bars are taken for separators wherever they stand; blanks, slashes and the like only where
    the parts are tags themselves or come back in other names ('cow dog' beside 'dog', but not 'traffic light').
    """
    for separator in ",;|":
        for name in names:
            if len(_parts(name, separator)) > 1:
                return name, separator
    for separator in "/+& ":
        by_name = {name: _parts(name, separator) for name in names}
        times = Counter(part for parts in by_name.values() for part in set(parts))
        lengths = {len(parts) for parts in by_name.values() if len(parts) > 1}
        joined = [name for name, parts in by_name.items() if len(parts) > 1]
        fitting = [
            name
            for name in joined
            if all(times[part] > 1 for part in by_name[name])
            and (len(lengths) > 1 or any(part in by_name for part in by_name[name]))
        ]
        if fitting and 2 * len(fitting) >= len(joined):
            return fitting[0], separator
    return None


def _parts(name: str, separator: str) -> list[str]:
    return [part.strip() for part in name.split(separator) if part.strip()]


def joined_hint(names: Collection[str]) -> str:
    """One line with the setting that splits tags which stand joined; empty where none do."""
    example = joined_names(names)
    if example is None:
        return ""
    name, separator = example
    return f"class name '{name}' looks like several tags: is data.separator right? Try data.separator='{separator}'"


@dataclass(slots=True)
class TagResolver:
    """Tag names to sorted mask labels. An unknown tag costs the tag, not the image, and is listed."""

    classes: ClassList
    where: str
    problems: list[Problem] = field(default_factory=list)
    _labels: dict[str, int] = field(init=False)
    _advice: dict[str, str] = field(init=False, default_factory=dict)
    _tagged: int = field(init=False, default=0)
    _understood: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._labels = {name: label for label, name in enumerate(self.classes.names)}

    def resolve(self, names: Iterable[str], sample_id: str, path: str) -> tuple[int, ...]:
        """Labels 1..C, ascending, each once; names of the background and empty names are no tag."""
        labels: set[int] = set()
        tagged = understood = False
        for name in names:
            label = self._labels.get(name)
            if label is None and (not name or is_background(name)):
                continue
            if label == 0:
                continue
            tagged = True
            if label is None:
                self.problems.append(Problem("data", sample_id, path, self._reason(name)))
            else:
                understood = True
                labels.add(label)
        self._tagged += tagged
        self._understood += understood
        return tuple(sorted(labels))

    def check(self) -> None:
        """Raise UnknownNameError when there were tags and not a single one was known."""
        if self._tagged and not self._understood:
            first = next(iter(self._advice))
            raise UnknownNameError("tag", first, self.classes.foreground, f"{self.where}: not one tag is known:")

    def _reason(self, name: str) -> str:
        if name not in self._advice:
            self._advice[name] = nearest(name, self.classes.foreground)
        return f"unknown tag '{name}' left out. {self._advice[name]} Correct it or add it to the class list."
