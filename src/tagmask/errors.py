"""Every error a user can cause. Each message names the file, the value and the remedy in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TagmaskError(Exception):
    """Base of all errors that tagmask raises on purpose; the CLI prints its message without a traceback."""

    exit_code = 1

    @property
    def lines(self) -> tuple[str, ...]:
        """The message, a line for each thing that is wrong."""
        return (str(self),)


class InputError(TagmaskError):
    """The user's input (recipe, data, arguments) is wrong; the CLI exits with 2."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe key or value is wrong."""


class MissingFilesError(InputError):
    """Files that a recipe names are not there; one line for each."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = tuple(lines)
        super().__init__("; ".join(self._lines))

    @property
    def lines(self) -> tuple[str, ...]:
        """See :attr:`TagmaskError.lines`."""
        return self._lines


class DataError(InputError):
    """A data source as a whole cannot be used."""


class UnknownNameError(InputError):
    """A name (method, class, split, column) does not exist; the message offers the nearest right one."""

    def __init__(self, what: str, name: str, choices: Iterable[str], where: str = "") -> None:
        self.name = name
        self.choices = sorted(choices)
        place = f"{where}: " if where else ""
        super().__init__(f"{place}unknown {what} '{name}'. {nearest(name, self.choices)}")


class UnreadableImageError(DataError):
    """One image cannot be read. Stages catch it, list the image in problems.jsonl and go on."""


class UnreadableMaskError(DataError):
    """One mask cannot be read or does not fit its image. Stages catch it, list it and go on."""


class RunError(TagmaskError):
    """A run cannot go on: disk full, output not writable, locked by another process, no image left."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return 'Did you mean X?' for a near miss, else the list of choices."""
    options = sorted(choices)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    if close:
        return f"Did you mean '{close[0]}'?"
    shown = ", ".join(options[:20]) + (" ..." if len(options) > 20 else "")
    return f"Known: {shown or 'none'}."
