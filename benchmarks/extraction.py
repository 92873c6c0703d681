"""What extraction and its neighbours cost: grids, decoders, inside tests, light fields.

    python -m benchmarks.extraction [--only grids decoder inside light_field] [--device cuda] [--resolution 128]

CPU-seconds of one thread, but for the decoder on a GPU, which is wall time. The originals' figures are those of the
issue, measured with their compiled code on this class of machine; everything else is measured here, in one run.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np

from benchmarks.measure import table
from pipeline.arrays import Mesh
from pipeline.evaluation.inside import contains
from pipeline.evaluation.light_field import light_field_descriptor, light_field_distances
from pipeline.geometry.cubes import isosurface
from pipeline.reconstruction.coarse_to_fine import evaluate_coarse_to_fine
from pipeline.reconstruction.extract import ExtractionSettings, extract
from pipeline.reconstruction.mise import evaluate_grid

RADIUS = 0.4
LIBMISE = {(32, 2): 0.15, (64, 2): 0.79}
COMPILED = {("parity", 5120): 0.19, ("parity", 81920): 0.44, ("waterproof", 5120): 0.38, ("waterproof", 81920): 0.37}
TARGETS = {"grids": 0.4, "inside": 0.6, "decoder": 1.3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--device", default="cpu", help="where the decoder runs")
    parser.add_argument("--resolution", type=int, default=128, help="cells per axis of the decoder's lattice, 4 * 2^k")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the fastest stands")
    arguments = parser.parse_args()
    for name in arguments.only:
        print(f"\n{PARTS[name].__doc__.splitlines()[0]}\n")
        PARTS[name](arguments)


def bumpy_distance(points: np.ndarray) -> np.ndarray:
    """About the signed distance to a bumpy sphere, negative inside, for points (n, 3)."""
    waves = np.sin(9 * points[:, 0]) * np.sin(8 * points[:, 1] + 1) * np.sin(7 * points[:, 2] + 2)
    return np.sqrt(np.einsum("ij,ij->i", points, points)) - RADIUS * (1 + 0.05 * waves)


def bumpy_sphere(faces: int) -> Mesh:
    """A closed mesh of 20 * 4^k faces."""
    import trimesh

    sphere = trimesh.creation.icosphere(subdivisions=round(np.log(faces / 20) / np.log(4)))
    unit = np.asarray(sphere.vertices)
    waves = np.sin(4 * unit[:, 0]) * np.sin(3 * unit[:, 1] + 1) * np.sin(3 * unit[:, 2] + 2)
    return Mesh(unit * (RADIUS * (1 + 0.05 * waves))[:, None], sphere.faces)


def fastest(work: Callable[[], object], repeats: int, clock: Callable[[], float] = time.process_time) -> float:
    """The least seconds of several runs."""
    seconds = []
    for _ in range(repeats):
        start = clock()
        work()
        seconds.append(clock() - start)
    return min(seconds)


class Timed:
    """A field that adds up the seconds it takes and the points it is asked for."""

    def __init__(self, field: Callable[[np.ndarray], np.ndarray]) -> None:
        self.field, self.seconds, self.points = field, 0.0, 0

    def __call__(self, points: np.ndarray) -> np.ndarray:
        start = time.process_time()
        values = self.field(points)
        self.seconds += time.process_time() - start
        self.points += len(points)
        return values


def grids(arguments: argparse.Namespace) -> None:
    """Bookkeeping of the grids: the whole run less the analytic field"""

    def cost(evaluate: Callable[[Timed], object]) -> tuple[int, float]:
        runs = []
        for _ in range(arguments.repeats + 1):
            field, start = Timed(lambda points: -bumpy_distance(points)), time.process_time()
            evaluate(field)
            runs.append((time.process_time() - start - field.seconds, field.points))
        return min(runs)[1], min(runs)[0]

    rows = []
    for (resolution_0, depth), libmise in LIBMISE.items():
        points, seconds = cost(lambda field, r=resolution_0, d=depth: evaluate_grid(field, r, d, 0.0, 1.1))
        rows.append([f"mise {resolution_0} + {depth}", points, seconds, libmise, seconds / libmise])
    points, seconds = cost(lambda field: evaluate_grid(field, 32, 2, 0.0, 1.1, mode="safe"))
    rows.append(["mise 32 + 2, safe", points, seconds, None, None])
    points, seconds = cost(lambda field: evaluate_coarse_to_fine(field, 64, 2, 0.0, 1.1))
    rows.append(["coarse_to_fine 64 + 2", points, seconds, None, None])
    print(table(["grid", "points", "CPU s", "libmise s", "ratio"], rows))
    verdict(max(row[4] for row in rows[:2]), TARGETS["grids"])


def decoder(arguments: argparse.Namespace) -> None:
    """MISE against dense evaluation of ConvONet's decoder: time over points

    The decoder runs in full on every query; the surface is the bumpy sphere's, since an untrained network has none.
    Marching cubes costs all methods the same and is taken off.
    """
    cells = arguments.resolution
    settings = {
        "mise": ExtractionSettings(resolution_0=cells // 4, depth=2),
        "dense": ExtractionSettings(method="dense", resolution=cells),
        "coarse_to_fine": ExtractionSettings(method="coarse_to_fine", resolution_0=cells // 4, depth=2),
    }
    field = decoder_field(arguments.device)
    clock = time.process_time if arguments.device == "cpu" else time.perf_counter
    axis = np.linspace(-0.55, 0.55, cells + 1)
    places = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    values = -20 * bumpy_distance(places).astype(np.float32).reshape((cells + 1,) * 3)
    cubes = fastest(lambda: isosurface(values, 0.0, -0.55, 0.55, "above"), arguments.repeats, clock)
    cost = {}
    for name, how in settings.items():
        seconds = fastest(lambda how=how: extract(field, 1, "occupancy_logit", how), arguments.repeats, clock)
        (product,) = extract(field, 1, "occupancy_logit", how)
        cost[name] = (product.figures["query_points"], seconds - cubes)
    points, seconds = cost["dense"]
    rows = [[name, p, s, p / points, s / seconds, (s / seconds) / (p / points)] for name, (p, s) in cost.items()]
    print(table(["method", "points", "s", "points / dense", "time / dense", "time over points"], rows))
    print(f"\nmarching cubes: {cubes:.3g} s")
    verdict(rows[0][5], TARGETS["decoder"])


def decoder_field(device: str):
    """A field that costs what ConvONet's three planes cost and has the bumpy sphere's surface."""
    import torch

    from pipeline.models.contract import build_model
    from pipeline.models.convonet import InferenceSettings, ModelSettings

    torch.set_num_threads(1)
    model = build_model("convonet", ModelSettings(), InferenceSettings(), 0, seed=0).eval().to(device)
    cloud = (torch.rand(1, 3000, 3, generator=torch.Generator().manual_seed(0)) - 0.5).to(device)
    code = model.encode({"points": cloud}, [0])

    @torch.inference_mode()
    def field(shapes: np.ndarray, queries: np.ndarray) -> np.ndarray:
        chosen = torch.from_numpy(shapes).to(device)
        rows = {name: part.index_select(0, chosen) for name, part in code.items()}
        decoded = model.field(rows, torch.from_numpy(queries).to(device)).cpu().numpy()
        distance = bumpy_distance(queries.reshape(-1, 3)).reshape(decoded.shape)
        return (-20 * distance + 0 * decoded).astype(np.float32)

    return field


def inside(arguments: argparse.Namespace) -> None:
    """Inside tests of 100,000 points in a cube of 1.1 around a bumpy sphere"""
    points = (np.random.default_rng(0).random((100_000, 3)) - 0.5) * 1.1
    rows = []
    for faces in (5120, 81920):
        mesh = bumpy_sphere(faces)
        for method in ("parity", "waterproof", "rays", "winding"):
            seconds = fastest(lambda m=mesh, how=method: contains(m, points, how), arguments.repeats + 1)
            original = COMPILED.get((method, faces))
            rows.append([method, faces, seconds, original, original and seconds / original])
    print(table(["test", "faces", "CPU s", "original s", "ratio"], rows))
    verdict(max(row[4] for row in rows if row[4]), TARGETS["inside"])


def light_field(arguments: argparse.Namespace) -> None:
    """Light field distance: a descriptor per mesh, then pairs of descriptors"""
    rows, descriptors = [], []
    for faces in (1280, 5120, 81920):
        mesh = bumpy_sphere(faces)
        rows.append(["descriptor", faces, fastest(lambda m=mesh: light_field_descriptor(m), arguments.repeats)])
        descriptors.append(light_field_descriptor(mesh))
    stacked = np.stack(descriptors * 10)
    seconds = fastest(lambda: light_field_distances(stacked, stacked), arguments.repeats)
    rows.append(["a pair", None, seconds / len(stacked) ** 2])
    print(table(["what", "faces", "CPU s"], rows))


def verdict(ratio: float, target: float) -> None:
    print(f"\nworst ratio {ratio:.2f}, target at most {target}: {'met' if ratio <= target else 'missed'}")


PARTS = {"grids": grids, "decoder": decoder, "inside": inside, "light_field": light_field}

if __name__ == "__main__":
    main()
