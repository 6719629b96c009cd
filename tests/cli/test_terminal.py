from __future__ import annotations

import io

import pytest
from rich.console import Console

from tagmask.cli.terminal import BarProgress, first_rank, print_table, terminal_progress
from tagmask.progress.listeners import LineProgress, SilentProgress


def test_no_terminal_gives_lines_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal_progress() as progress:
        assert isinstance(progress, LineProgress)
        progress.start("train", 2)
        progress.advance(2, loss=0.5)
        progress.finish()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["  train: 2 to do", "  train: 2/2, loss 0.5, 0 s"]


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_other_ranks_are_silent(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert first_rank()
    monkeypatch.setenv(variable, "1")
    assert not first_rank()
    print_table(("a",), [("1",)])
    with terminal_progress() as progress:
        assert isinstance(progress, SilentProgress)
    assert capsys.readouterr().out == ""


def test_bars_show_figures_and_survive_markup_in_names() -> None:
    screen = io.StringIO()
    bars = BarProgress(Console(file=screen, force_terminal=True, width=120))
    bars.stage("classify", "[red]new")
    bars.start("train [b]", 4, done=1)
    bars.advance(loss=0.25)
    bars.warning("[x] skipped")
    bars.finish()
    bars.close()
    shown = screen.getvalue()
    for text in ("classify", "[red]new", "train [b]", "2/4", "loss 0.25", "warning: [x] skipped"):
        assert text in shown
    assert "\x1b[?25h" in shown, "the cursor must come back"


def test_tables_keep_brackets_and_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "mIoU"), [("a[b]", "1.0"), ("long " * 10, "–")], title="runs/[x]")
    shown = capsys.readouterr().out
    assert "a[b]" in shown
    assert "runs/[x]" in shown
    assert "\x1b" not in shown
