"""Neural-Pull's optimisation of several shapes: together in one computation, against one after the other.

Run from the repository root: `python -m benchmarks.neuralpull [--shapes 8] [--device auto]`.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import table
from pipeline.models.contract import Keeper
from pipeline.models.neuralpull import InferenceSettings, ModelSettings, NeuralPull

CASES = {
    "demo": (
        {"hidden": 32, "layers": 4, "skip": 2, "observation": {"points": 1000}, "queries": ((1.0, 10),)},
        {"batch_queries": 256},
    ),
    "neuralpull-port": ({}, {}),
    "neuralpull-tf": (
        {"architecture": "tf", "hidden": 512, "queries": ((2.0, 25), (1.0, 15)), "reference_density": None},
        {},
    ),
}
FULL = {"demo": 400, "neuralpull-port": 40_000, "neuralpull-tf": 40_000}  # iterations of a whole optimisation

WARM_UP = 5  # steps that are not measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", type=int, default=8, help="shapes together")
    parser.add_argument("--iterations", type=int, default=30, help="steps measured")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=["demo"], help="settings to measure")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads on the CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [row for case in arguments.cases for row in _measured(case, arguments.shapes, arguments.iterations, device)]
    header = ("settings", "shapes at once", "ms per step", "shapes per hour", "times as fast")
    print(f"{device}, {torch.get_num_threads()} threads, shapes per hour at the settings' own number of steps")
    print(table(header, rows))


def _measured(case: str, shapes: int, iterations: int, device: str) -> list[tuple]:
    """One row for a shape alone and one for all together."""
    rows, alone = [], None
    for together in (1, shapes):
        seconds = _seconds_per_step(case, together, iterations, device)
        per_hour = 3600 * together / (seconds * FULL[case])
        alone = alone or per_hour
        rows.append((case, together, 1000 * seconds, per_hour, per_hour / alone))
    return rows


class Clock(Keeper):
    """Notes the time between steps, and keeps nothing."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def note(self, state) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def _seconds_per_step(case: str, shapes: int, iterations: int, device: str) -> float:
    """The median; drawing queries and finding the sign do not count."""
    settings, inference = CASES[case]
    observations = {"points": _clouds(shapes, ModelSettings(**settings).observation.points).to(device)}
    steps = {"iterations": iterations + WARM_UP + 1, "warmup": 0}
    model = NeuralPull(ModelSettings(**settings), InferenceSettings(**{**inference, **steps})).to(device).eval()
    model.keeper = clock = Clock()
    model.encode(observations, range(shapes))
    return float(np.median(np.diff(clock.times[WARM_UP:])))


def _clouds(shapes: int, points: int) -> Tensor:
    """Ellipsoids, (B, M, 3)."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((shapes, points, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return torch.from_numpy((directions * rng.uniform(0.2, 0.5, (shapes, 1, 3))).astype(np.float32))


if __name__ == "__main__":
    main()
