"""The rim of every command: errors become one line on standard error and an exit code."""

from __future__ import annotations

import functools
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, ParamSpec

import typer

from tagmask.errors import TagmaskError

P = ParamSpec("P")

DEBUG_VARIABLE = "TAGMASK_DEBUG"
INTERRUPTED = 130


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command: exit 2 for bad input, 1 for a failure, 130 for Ctrl-C; no traceback without --debug."""

    @functools.wraps(command)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        warnings.showwarning = _show_warning
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except TagmaskError as error:
            _leave([f"error: {line}" for line in error.lines], error.exit_code, error)
        except KeyboardInterrupt:
            _say("interrupted; start the same command again to continue")
            raise SystemExit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of a pipe (head, less) has left: nobody wants a message. Python would complain
            # while closing standard output, so it is pointed elsewhere first.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except Exception as error:
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            _leave([f"internal error ({what}); run again with --debug for the details"], 1, error, rank=True)
        finally:
            _part_ranks()

    return call


_show_any = warnings.showwarning


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """A hint of ours in one line, without the place in the code; those of libraries as Python shows them."""
    if category.__module__.startswith("tagmask"):
        _say(f"note: {message}")
    else:
        _show_any(message, category, *place, **more)


def _part_ranks() -> None:
    """Join the threads that connect the ranks: left running, they now and then abort the interpreter's own exit."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def debugging() -> bool:
    """Whether tracebacks are wanted (--debug or TAGMASK_DEBUG=1)."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def _leave(lines: Sequence[str], code: int, error: Exception, *, rank: bool = False) -> NoReturn:
    if debugging():
        traceback.print_exception(error)
    for line in lines:
        _say(line, every_rank=rank)
    raise SystemExit(code) from None


def _say(message: str, *, every_rank: bool = False) -> None:
    from tagmask.cli.terminal import first_rank

    if first_rank():
        typer.echo(" ".join(message.split()), err=True)
    elif every_rank:
        # Bad input is the same on every rank and said once; a crash may happen on this one alone.
        typer.echo(
            f"rank {os.environ.get('RANK', os.environ.get('LOCAL_RANK', '?'))}: {' '.join(message.split())}", err=True
        )
