"""Long work says how fast it goes and how long it takes; a log file gets plain lines."""

from __future__ import annotations

import io
import logging
import re
import sys
from pathlib import Path

import pytest

from pipeline import progress
from pipeline.progress import LOG, Progress, duration, start_log


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture(autouse=True)
def own_log():
    """The log as it was, and files of a test closed with it."""
    before = LOG.handlers[:], LOG.propagate, LOG.level
    yield
    for handler in LOG.handlers:
        handler.close()
    LOG.handlers[:], LOG.propagate = before[:2]
    LOG.setLevel(before[2])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(path: Path) -> list[str]:
    """The messages of a log file without date and level."""
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+ ", line) for line in lines)
    return [line.split(" ", 3)[3] for line in lines]


TIMES = {0: "0s", 8.9: "8s", 59.99: "59s", 60: "1m00s", 185: "3m05s", 3599: "59m59s", 3600: "1h00m", 7850: "2h10m"}


@pytest.mark.parametrize(("seconds", "text"), TIMES.items())
def test_durations_are_written_as_people_write_them(seconds, text):
    assert duration(seconds) == text


def test_a_line_tells_rate_and_time_left(clock):
    work = Progress("make_watertight chair/0", 40)
    clock.now += 20
    work.advance(10, "last 7")
    assert work.line("last 7") == "make_watertight chair/0  10/40 shapes  0.5 shapes/s  1m00s left  last 7"


def test_the_last_line_tells_the_time_it_took(clock):
    work = Progress("onet", 300, "steps")
    clock.now += 150
    work.advance(300)
    assert work.line() == "onet  300/300 steps  2 steps/s  2m30s in all"


def test_pieces_that_were_done_before_do_not_count_for_the_rate(clock):
    """Nine tenths from the store in no time say nothing about the last tenth."""
    work = Progress("sample_volume", 1000, done=900)
    clock.now += 10
    work.advance(20)
    assert work.line() == "sample_volume  920/1000 shapes  2 shapes/s  40s left"


def test_before_the_first_piece_the_time_left_is_unknown(clock):
    clock.now += 5
    assert Progress("a", 10).line() == "a  0/10 shapes  0 shapes/s  unknown left"
    assert Progress("a", 10, done=4).line() == "a  4/10 shapes  0 shapes/s  unknown left"


def test_lines_are_written_now_and_then_and_at_the_end(clock, tmp_path):
    start_log(tmp_path / "job.log")
    work = Progress("a", 100)
    for _ in range(100):
        clock.now += 0.25
        work.advance()
    work.close()
    lines = lines_of(tmp_path / "job.log")
    assert [line.split()[1] for line in lines] == ["1/100", "41/100", "81/100", "100/100"]
    assert lines[1].endswith("14s left") and lines[-1].endswith("25s in all")


def test_a_terminal_gets_a_bar_and_the_log_file_plain_lines(monkeypatch, tmp_path):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    start_log(tmp_path / "logs" / "job.log")
    work = Progress("compute_sdf table/1", 3)
    for note in ("first", "second", "third"):
        work.advance(note=note)
    work.close()
    shown, written = terminal.getvalue(), (tmp_path / "logs" / "job.log").read_text(encoding="utf-8")
    assert "compute_sdf table/1" in shown and "3/3" in shown and "shapes/s" in shown and "\r" in shown
    assert not [character for character in written if ord(character) < 32 and character != "\n"]
    assert lines_of(tmp_path / "logs" / "job.log")[-1].startswith("compute_sdf table/1  3/3 shapes")


def test_without_a_terminal_there_is_no_bar(monkeypatch, tmp_path):
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    start_log(tmp_path / "job.log")
    work = Progress("a", 2)
    work.advance(2)
    work.close()
    assert pipe.getvalue() == ""


def test_a_job_shows_warnings_on_the_terminal_and_everything_in_its_log(monkeypatch, tmp_path):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    start_log(tmp_path / "job.log")
    LOG.info("read 3 shapes")
    LOG.warning("one was rejected")
    LOG.error("error: the disk is full")
    assert terminal.getvalue() == "one was rejected\nerror: the disk is full\n"
    assert lines_of(tmp_path / "job.log") == ["read 3 shapes", "one was rejected", "error: the disk is full"]


def test_names_of_shapes_cannot_steer_the_terminal(monkeypatch, tmp_path):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    start_log(tmp_path / "job.log")
    LOG.warning("%s: no faces", "all/\x1b[2Jred\r\x07\x9b ä 形.off")
    assert terminal.getvalue() == "all/\\x1b[2Jred\\x0d\\x07\\x9b ä 形.off: no faces\n"
    assert lines_of(tmp_path / "job.log") == [terminal.getvalue().strip()]


def test_a_command_of_a_person_shows_everything(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    start_log(None)
    LOG.info("reading the store")
    assert terminal.getvalue() == "reading the store\n"


def test_a_log_is_begun_anew_and_does_not_reach_others(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for number in range(2):
        start_log(tmp_path / "job.log")
        LOG.info("attempt %d", number)
    assert lines_of(tmp_path / "job.log") == ["attempt 1"]
    assert len(LOG.handlers) == 2 and not caplog.records
    assert logging.getLogger().handlers is not LOG.handlers
