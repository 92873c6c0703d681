"""One job at a time writes a state: who may take a claim, from whom, and what the others are told."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from pipeline import claims, runs
from pipeline.claims import SECONDS_UNTIL_STALE, held

WHAT = "the training of onet"
ELSEWHERE = {"host": "another-machine", "pid": 4711, "start": "1", "command": []}


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "onet" / ".owner.json"


def claimed_by(path: Path, row: dict, age: float = 0.0) -> None:
    """A claim whose last sign of life is `age` seconds old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(row))
    now = path.stat().st_mtime
    os.utime(path, (now - age, now - age))


def dead() -> dict:
    """A process of this machine that had the number of this one, and is gone."""
    return {**ELSEWHERE, "host": socket.gethostname(), "pid": os.getpid(), "start": "1"}


def test_a_claim_names_its_owner_and_leaves_nothing(path):
    with held(path, WHAT) as claim:
        row = json.loads(path.read_text())
        assert (row["host"], row["pid"]) == (socket.gethostname(), os.getpid())
        assert runs.state(path) == "alive"
        claim.check()
        assert list(path.parent.iterdir()) == [path]
    assert list(path.parent.iterdir()) == []


def test_a_living_owner_of_this_machine_is_named_and_keeps_its_claim(path):
    with held(path, WHAT) as first:
        with pytest.raises(SystemExit, match=rf"process {os.getpid()} of .* works on {WHAT} at this .*\n.*kill"):
            with held(path, WHAT):
                raise AssertionError("two own it")
        first.check()
        assert list(path.parent.iterdir()) == [path]


def test_a_dead_owner_of_this_machine_is_taken_over_at_once(path):
    claimed_by(path, dead())
    with held(path, WHAT) as claim:
        claim.check()
        assert list(path.parent.iterdir()) == [path]


def test_an_owner_on_another_machine_is_told_with_the_way_out(path):
    claimed_by(path, ELSEWHERE, age=40)
    with pytest.raises(SystemExit, match=f"process 4711 of another-machine works on {WHAT}") as end:
        with held(path, WHAT):
            raise AssertionError("two own it")
    assert "last sign of life is 40 s old" in str(end.value)
    assert "takes over in 5 minutes" in str(end.value)
    assert f"rm {path}" in str(end.value)
    assert json.loads(path.read_text()) == ELSEWHERE


@pytest.mark.parametrize("content", [json.dumps(ELSEWHERE), "", "{", "[1]", '{"host": "x"}'])
def test_an_owner_without_signs_of_life_is_taken_over(path, content):
    """Also one whose record is damaged: until then it may be one that is being written."""
    claimed_by(path, {})
    path.write_text(content)
    now = path.stat().st_mtime
    with pytest.raises(SystemExit, match="works on"):
        with held(path, WHAT):
            raise AssertionError("two own it")
    os.utime(path, (now - SECONDS_UNTIL_STALE - 1,) * 2)
    with held(path, WHAT) as claim:
        claim.check()


def test_signs_of_life_keep_a_claim_young(path):
    with held(path, WHAT) as claim:
        os.utime(path, (0, 0))
        claim.sign()
        assert path.stat().st_mtime > SECONDS_UNTIL_STALE


def test_an_owner_that_was_taken_for_dead_finds_out_before_it_writes(path):
    """A suspended job wakes up: it neither writes nor removes the other's claim."""
    with held(path, WHAT) as claim:
        claimed_by(path, ELSEWHERE)
        os.utime(path, (0, 0))
        claim.sign()
        assert path.stat().st_mtime == 0
        with pytest.raises(SystemExit, match="another job, process 4711 of another-machine, works on"):
            claim.check()
    assert json.loads(path.read_text()) == ELSEWHERE


def test_an_owner_whose_claim_was_removed_stops(path):
    with held(path, WHAT) as claim:
        path.unlink()
        with pytest.raises(SystemExit, match="is gone, which said that this job works on"):
            claim.check()


def test_of_several_that_see_a_dead_owner_one_takes_over(path, monkeypatch):
    """A second process, whose right to take over is as old, comes between the look and the taking."""
    claimed_by(path, dead())
    look = claims._require_dead

    def overtaken(at, record, what):
        look(at, record, what)
        if at == path and json.loads(path.read_text()) == dead():
            claimed_by(path, ELSEWHERE)

    monkeypatch.setattr(claims, "_require_dead", overtaken)
    with pytest.raises(SystemExit, match="process 4711 of another-machine"):
        with held(path, WHAT):
            raise AssertionError("two own it")
    assert json.loads(path.read_text()) == ELSEWHERE
    assert list(path.parent.iterdir()) == [path]


def test_one_that_died_while_it_took_over_is_taken_over_too(path):
    claimed_by(path, dead())
    claimed_by(path.with_name(f"{path.name}.next"), dead())
    with held(path, WHAT) as claim:
        claim.check()
        assert list(path.parent.iterdir()) == [path]


def test_file_systems_without_hard_links_serve_too(path, monkeypatch):
    def refused(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refused)
    claimed_by(path, dead())
    with held(path, WHAT) as claim:
        claim.check()
        with pytest.raises(SystemExit, match="at this moment"):
            with held(path, WHAT):
                raise AssertionError("two own it")
    assert list(path.parent.iterdir()) == []


def test_many_that_ask_at_once_are_one_owner_and_the_refused(path):
    """Threads stand in for processes."""
    claimed_by(path, dead())
    start = threading.Barrier(8)
    done = threading.Barrier(8)
    outcomes: list[str] = []

    def ask() -> None:
        start.wait()
        try:
            with held(path, WHAT):
                outcomes.append("owner")
                done.wait()
        except SystemExit:
            outcomes.append("refused")
            done.wait()

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert sorted(outcomes) == ["owner"] + ["refused"] * 7
    assert list(path.parent.iterdir()) == []
