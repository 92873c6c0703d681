"""Names and shapes of the originals' tensors, from the list beside the repository."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

TENSORS = Path(__file__).parents[2].parent / "shared" / "reference" / "tensors.csv"
needs_tensors = pytest.mark.skipif(not TENSORS.is_file(), reason=f"the list of the originals' tensors is not {TENSORS}")


def published_tensors(preset: str) -> dict[str, tuple[int, ...]]:
    """Tensor name → shape. Batch counters are not listed."""
    with TENSORS.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["preset"] == preset]
    assert rows, f"the list names no tensors of {preset}"
    return {row["tensor"]: tuple(map(int, row["shape"].split("x"))) for row in rows}


def tensors_of(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """The same of a network of ours."""
    state = network.state_dict()
    return {name: tuple(t.shape) for name, t in state.items() if not name.endswith("num_batches_tracked")}
