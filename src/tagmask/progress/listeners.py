"""What a long computation tells the person who waits: a protocol, a silent and a line-by-line implementation.

Stages receive a :class:`Progress` and never learn where it goes. Nothing here knows a terminal library; the
CLI brings one that draws bars.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol

LINE_INTERVAL = 10.0  # seconds between two progress lines of one task


class Progress(Protocol):
    """One task at a time: ``stage``, then ``start``, ``advance`` ..., ``finish``, possibly several times."""

    def stage(self, name: str, reason: str) -> None:
        """A stage begins (or is skipped); ``reason`` says why: 'new', 'up to date', what changed."""

    def start(self, description: str, total: int, done: int = 0) -> None:
        """A task of ``total`` steps begins, ``done`` of them already made by an earlier session."""

    def advance(self, n: int = 1, **values: float) -> None:
        """``n`` more steps are done; ``values`` (loss=..., map=...) are shown beside the bar."""

    def finish(self) -> None:
        """The task begun last is over."""

    def message(self, text: str) -> None:
        """One line worth reading."""

    def warning(self, text: str) -> None:
        """One line that should not be missed; the run goes on."""


class SilentProgress:
    """Says nothing: the default in Python, and every rank but the first."""

    def stage(self, name: str, reason: str) -> None:
        """Say nothing."""

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Say nothing."""

    def advance(self, n: int = 1, **values: float) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""

    def warning(self, text: str) -> None:
        """Say nothing."""


class LineProgress:
    """Whole lines, no control characters, at most one every ``interval`` seconds between start and end."""

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        interval: float = LINE_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._interval = interval
        self._clock = clock
        self._description = ""
        self._total = self._done = self._first = 0
        self._start = self._last_line = 0.0
        self._values: dict[str, float] = {}

    def stage(self, name: str, reason: str) -> None:
        """Write 'name: reason'."""
        self._line(f"{name}: {reason}")

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Write the description and how much there is to do."""
        self._description, self._total, self._done, self._first = description, total, done, done
        self._start = self._last_line = self._clock()
        self._values = {}
        resumed = f", {done} already done" if done else ""
        self._line(f"  {description}: {total} to do{resumed}")

    def advance(self, n: int = 1, **values: float) -> None:
        """Count; write a line when the last one is old enough."""
        self._done += n
        self._values.update(values)
        now = self._clock()
        if now - self._last_line >= self._interval and self._done < self._total:
            self._last_line = now
            seconds = remaining_seconds(self._done - self._first, self._total - self._done, now - self._start)
            eta = f", {duration(seconds)} left" if seconds is not None else ""
            self._line(f"  {self._description}: {self._done}/{self._total}{self._value_text()}{eta}")

    def finish(self) -> None:
        """Write what was done and how long it took."""
        took = duration(self._clock() - self._start)
        self._line(f"  {self._description}: {self._done}/{self._total}{self._value_text()}, {took}")

    def message(self, text: str) -> None:
        """Write the text."""
        self._line(text)

    def warning(self, text: str) -> None:
        """Write the text, marked."""
        self._line(f"warning: {text}")

    def _value_text(self) -> str:
        return "".join(f", {text}" for text in value_texts(self._values))

    def _line(self, text: str) -> None:
        self._write(printable(text))


class LogFile:
    """Passes everything on to ``inner`` and appends it, with the time, to a log file.

    A log that cannot be written (disk full, read-only) never ends a run: it is reported once through
    ``inner`` and given up.
    """

    def __init__(self, path: Path, inner: Progress) -> None:
        self._path = path
        self._inner = inner
        self._broken = False
        self._lines = LineProgress(self._append)

    def stage(self, name: str, reason: str) -> None:
        """Log and pass on."""
        self._inner.stage(name, reason)
        self._lines.stage(name, reason)

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Log and pass on."""
        self._inner.start(description, total, done)
        self._lines.start(description, total, done)

    def advance(self, n: int = 1, **values: float) -> None:
        """Log (now and then) and pass on."""
        self._inner.advance(n, **values)
        self._lines.advance(n, **values)

    def finish(self) -> None:
        """Log and pass on."""
        self._inner.finish()
        self._lines.finish()

    def message(self, text: str) -> None:
        """Log and pass on."""
        self._inner.message(text)
        self._lines.message(text)

    def warning(self, text: str) -> None:
        """Log and pass on."""
        self._inner.warning(text)
        self._lines.warning(text)

    def _append(self, line: str) -> None:
        if self._broken:
            return
        stamp = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        try:
            # Opened per line: nothing stays open over hours, and a killed run loses no line.
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(f"{stamp}  {line}\n")
        except OSError as error:
            self._broken = True
            self._inner.warning(f"{self._path}: cannot write the log ({error.strerror or error}); going on without.")


def printable(text: str) -> str:
    """The text on one line without control characters (file names may hold any)."""
    return "".join(char if char.isprintable() else " " for char in text)


def value_texts(values: dict[str, float]) -> list[str]:
    """'name value' for each value, four significant digits."""
    return [f"{name} {value:.4g}" for name, value in values.items()]


def remaining_seconds(done: int, todo: int, elapsed: float) -> float | None:
    """Time to go at the pace so far, or None before the first step."""
    return elapsed / done * todo if done > 0 else None


def duration(seconds: float) -> str:
    """'8 s', '3 min 20 s', '2 h 05 min'."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
