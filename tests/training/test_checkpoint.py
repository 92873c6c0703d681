"""Checkpoints: what is written is read, what does not fit or is damaged is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.training import checkpoint
from pipeline.training.checkpoint import CheckpointMismatch, State, load_state, save_state

FILES = ["last.safetensors", "optimiser.pt", "state.json"]


def state(step: int) -> State:
    weights = {"last": {"w": torch.full((2, 3), float(step)), "n": torch.tensor(step)}}
    optimiser = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999)}]}
    return State(step, {"history": [{"loss": 0.1 + 0.2}]}, weights, optimiser)


def test_weights_and_description_come_back(tmp_path):
    model = nn.BatchNorm1d(3)
    weights = checkpoint.weights_of(model)
    content = checkpoint.encode_weights(weights, {"b": 1, "a": [2.5, None]})
    loaded, description = checkpoint.decode_weights(content)
    assert description == {"a": [2.5, None], "b": 1}
    assert all(torch.equal(weights[name], loaded[name]) for name in weights.keys() | loaded.keys())


def test_copies_of_weights_do_not_follow_the_model():
    model = nn.Linear(2, 2)
    weights = checkpoint.weights_of(model)
    before = weights["bias"].clone()
    model.bias.data.add_(1)
    assert torch.equal(weights["bias"], before)


def test_bytes_that_are_no_checkpoint_are_refused():
    with pytest.raises(ValueError, match="these 7 bytes are no checkpoint"):
        checkpoint.decode_weights(b"nothing")


def test_mismatches_are_named():
    weights = {"weight": torch.zeros(4, 2), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointMismatch) as error:
        checkpoint.assign_weights(nn.Linear(3, 4), weights)
    for part in ("missing: bias", "unexpected: extra", "weight is (4, 2), the model needs (4, 3)"):
        assert part in str(error.value)


def test_long_lists_of_mismatches_are_cut():
    with pytest.raises(CheckpointMismatch, match="and 3 more"):
        checkpoint.assign_weights(nn.Sequential(*(nn.Linear(1, 1) for _ in range(4))), {})


def test_state_comes_back_and_two_are_kept(tmp_path):
    for step in (10, 20, 30):
        save_state(tmp_path, state(step))
    loaded = load_state(tmp_path)
    assert (loaded.step, loaded.facts) == (30, state(30).facts)
    assert torch.equal(loaded.weights["last"]["w"], state(30).weights["last"]["w"])
    assert loaded.optimiser == state(30).optimiser
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-000000020", "state-000000030"]


def test_no_state_is_none(tmp_path):
    assert load_state(tmp_path / "nowhere") is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "flip", "missing"])
def test_damaged_state_gives_way_to_the_one_before(tmp_path, name, damage, caplog):
    save_state(tmp_path, state(10))
    save_state(tmp_path, state(20))
    path = tmp_path / "state-000000020" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-9])
    with caplog.at_level("WARNING"):
        assert load_state(tmp_path).step == 10
    assert "state-000000020 is damaged" in caplog.text
    save_state(tmp_path, state(20))
    assert load_state(tmp_path).step == 20


@pytest.mark.parametrize("lack", [PermissionError("not now"), OSError(5, "Input/output error"), MemoryError()])
def test_a_state_that_the_machine_cannot_read_now_is_not_taken_for_damaged(tmp_path, lack, monkeypatch):
    save_state(tmp_path, state(10))

    def fails(*_, **__):
        raise lack

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fails)
        with pytest.raises(type(lack)):
            load_state(tmp_path)
    assert load_state(tmp_path).step == 10


@pytest.mark.parametrize("call", range(len(FILES)))
def test_save_that_breaks_anywhere_leaves_the_state_before(tmp_path, call, monkeypatch):
    save_state(tmp_path, state(10))
    calls, write = [], checkpoint.write_atomic

    def break_at(path, content):
        calls.append(path)
        if len(calls) == call + 1:
            raise OSError("disk full")
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_atomic", break_at)
    with pytest.raises(OSError, match="disk full"):
        save_state(tmp_path, state(20))
    assert load_state(tmp_path).step == 10
    assert [path.name for path in tmp_path.iterdir()] == ["state-000000010"]
