from __future__ import annotations

from pathlib import Path

import pytest

from tagmask.progress.listeners import LineProgress, LogFile, SilentProgress, duration, printable, remaining_seconds


class Clock:
    """Seconds that pass only when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_lines_come_at_most_every_ten_seconds(clock: Clock) -> None:
    lines: list[str] = []
    progress = LineProgress(lines.append, clock=clock)
    progress.stage("classify", "new")
    progress.start("train", 100)
    for step in range(100):
        clock.now = step * 0.5  # 50 seconds
        progress.advance(loss=1 / (step + 1))
    progress.finish()
    assert lines[:2] == ["classify: new", "  train: 100 to do"]
    assert len(lines) == 2 + 4 + 1
    assert lines[2] == "  train: 21/100, loss 0.04762, 38 s left"
    assert lines[-1] == "  train: 100/100, loss 0.01, 50 s"


def test_a_resumed_task_says_so_and_judges_by_its_own_pace(clock: Clock) -> None:
    lines: list[str] = []
    progress = LineProgress(lines.append, clock=clock)
    progress.start("maps", 100, done=90)
    clock.now = 20.0
    progress.advance(2)
    assert lines == ["  maps: 100 to do, 90 already done", "  maps: 92/100, 1 min 20 s left"]


def test_control_characters_of_file_names_stay_off_the_terminal() -> None:
    lines: list[str] = []
    LineProgress(lines.append).warning("a\x1b[31m\nb\r.jpg skipped")
    assert lines == ["warning: a [31m b .jpg skipped"]
    assert printable("größe 图") == "größe 图"


def test_log_file_appends_with_the_time_and_passes_on(tmp_path: Path) -> None:
    shown: list[str] = []
    path = tmp_path / "log.txt"
    for text in ("first session", "second session"):
        LogFile(path, LineProgress(shown.append)).message(text)
    logged = path.read_text(encoding="utf-8").splitlines()
    assert shown == ["first session", "second session"]
    assert [line.split("  ", 1)[1] for line in logged] == shown
    assert all(line[:4].isdigit() for line in logged)


def test_a_log_that_cannot_be_written_is_said_once_and_harms_nothing(tmp_path: Path) -> None:
    shown: list[str] = []
    log = LogFile(tmp_path / "missing" / "log.txt", LineProgress(shown.append))
    log.message("one")
    log.message("two")
    assert [line for line in shown if not line.startswith("warning")] == ["one", "two"]
    assert sum("cannot write the log" in line for line in shown) == 1


def test_silent_progress_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    progress = SilentProgress()
    progress.stage("a", "b")
    progress.start("a", 2)
    progress.advance(loss=1.0)
    progress.finish()
    progress.message("a")
    progress.warning("a")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_nobody_knows_the_time_left_before_the_first_step() -> None:
    assert remaining_seconds(0, 10, 5.0) is None
    assert remaining_seconds(5, 10, 5.0) == 10.0
