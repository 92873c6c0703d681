"""What an evaluation costs: `python -m benchmarks.evaluation`.

CPU seconds of one core for a pair of bumpy spheres of radius 0.4, under ONet's and AIR-Nets' profiles, beside the plain
implementation in trimesh and scipy of the same protocol (`plain_evaluation`), in one run. The smallest of several
repetitions counts. The originals' figures were measured with their compiled code on one core of this class of machine.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import trimesh

from benchmarks import plain_evaluation
from benchmarks.measure import table
from pipeline.arrays import Mesh
from pipeline.evaluation import evaluate_pair
from pipeline.evaluation.inside import contains
from pipeline.evaluation.occupancy import inside_many

ORIGINALS = {("onet", 5_120): 0.31, ("onet", 81_920): 0.46, ("air-ifnet", 5_120): 2.3, ("air-ifnet", 81_920): 2.9}
TARGETS = {"onet": 0.8, "air-ifnet": 0.5}
PLAIN = {"onet": (100_000, 1.1), "air-ifnet": (1_000_000, 1.0)}
AGREE = {"chamfer_l1": 0.02, "chamfer_l2": 0.04, "normal_consistency": 0.01, "iou": 0.01}
"""How far ours and the plain one may lie apart, both being random: relative."""


def bumpy_sphere(subdivisions: int, phase: float) -> trimesh.Trimesh:
    """An icosphere of radius 0.4 with bumps; 20 * 4^subdivisions faces."""
    sphere = trimesh.creation.icosphere(subdivisions=subdivisions)
    x, y, z = sphere.vertices.T
    radius = 0.4 * (1 + 0.05 * np.sin(8 * x + phase) * np.sin(7 * y) * np.sin(9 * z))
    return trimesh.Trimesh(sphere.vertices * radius[:, None], sphere.faces, process=False)


def cpu_seconds(work: Callable[[], object], times: int) -> tuple[float, object]:
    """The smallest CPU time of several calls, and what the last gave."""
    best, result = float("inf"), None
    for _ in range(times):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return best, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=5, help="repetitions of ours; the plain one runs once")
    times = parser.parse_args().times
    rows, faults = [], []
    evaluate_pair(bumpy_sphere(2, 0), bumpy_sphere(2, 0))  # loads the libraries
    for subdivisions in (4, 6):
        for profile in PLAIN:
            row, wrong = compared(bumpy_sphere(subdivisions, 0.0), bumpy_sphere(subdivisions, 0.5), profile, times)
            rows.append(row)
            faults += wrong
    head = ("profile", "faces", "fresh s", "stored s", "plain s", "fresh/plain", "original s", "to original", "target")
    print(table(head, rows))
    print(inside_table(times))
    print("\n".join(faults) or "ours and the plain implementation agree within sampling noise")


def compared(
    predicted: trimesh.Trimesh, reference: trimesh.Trimesh, profile: str, times: int
) -> tuple[tuple, list[str]]:
    """One line of the table, and where ours and the plain implementation do not agree."""
    (points, box), faces = PLAIN[profile], len(predicted.faces)
    ours, row = cpu_seconds(lambda: evaluate_pair(predicted, reference, profile=profile), times)
    kept = None
    if profile == "onet":
        given = stored(reference, points, box)
        kept, _ = cpu_seconds(lambda: evaluate_pair(predicted, None, profile=profile, **given), times)
    plain, expected = cpu_seconds(lambda: plain_evaluation.evaluate(predicted, reference, points, box, 0), 1)
    original = ORIGINALS[profile, faces]
    ratios = ours / plain, original, (kept or ours) / original, TARGETS[profile]
    wrong = [
        f"{profile}, {faces} faces: {key} is {row[key]:.5g}, the plain one {expected[key]:.5g}"
        for key, share in AGREE.items()
        if abs(row[key] - expected[key]) > share * expected[key]
    ]
    return (profile, faces, ours, kept, plain, *ratios), wrong


def stored(reference: trimesh.Trimesh, points: int, box: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Samples and labels as the data stages keep them, which ONet's evaluator reads."""
    rng = np.random.default_rng(0)
    samples, faces = trimesh.sample.sample_surface(reference, 100_000, seed=0)
    asked = (rng.random((points, 3)) - 0.5) * box
    labels = contains(reference, asked)
    return {"reference_samples": (samples, reference.face_normals[faces]), "query_points": (asked, labels)}


def inside_table(times: int) -> str:
    """The inside test of the evaluation beside the faithful one, point by point."""
    rows = []
    for subdivisions in (4, 6):
        sphere = bumpy_sphere(subdivisions, 0.0)
        mesh = Mesh(sphere.vertices, sphere.faces)
        asked = np.random.default_rng(1).random((1_000_000, 3)) - 0.5
        for method in ("parity", "waterproof"):
            each, exact = cpu_seconds(lambda a=asked, m=method, s=mesh: contains(s, a, m), times)
            regions, labels = cpu_seconds(lambda a=asked, m=method, s=mesh: inside_many(s, a, m), times)
            rows.append(
                (method, len(mesh.faces), len(asked), each, regions, regions / each, int((exact != labels).sum()))
            )
    head = ("inside test", "faces", "points", "each point s", "by regions s", "ratio", "labels that differ")
    return table(head, rows)


if __name__ == "__main__":
    main()
