"""Temporary files that were left behind: whose they are, and when they are nobody's."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipeline import files, processes

DAY = 24 * 3600


def leave(path: Path, age: float = 0.0) -> Path:
    """A leftover that was last written to `age` seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def named(folder: Path, **words: str) -> Path:
    """A temporary name in which some words are replaced."""
    own = files.temporary_name(folder).name
    for old, new in words.items():
        found = {"pid": f"-{os.getpid()}-", "place": processes.place(), "start": processes.start_time(os.getpid())}[old]
        assert found in own
        own = own.replace(found, new)
    return folder / own


def test_of_this_place_the_process_is_looked_for(tmp_path):
    alive = leave(files.temporary_name(tmp_path), age=30 * DAY)
    dead = leave(named(tmp_path, pid="-99999999-"))
    given_away = leave(named(tmp_path, start="1"))
    files.sweep_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == [alive]
    assert not dead.exists() and not given_away.exists()


@pytest.mark.parametrize(
    "name", ["other place", ".tmp-node-7-4711-0123456789ab", ".tmp-node-7-01234567-1-2-0123456789ab"]
)
def test_of_other_places_what_has_not_grown_for_a_day_is_nobodys(tmp_path, name):
    path = named(tmp_path, place="01234567", pid="-99999999-") if name == "other place" else tmp_path / name
    leave(path, age=DAY - 600)
    files.sweep_temporaries(tmp_path)
    assert path.exists()
    leave(path, age=DAY + 600)
    files.sweep_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folders_below_are_swept_when_asked_and_what_is_no_leftover_stays(tmp_path):
    deep = leave(named(tmp_path / "a" / "b", pid="-99999999-"))
    folder = named(tmp_path / "a", pid="-99999999-")
    leave(folder / "weights.safetensors")
    kept = leave(tmp_path / "a" / "ledger.jsonl", age=30 * DAY)
    files.sweep_temporaries(tmp_path)
    assert deep.exists() and folder.exists()
    files.sweep_temporaries(tmp_path, below=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]


def test_a_folder_that_is_not_there_has_no_leftovers(tmp_path):
    files.sweep_temporaries(tmp_path / "results", below=True)
    assert list(tmp_path.iterdir()) == []
