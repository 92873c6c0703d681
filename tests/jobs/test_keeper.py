"""The state of a test-time optimisation in its file: when it is written, taken up and forgotten."""

from __future__ import annotations

import signal

import pytest
import torch

from pipeline.jobs.keeper import FileKeeper
from pipeline.jobs.shards import Stopped


class Request:
    """A wish to stop, as a signal leaves it."""

    signal = 0


def state_at(step: int):
    return lambda: {"code": torch.full((2, 3), float(step)), "step": torch.tensor(step)}


def never():
    raise AssertionError("the state was asked for before it was due")


def test_a_state_is_written_when_it_is_due_and_not_before(tmp_path):
    path = tmp_path / "state" / "a.safetensors"
    FileKeeper(path, 10, Request()).note(never)
    assert not path.exists()
    FileKeeper(path, 0, Request()).note(state_at(7))
    kept = FileKeeper(path, 10, Request()).restore()
    assert int(kept["step"]) == 7 and torch.equal(kept["code"], torch.full((2, 3), 7.0))


def test_a_wish_to_stop_is_followed_after_the_state_is_written(tmp_path):
    path, request = tmp_path / "a.safetensors", Request()
    keeper = FileKeeper(path, 10, request)
    keeper.note(never)
    request.signal = signal.SIGTERM
    with pytest.raises(Stopped) as end:
        keeper.note(state_at(3))
    assert end.value.code == 128 + signal.SIGTERM
    assert int(FileKeeper(path, 10, Request()).restore()["step"]) == 3


def test_nothing_is_taken_up_where_nothing_or_no_state_lies(tmp_path):
    path = tmp_path / "a.safetensors"
    assert FileKeeper(path, 10, Request()).restore() is None
    path.write_bytes(b"half a file")
    assert FileKeeper(path, 10, Request()).restore() is None


def test_a_state_with_a_flipped_bit_is_not_taken_up(tmp_path):
    path = tmp_path / "a.safetensors"
    FileKeeper(path, 0, Request()).note(state_at(7))
    content = path.read_bytes()
    for place in range(8, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert FileKeeper(path, 10, Request()).restore() is None, place


def test_memory_that_runs_out_is_no_damage_of_a_state(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    FileKeeper(path, 0, Request()).note(state_at(7))

    def too_large(content):
        raise MemoryError

    monkeypatch.setattr("pipeline.training.checkpoint.load_tensors", too_large)
    with pytest.raises(MemoryError):
        FileKeeper(path, 10, Request()).restore()


def test_a_state_is_written_by_its_owner_only(tmp_path):
    def lost():
        raise SystemExit("another job works on it")

    path = tmp_path / "a.safetensors"
    with pytest.raises(SystemExit, match="another job"):
        FileKeeper(path, 0, Request(), lost).note(state_at(1))
    assert not path.exists()


def test_a_finished_optimisation_is_forgotten(tmp_path):
    path = tmp_path / "a.safetensors"
    keeper = FileKeeper(path, 0, Request())
    keeper.note(state_at(1))
    keeper.forget()
    keeper.forget()
    assert list(tmp_path.iterdir()) == []
