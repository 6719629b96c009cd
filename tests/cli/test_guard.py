"""Errors of every kind, through the real rim of a command."""

from __future__ import annotations

import pytest

from tagmask import cli
from tagmask.cli.guard import guarded
from tagmask.errors import InputError, RunError, TagmaskError


def _raise(error: BaseException) -> None:
    def command() -> None:
        raise error

    guarded(command)()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.yaml: unknown key 'x'"), 2, "error: a.yaml: unknown key 'x'\n"),
        (RunError("the disk\nis full"), 1, "error: the disk is full\n"),
        (KeyboardInterrupt(), 130, "interrupted; start the same command again to continue\n"),
        (
            ZeroDivisionError("by zero"),
            1,
            "internal error (ZeroDivisionError: by zero); run again with --debug for the details\n",
        ),
    ],
)
def test_errors_are_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        _raise(error)
    assert left.value.code == code
    assert capsys.readouterr() == ("", line)


def test_debug_shows_the_traceback_and_keeps_the_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAGMASK_DEBUG", "1")
    with pytest.raises(SystemExit) as left:
        _raise(InputError("bad"))
    assert left.value.code == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("error: bad\n")


def test_other_ranks_leave_bad_input_to_the_first_but_report_their_own_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    for error in (TagmaskError("seen by all"), ValueError("only here")):
        with pytest.raises(SystemExit):
            _raise(error)
    shown = capsys.readouterr().err
    assert "seen by all" not in shown
    assert "rank 1: internal error (ValueError: only here)" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["rnu", "demo"],
        ["run", "demo", "--no-such-option"],
        ["recipe", "shwo"],
        ["run"],
        ["run", "demo", "--devices", "0"],
    ],
)
def test_typos_in_commands_and_options_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2


@pytest.mark.parametrize("arguments", [["--help"], ["run", "-h"], ["recipe", "--help"], ["data", "check", "--help"]])
def test_help_exits_with_0(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 0
    assert "Usage: tagmask" in capsys.readouterr().out


def test_debug_may_stand_anywhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TAGMASK_DEBUG", "0")
    with pytest.raises(SystemExit) as left:
        cli.main(["recipe", "show", "no-such-recipe", "--debug"])
    assert left.value.code == 2
    assert "Traceback" in capsys.readouterr().err
