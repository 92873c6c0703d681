"""Steps in parts, over several processes, from files, in other precisions: the same training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.training.data import ResidentData, Spill, gather_points
from tests.training.stub import Ball, numbers, run

ROOT = Path(__file__).parent.parent.parent
SHAPES = (0.1, 0.2, 0.4, 0.5)


@pytest.mark.parametrize("parts", [2, 3, 9])
def test_a_step_in_parts_is_the_same_step(parts, tmp_path):
    """The loss of the stub is a mean over shapes, so its gradient is the weighted mean of the parts'."""
    whole = run(Ball(), numbers(*SHAPES), tmp_path / "whole", batch_shapes=4)
    taken = run(Ball(), numbers(*SHAPES), tmp_path / "parts", batch_shapes=4, accumulate=parts)
    assert float(taken.weights["radius"]) == pytest.approx(float(whole.weights["radius"]), abs=1e-6)
    for one, other in zip(taken.history, whole.history, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_two_processes_share_a_run_and_end_where_one_ends(tmp_path):
    for devices in (1, 2):
        (tmp_path / str(devices)).mkdir()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.training.shared_run", str(tmp_path / str(devices)), str(devices)]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120, capture_output=True)
    alone, first, second = (
        json.loads((tmp_path / name).read_text()) for name in ("1/first.json", "2/first.json", "2/second.json")
    )
    assert (first["leads"], second["leads"]) == (True, False)
    assert first["radius"] == second["radius"] == pytest.approx(alone["radius"], abs=1e-5)
    for one, other in zip(first["history"], alone["history"], strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def arrays(count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"points": rng.random((50, 3), np.float32), "inside": rng.random(50) < 0.5} for _ in range(count)]


def test_arrays_that_memory_may_not_hold_are_drawn_from_files(tmp_path):
    shapes = arrays(6)
    size = sum(array.nbytes for shape in shapes for array in shape.values())
    held = ResidentData.from_shapes(shapes, spill=Spill(size, tmp_path / "unused"))
    filed = ResidentData.from_shapes(shapes, spill=Spill(size - 1, tmp_path / "used"))
    assert not (tmp_path / "unused").exists()
    assert sorted(path.name for path in (tmp_path / "used").iterdir()) == ["inside.npy", "points.npy"]
    chosen, index = torch.tensor([5, 0]), torch.tensor([[1, 2, 49], [0, 0, 3]])
    for key in ("points", "inside"):
        assert torch.equal(gather_points(filed[key], chosen, index), gather_points(held[key], chosen, index))


def test_mixed_precision_and_tf32_train_and_give_the_settings_back(tmp_path):
    before = torch.get_float32_matmul_precision()
    run(Ball(), numbers(*SHAPES), tmp_path / "a", precision="bf16-mixed", tf32=True)
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_network_keeps_its_names_and_its_numbers(tmp_path):
    from tests.models.shapes import BLOCKS, block_arrays, tiny_model

    results = []
    for compiled in (False, True):
        model = tiny_model("onet", 1)
        data = ResidentData.for_model(model, [block_arrays(BLOCKS, 500)])
        results.append(run(model, data, tmp_path / str(compiled), steps=3, learning_rate=1e-3, compile=compiled))
    plain, fast = results
    assert fast.weights.keys() == plain.weights.keys()
    for name, tensor in plain.weights.items():
        torch.testing.assert_close(fast.weights[name], tensor, atol=2e-3, rtol=1e-3)
