"""Weights as safetensors with a JSON description, and the state from which a training run continues.

A state is a folder `state-<step>` that appears whole, by renaming, and holds the digest of each of its files; the two
newest are kept. A damaged one is removed on reading and the one before it used.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from pipeline.encoding import HEADER_KEY
from pipeline.files import digest_of, temporary_name, write_atomic
from pipeline.settings import canonical_json

LOG = logging.getLogger("isomill")
STATES_KEPT = 2
NAMES_SHOWN = 5
# What reading a state raises where its files are not as they were written.
DAMAGE = (
    ValueError, LookupError, TypeError, EOFError, pickle.UnpicklingError,
    FileNotFoundError, NotADirectoryError, IsADirectoryError,
)  # fmt: skip

Weights = Mapping[str, Tensor]


class CheckpointMismatch(ValueError):
    """A checkpoint belongs to another model, run or configuration; the message names what differs."""


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy on the CPU of everything the model's state holds."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}


def encode_weights(weights: Weights, description: Any) -> bytes:
    """The checkpoint's bytes: tensors and a JSON description of them. Equal weights and words give equal bytes."""
    return save_tensors(dict(weights), {HEADER_KEY: canonical_json(description)})


def decode_weights(content: bytes) -> tuple[dict[str, Tensor], Any]:
    """Weights and description that `encode_weights` wrote. Raises ValueError where the bytes are no checkpoint."""
    try:
        length = int.from_bytes(content[:8], "little")
        description = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][HEADER_KEY])
        return load_tensors(content), description
    except MemoryError:
        raise  # the machine's lack, which says nothing about the bytes
    except Exception as error:
        raise ValueError(f"these {len(content)} bytes are no checkpoint of this project: {error}") from error


def assign_weights(model: nn.Module, weights: Weights) -> None:
    """Put weights into a model. Raises CheckpointMismatch naming missing, unexpected and mis-shaped tensors."""
    own = model.state_dict()
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, the model needs {tuple(own[name].shape)}"
        for name in sorted(own.keys() & weights.keys())
        if own[name].shape != weights[name].shape
    ]
    lists = {
        "missing": sorted(own.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - own.keys()),
        "of another shape": shapes,
    }
    differences = [f"{label}: {listed(names)}" for label, names in lists.items() if names]
    if differences:
        raise CheckpointMismatch(f"the checkpoint does not fit the model; tensors {'; '.join(differences)}")
    model.load_state_dict(dict(weights))


def listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


@dataclass
class State:
    """A run after `step` steps.

    facts: JSON about the run. weights: named sets of tensors, of which "last" are the current ones. optimiser: its
    state dict. Shapes and random numbers of a step follow from the seed and the step, so they need no state.
    """

    step: int
    facts: dict[str, Any]
    weights: dict[str, dict[str, Tensor]]
    optimiser: dict[str, Any] = field(default_factory=dict)


def save_state(folder: Path, state: State) -> None:
    """Write a state beside the older ones, whole or not at all, and drop all but the newest."""
    final = folder / f"state-{state.step:09d}"
    if not final.exists():
        temporary = temporary_name(folder)
        try:
            _write_state(temporary, state)
            os.replace(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    for old in _states(folder)[STATES_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path) -> State | None:
    """The newest state that is whole, or None. Damaged ones are removed, with a line in the log.

    Raises OSError and MemoryError where the machine cannot read a state at present; that is no damage of it.
    """
    for path in _states(folder):
        try:
            return _read_state(path)
        except DAMAGE as error:
            LOG.warning("%s is damaged (%s); the state before it is used", path, error)
            shutil.rmtree(path)
    return None


def clear_states(folder: Path) -> None:
    """Forget the run."""
    for path in _states(folder):
        shutil.rmtree(path)


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("state-*"), reverse=True)


def _write_state(folder: Path, state: State) -> None:
    contents = {f"{name}.safetensors": encode_weights(tensors, {}) for name, tensors in state.weights.items()}
    stream = io.BytesIO()
    torch.save(state.optimiser, stream)
    contents["optimiser.pt"] = stream.getvalue()
    digests = {name: digest_of(content) for name, content in contents.items()}
    text = canonical_json({"step": state.step, "facts": state.facts, "files": digests})
    contents["state.json"] = f"{digest_of(text.encode())}\n{text}\n".encode()
    for name, content in contents.items():
        write_atomic(folder / name, content)


def _read_state(folder: Path) -> State:
    digest, text, _ = (folder / "state.json").read_text(encoding="utf-8").split("\n")
    if digest != digest_of(text.encode()):
        raise ValueError("state.json is not as it was written")
    record = json.loads(text)
    contents = {}
    for name, digest in record["files"].items():
        contents[name] = (folder / name).read_bytes()
        if digest_of(contents[name]) != digest:
            raise ValueError(f"{name} is not as it was written")
    optimiser = torch.load(io.BytesIO(contents.pop("optimiser.pt")), map_location="cpu", weights_only=True)
    weights = {name.removesuffix(".safetensors"): decode_weights(content)[0] for name, content in contents.items()}
    return State(record["step"], record["facts"], weights, optimiser)
