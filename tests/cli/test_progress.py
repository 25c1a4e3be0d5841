"""What a terminal and a log show of a run: totals, the time left, what is waited for, and the time of day."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cryoplug.cli.output import say
from cryoplug.cli.progress import file_progress, train_progress
from cryoplug.core.outlook import Outlook
from cryoplug.core.results import FileResult
from cryoplug.core.time_left import TimeLeft, duration_text
from cryoplug.training.progress import EpochReport, Note


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def counted(total: int = 10) -> tuple[Clock, TimeLeft]:
    clock = Clock()
    left = TimeLeft(clock=clock)
    clock.now += 30  # a checkpoint is loaded
    left.expect(total)
    return clock, left


def test_the_time_left_is_that_of_the_rest_at_the_speed_so_far_and_counts_down() -> None:
    clock, left = counted()
    assert left.left_s is None and left.count_text == "0 of 10"
    for done in (1, 2):
        clock.now += 4
        left.reach(done)
    assert left.left_s == 8 * 4 and left.count_text == "2 of 10, 00:32 left" and left.percent_text == "20 %, 00:32 left"
    clock.now += 3
    assert left.left_s == 29
    clock.now += 1000
    assert left.left_s == 0


def test_what_an_earlier_run_did_says_nothing_about_the_speed() -> None:
    clock, left = counted()
    for done in range(1, 8):
        clock.now += 0.001
        left.reach(done, free=True)
    assert left.left_s is None
    clock.now += 5
    left.reach(8)
    assert left.left_s == 2 * 5


def test_the_time_while_a_watcher_had_nothing_to_do_is_not_counted() -> None:
    clock, left = counted(1)
    clock.now += 2
    left.reach(1)
    assert left.left_s is None and left.count_text == "1 of 1"
    clock.now += 3600
    left.expect(3)
    clock.now += 2
    left.reach(2)
    assert left.left_s == 2


def test_the_speed_is_that_of_the_last_counts() -> None:
    clock, left = counted(1000)
    for done in range(1, 200):
        clock.now += 100 if done < 100 else 1
        left.reach(done)
    assert left.left_s == pytest.approx(801)


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (41.4, "00:41"), (3599.7, "1:00:00"), (90061, "25:01:01")])
def test_a_duration_is_written_as_a_clock_does(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Give the lines of a log without the time of day, which each must have."""
    found = []
    for line in capsys.readouterr().err.splitlines():
        match = re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (.*)", line)
        assert match, f"no time of day: {line}"
        found.append(re.sub(r"\d\d:\d\d left", "00:00 left", match.group(1)))
    return found


def test_a_log_has_the_time_of_day_totals_and_what_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    with file_progress("denoise") as show:
        show(FileResult(Path("early.mrc"), "failed", message="broken"))
        show.expect(Outlook(3, ("b.mrc must stand still for 60 s", "new micrographs may come")))
        show(FileResult(Path("a.mrc"), "done", seconds=1))
        show.expect(Outlook(3, ("new micrographs may come",)))
        show(FileResult(Path("b.mrc"), "done", seconds=1))
    assert lines(capsys) == [
        "denoise: early.mrc: failed: broken",
        "denoise: 1 of 3: waiting: b.mrc must stand still for 60 s",
        "denoise: 2 of 3, 00:00 left: a.mrc: done in 1.00 s",
        "denoise: 3 of 3: b.mrc: done in 1.00 s",
    ]


def test_a_file_that_is_done_anew_does_not_count_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with file_progress("denoise") as show:
        show.expect(Outlook(1))
        for _ in range(2):
            show(FileResult(Path("a.mrc"), "done", seconds=1))
    assert lines(capsys) == ["denoise: 1 of 1: a.mrc: done in 1.00 s"] * 2


def test_a_log_of_training_has_the_percentage(capsys: pytest.CaptureFixture[str]) -> None:
    with train_progress() as show:
        show.say(Note("note"))
        show.advance(1, None)
        show.say(EpochReport(1, 0.5, None, True, 8.0, 1.0, 0.0))
        for step in range(2, 6):
            show.advance(step, 10)
        show.say(EpochReport(2, 0.5, None, True, 8.0, 1.0, 0.0))
        show.say(Note("note"))
    found = lines(capsys)
    assert found[0] == found[3] == "train: note"
    assert found[1].startswith("train: epoch 1: train loss")
    assert found[2].startswith("train: 50 %, 00:00 left: epoch 2: train loss")


class Terminal:
    """A stderr that says it is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_a_terminal_has_a_bar_with_totals_and_lines_without_the_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with file_progress("denoise") as show:
        show.expect(Outlook(2, ("a.mrc must stand still for 60 s",)))
        show._bar._bar.refresh()
        show(FileResult(Path("a.mrc"), "failed", message="broken"))
        show._bar._bar.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.text)
    assert "0 of 2 waiting: a.mrc must stand still" in shown
    assert re.search(r"[\r\n]denoise: a.mrc: failed: broken *\r?\n", shown)
    assert re.search(r"1 of 2, \d\d:\d\d left a.mrc", shown)


def test_talk_stands_on_a_line_of_its_own_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with file_progress("denoise") as show:
        show.expect(Outlook(2))
        show._bar._bar.refresh()
        say("denoise: a remark")
        show._bar._bar.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.text)
    assert re.search(r"[\r\n]denoise: a remark *\r?\n", shown), shown
    say("afterwards")
    assert terminal.text.endswith("afterwards\n")
