"""What the engine adds to stages of one second per shape: start, imports, reading, dispatch, storing, ledger.

Runs the job `python -m pipeline run-shard` as the workflow does, in a fresh process, over shapes whose stage
(`benchmarks.synthetic`) sleeps one second and makes one megabyte. The stage notes when each call began and ended, so
everything outside the calls is counted as overhead: the interpreter's start, imports, the pool's start and end, reading
and checking inputs, encoding, storing with fsync, timings and the ledger.

    python -m benchmarks.overhead --shapes 40 --workers 2
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import math
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import run_command, smallest, table
from pipeline import encoding, files, ledger
from pipeline.fingerprint import code_digest
from pipeline.jobs.work import public_version
from pipeline.stages import STAGES
from pipeline.store import Store

ROOT = Path(__file__).resolve().parent.parent
INSTANCE = "synthetic"
OUTPUT = Path("results/data/synthetic/category/0.jsonl")
INPUT = Path("results/data/scale_to_off/category/0.jsonl")
TIMINGS = Path("results/timings/data/synthetic/category/0.jsonl")
SETTINGS = Path("results/settings/synthetic.json")
GRID = 60  # vertices along an edge of the input mesh: 6,962 faces, 0.25 MB of OFF text
SHARD = 256
TARGET = 0.05


@dataclass(frozen=True)
class Overhead:
    """Wall seconds. start: from the job's start to the first call of the stage. between: from the first call to the
    end of the last, less what `workers` ideal workers would need. end: from there to the end of the job."""

    shapes: int
    workers: int
    start: float
    between: float
    end: float
    stage_seconds: float

    @property
    def ideal(self) -> float:
        return math.ceil(self.shapes / self.workers) * self.stage_seconds

    @property
    def total(self) -> float:
        return self.start + self.between + self.end

    def scaled(self, shapes: int) -> Overhead:
        """The same job with more shapes: start and end once, the rest for every shape."""
        return Overhead(
            shapes, self.workers, self.start, self.between * shapes / self.shapes, self.end, self.stage_seconds
        )

    def row(self, label: str) -> tuple:
        share = 100 * self.total / self.ideal
        per_shape = 1e3 * self.between * self.workers / self.shapes
        return (label, self.shapes, self.workers, self.ideal, self.start, self.between, self.end, per_shape, share)


HEADER = ("", "shapes", "workers", "ideal s", "start s", "between s", "end s", "between ms/shape", "overhead %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", type=int, default=40, help="shapes of the measured shard")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--seconds", type=float, default=1.0, help="wall seconds of the stage per shape")
    parser.add_argument("--libraries-of", choices=sorted(STAGES), default="make_watertight", help="what is preloaded")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="isomill-overhead-") as folder:
        os.chdir(folder)
        prepare(options.shapes, options.seconds, STAGES[options.libraries_of].libraries)
        measured, cached = measure(options.shapes, options.workers, options.seconds)
        report(measured, cached, store_megabytes(options.shapes))
        os.chdir(ROOT)


def prepare(shapes: int, seconds: float, libraries: tuple[str, ...]) -> None:
    """The settings file, the runtime file and the input ledger with its stored meshes."""
    versions = {name: public_version(importlib.metadata.version(name)) for name in libraries}
    work = {
        "instance": INSTANCE, "fingerprint": "0" * 40, "settings": {"seconds": seconds},
        "random": True, "seed": 0, "libraries": versions, "code": code_digest(()), "modules": [],
        "module": "benchmarks.synthetic",
        "function": "synthetic", "settings_class": "SyntheticSettings", "format": "arrays", "upstream": ["mesh"],
    }  # fmt: skip
    files.write_json(SETTINGS, work)
    limits = {"seconds": 60.0, "memory_mb": 4000}
    runtime = {"results": "results", "store": {"path": "store", "shared": []}, "limits": limits}
    files.write_json(SETTINGS.with_name("runtime.json"), runtime)
    store, rows = Store(Path("store")), {}
    for k in range(shapes):
        shape = f"category/{k:04d}"
        entry = store.put("scale_to_off", hashlib.blake2b(shape.encode(), digest_size=20).hexdigest(), mesh(k), "off")
        rows[shape] = ledger.Row(shape, "ok", entry.key, entry.file, entry.digest, entry.size)
    ledger.write(INPUT, ledger.Ledger({"stage": "scale_to_off", "settings": "", "inputs": {}}, rows))


def mesh(seed: int) -> bytes:
    """A bumpy sheet as OFF, about the size of a usual watertight mesh."""
    import numpy as np

    from pipeline.arrays import Mesh, Product

    heights = np.random.default_rng(seed).random((GRID, GRID))
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, GRID), np.linspace(-0.5, 0.5, GRID), indexing="ij")
    corner = np.arange(GRID * GRID).reshape(GRID, GRID)
    a, b, c, d = (c.ravel() for c in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]))
    vertices = np.stack([x, y, 0.1 * heights], axis=-1).reshape(-1, 3)
    faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
    return encoding.encode(Product(Mesh(vertices.astype(np.float32), faces)), "off")


def measure(shapes: int, workers: int, seconds: float) -> tuple[Overhead, float]:
    """The overhead of the job, and the seconds of the same job when the store has everything."""
    command = [sys.executable, "-m", "pipeline", "run-shard", "--settings", SETTINGS, "--inputs", INPUT]
    command += ["--output", OUTPUT, "--workers", workers, "--log", "job.log"]
    environment = {"PYTHONPATH": str(ROOT)}
    began = time.time()
    cost, _ = run_command([str(word) for word in command], Path.cwd(), environment)
    figures = [row.figures for row in ledger.read(OUTPUT).rows.values()]
    if len(figures) != shapes or not all(figures):
        raise RuntimeError(Path("job.log").read_text(encoding="utf-8"))
    first, last = min(f["began"] for f in figures), max(f["ended"] for f in figures)
    ideal = math.ceil(shapes / workers) * seconds
    overhead = Overhead(shapes, workers, first - began, last - first - ideal, began + cost.seconds - last, seconds)
    again = smallest(lambda: run_command([str(word) for word in command], Path.cwd(), environment)[0])
    return overhead, again.seconds


def store_megabytes(shapes: int) -> float:
    return sum(entry.size for entry in Store(Path("store")).list(INSTANCE)) / shapes / 1e6


def report(measured: Overhead, cached: float, megabytes: float) -> None:
    print(table(HEADER, [measured.row("measured"), measured.scaled(SHARD).row("extrapolated")]))
    rows = files.read_lines(TIMINGS)
    inside = sum(row["seconds"] for row in rows) / len(rows) - measured.stage_seconds
    read = sum(row["read_seconds"] for row in rows) / len(rows)
    print(
        f"\nIn the worker beside the stage, mean per shape: {1e3 * inside:.1f} ms ({1e3 * read:.1f} ms of it reading); "
        f"{megabytes:.2f} MB stored per shape.\nThe same job with everything in the store: {cached:.2f} s."
    )
    for overhead, label in ((measured, "measured"), (measured.scaled(SHARD), "extrapolated to a full shard")):
        share = overhead.total / overhead.ideal
        print(
            f"Target, everything but the stage's calls under {TARGET:.0%} (starts and imports included): "
            f"{'met' if share < TARGET else 'MISSED'} at {overhead.shapes} shapes ({share:.1%}, {label})."
        )


if __name__ == "__main__":
    main()
