"""What the person at the terminal sees: bars with the time left, or plain lines when nobody looks.

Progress goes to standard error, results to standard output, so that results can be piped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichBars
from rich.table import Table
from rich.text import Text

from tagmask.progress.listeners import LineProgress, Progress, SilentProgress, printable, value_texts

_PIPE_WIDTH = 120  # columns of a table that goes into a file or a pipe


def first_rank() -> bool:
    """Whether this process is the one that talks (torchrun, Fabric and SLURM number the others)."""
    for variable in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if variable in os.environ:
            return os.environ[variable] == "0"
    return True


@contextmanager
def terminal_progress(*, plain: bool = False) -> Iterator[Progress]:
    """Progress on standard error for the time of the block: bars, plain lines, or nothing on other ranks."""
    if not first_rank():
        yield SilentProgress()
    elif plain or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield LineProgress(_write_line)
    else:
        bars = BarProgress(Console(stderr=True))
        try:
            yield bars
        finally:
            bars.close()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Write a table to standard output; every column but the first is aligned right when all are numbers."""
    if not first_rank():
        return
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    table = Table(
        title=escape(title) or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    for index, name in enumerate(columns):
        numbers = all(_is_number(row[index]) for row in rows)
        table.add_column(escape(name), justify="right" if index and numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)


class BarProgress:
    """Rich bars: one per task, with the time left and the latest values."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: RichBars | None = None
        self._task: TaskID | None = None
        self._values: dict[str, float] = {}

    def stage(self, name: str, reason: str) -> None:
        """A line with the stage in bold."""
        self._console.print(Text.assemble((name, "bold"), ": ", printable(reason)))

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Show a new bar; one that is still running is closed first."""
        self.close()
        self._values = {}
        self._bars = RichBars(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}", style="dim"),
            console=self._console,
        )
        self._bars.start()
        self._task = self._bars.add_task(escape(printable(description)), total=total, completed=done, values="")

    def advance(self, n: int = 1, **values: float) -> None:
        """Move the bar."""
        if self._bars is not None and self._task is not None:
            self._values.update(values)
            self._bars.update(self._task, advance=n, values="  ".join(value_texts(self._values)))

    def finish(self) -> None:
        """Leave the bar as it is and go on below it."""
        self.close()

    def message(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(Text(printable(text)))

    def warning(self, text: str) -> None:
        """A yellow line above the bar."""
        self._console.print(Text(f"warning: {printable(text)}", style="yellow"))

    def close(self) -> None:
        """Stop drawing and give the cursor back; called also when the block ends in an error."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = self._task = None


def _write_line(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _is_number(cell: str) -> bool:
    return cell in ("", "n/a") or cell.strip("-–%± .0123456789") == ""
