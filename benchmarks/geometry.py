"""What the data stages cost on real meshes, and how near their results are, beside a plain way of doing the same.

    python -m benchmarks.geometry ../shared/meshes [--every 5] [--workers 2]

CPU-seconds of the process, one thread each, so that other work on the machine disturbs them little. Each way runs in a
process of its own over all shapes, as a worker does: `isomill`, `plain` (benchmarks/reference_geometry.py), and for
watertighting alone `alpha wrap` (pymeshlab) and `trimesh` (merge, fix normals, fill holes); what is not installed is
said to be so. Distances and thickness are measured the same way for all, here and not by the code under test.
--workers 2 measures instead how much faster two processes are than one, meshes handed out one by one as the product
does, and beside it the same for plain arithmetic on arrays, which is what the machine can give; it must be idle.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.measure import table
from benchmarks.nearness import FOLLOWED, THICK, nearness
from pipeline.jobs.pool import WORKER_ENVIRONMENT

SUFFIXES = (".obj", ".off", ".ply", ".stl", ".glb")
WAYS = ("isomill", "plain", "alpha wrap", "trimesh")
OPTIONAL = {"pcu": "point_cloud_utils", "mesh2sdf": "mesh2sdf", "trimesh + embreex": "embreex"}
CHAIN = ("read", "watertight", "scale", "surface", "boundary", "sdf", "volume", "voxels")
COUNT, SIGMAS, VOXELS = 100_000, (0.1, 0.01), 32
TARGETS = {"watertight": 0.67, "chain": 0.7, "memory": 700.0, "files": 0.1, "workers": 1.8}
ACCURATE = 0.002  # longest edges


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("meshes", type=Path, help="folder with a manifest.csv, or any folder of meshes")
    parser.add_argument("--every", type=int, default=1, help="take every n-th mesh only")
    parser.add_argument("--workers", type=int, default=1, help="measure the speed-up of this many processes")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--list", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        work(options.way, json.loads(options.list.read_text()))
        return
    paths = mesh_files(options.meshes)[:: options.every]
    if options.workers > 1:
        os.environ.update(WORKER_ENVIRONMENT, OMP_WAIT_POLICY="PASSIVE")
        scaling(paths, options.workers)
    else:
        compare(paths, options.meshes)


def mesh_files(folder: Path) -> list[Path]:
    """The good meshes of a folder: those of its manifest, failing that all that are there."""
    manifest = folder / "manifest.csv"
    if manifest.is_file():
        import csv

        with open(manifest, newline="", encoding="utf-8") as stream:
            return [folder / row["file"] for row in csv.DictReader(stream)]
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


# --- the parent


def compare(paths: list[Path], folder: Path) -> None:
    rows = {way: run_worker(way, paths) for way in WAYS}
    for way in WAYS:
        failed = [row for row in rows[way] if "failed" in row]
        for row in failed:
            print(f"{way}: {row['path']}: {row['failed']}")
    print(f"\n{len(paths)} meshes of {folder.name}, CPU-seconds of one thread\n")
    print(table(("step", *(f"{way} {what}" for way in WAYS[:2] for what in ("median", "worst"))), step_rows(rows)))
    print("\nWatertighting\n")
    print(table(WATERTIGHT_HEADER, [watertight_row(way, rows) for way in WAYS]))
    print(
        f"\nclosed: closed, 2-manifold, outward. near: mean distance of the outer raw surface under {ACCURATE}."
        f"\nfollowed: all outer points whose wall and gap are {THICK:.4f} thick lie within {FOLLOWED} of the result."
    )
    for name, module in OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            print(f"{name}: not installed")
    print("\nEvery mesh, isomill\n")
    print(table(SHAPE_HEADER, [shape_row(row, folder) for row in rows["isomill"] if "failed" not in row]))
    print("\n" + "\n".join(verdicts(rows)))


def run_worker(way: str, paths: list[Path]) -> list[dict[str, Any]]:
    """The rows that a process of its own prints about these meshes."""
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "meshes.json"
        names.write_text(json.dumps([str(path) for path in paths]))
        command = [sys.executable, "-m", "benchmarks.geometry", "-", "--way", way, "--list", str(names)]
        environment = {**os.environ, **WORKER_ENVIRONMENT, "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"the process of {way} failed")
    return [json.loads(line) for line in done.stdout.splitlines()]


def scaling(paths: list[Path], workers: int) -> None:
    """Wall seconds of the stages over all meshes with one process and with several, and of plain arithmetic."""
    limit = speed_up(arithmetic, list(range(6 * workers)), workers)
    reached = speed_up(one_mesh, paths, workers)
    print(f"arithmetic on arrays: {workers} processes are {limit:.2f} times as fast as one")
    print(f"the stages, {len(paths)} meshes: {reached:.2f} times; {met(reached >= TARGETS['workers'])}")


def speed_up(task: Callable[[Any], float], items: list, workers: int) -> float:
    """How many times as fast several processes do all items as one does; each has loaded everything before.

    The dearest items go first, so that what is measured is the rate and not the wait for the last one.
    """
    seconds = []
    for processes in (1, workers):
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), ready) as pool:
            list(pool.map(task, items[:processes]))
            start = time.perf_counter()
            costs = list(pool.map(task, items))
            seconds.append(time.perf_counter() - start)
        items = [item for _, item in sorted(zip(costs, items, strict=True), key=lambda pair: -pair[0])]
    print(f"{task.__name__}: {seconds[0]:.1f} s, {workers} processes {seconds[1]:.1f} s", flush=True)
    return seconds[0] / seconds[1]


def ready() -> None:
    warm_up(isomill)


def one_mesh(path: Path) -> float:
    start = time.perf_counter()
    isomill(path)
    return time.perf_counter() - start


def arithmetic(_: int) -> float:
    """About two seconds of vector work within the processor's own cache."""
    import numpy as np

    start = time.perf_counter()
    values = np.linspace(0, 1, 1 << 15, dtype=np.float32)
    for _ in range(150_000):
        values * values + values
    return time.perf_counter() - start


def costs(rows: list[dict], *steps: str) -> list[float]:
    return [sum(row["steps"][step] for step in steps) for row in rows if "failed" not in row]


def step_rows(rows: dict[str, list[dict]]) -> list[tuple]:
    chains = [(step, (step,)) for step in CHAIN] + [("the chain", CHAIN)]
    lines = []
    for name, steps in chains:
        values = [costs(rows[way], *steps) for way in WAYS[:2]]
        lines.append((name, *(number for column in values for number in (statistics.median(column), max(column)))))
    files = costs(rows["isomill"], "files")
    return [*lines, ("store files", statistics.median(files), max(files), None, None)]


WATERTIGHT_HEADER = ("way", "median s", "worst s", "of plain", "closed", "near", "followed", "peak MB")


def watertight_row(way: str, rows: dict[str, list[dict]]) -> tuple:
    mine = [row for row in rows[way] if "failed" not in row]
    total = len(rows[way])
    seconds = costs(mine, "watertight")
    return (
        way,
        statistics.median(seconds),
        max(seconds),
        statistics.median(ratios(rows[way], rows["plain"], "watertight")),
        f"{sum(row['closed'] for row in mine)}/{total}",
        f"{sum(row['d_in'] < ACCURATE for row in mine)}/{total}",
        f"{sum(row['lost'] == 0 for row in mine)}/{total}",
        max(row["peak_mb"] for row in mine),
    )


def ratios(mine: list[dict], other: list[dict], *steps: str) -> list[float]:
    """Cost of each mesh over what the other way spends on it, where both succeed."""
    reference = {row["path"]: row for row in other if "failed" not in row}
    common = [row for row in mine if "failed" not in row and row["path"] in reference]
    return [
        a / b for a, b in zip(costs(common, *steps), costs([reference[r["path"]] for r in common], *steps), strict=True)
    ]


SHAPE_HEADER = ("mesh", "faces", "link", "s", "d in", "d in 99 %", "outer", "thick", "lost", "lost one-sided", "closed")


def shape_row(row: dict, folder: Path) -> tuple:
    name = Path(row["path"]).relative_to(folder).as_posix().removesuffix("/models/model_normalized.obj")
    cells = (row[key] for key in ("d_in", "d_in_99", "outer", "thick", "lost", "lost_one_sided"))
    return (name, row["faces"], row["link"], row["steps"]["watertight"], *cells, "yes" if row["closed"] else "NO")


def verdicts(rows: dict[str, list[dict]]) -> list[str]:
    mine, plain = rows["isomill"], rows["plain"]
    closing = statistics.median(ratios(mine, plain, "watertight"))
    chain = statistics.median(ratios(mine, plain, *CHAIN))
    files = statistics.median(f / (c + f) for f, c in zip(costs(mine, "files"), costs(mine, *CHAIN), strict=True))
    peak = max(row["peak_mb"] for row in mine if "failed" not in row)
    return [
        f"watertighting, of plain, median: {closing:.2f}; {met(closing <= TARGETS['watertight'])}",
        f"the chain, of plain, median: {chain:.2f}; {met(chain <= TARGETS['chain'])}",
        f"store files, of the chain, median: {files:.1%}; {met(files < TARGETS['files'])}",
        f"peak of a worker: {peak:.0f} MB; {met(peak < TARGETS['memory'])}",
    ]


def met(reached: bool) -> str:
    return "met" if reached else "NOT MET"


# --- a worker


def work(way: str, paths: list[str]) -> None:
    """Print one JSON row for each mesh. What measures nearness stands last, so that it is in no peak before it, and
    the meshes wait for it on disk."""
    import resource

    import numpy as np

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # else manifold3d takes all there are
    run = {"isomill": isomill, "plain": plain, "alpha wrap": alpha_wrap, "trimesh": trimesh_repair}[way]
    done = []
    warm_up(run)
    waiting = tempfile.TemporaryDirectory()
    for path in paths:
        try:
            row, result = run(Path(path))
        except Exception as error:  # a way that cannot do a mesh has failed on it, whatever it raises
            done.append(({"path": path, "failed": f"{type(error).__name__}: {error}"[:200]}, None))
            continue
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        kept = Path(waiting.name) / f"{len(done)}.npz"
        np.savez(kept, *result[0], *result[1])
        done.append(({"path": path, "peak_mb": peak, **row}, kept))
    for row, kept in done:
        if kept is not None:
            with np.load(kept) as arrays:
                raw_vertices, raw_faces, vertices, faces = (arrays[f"arr_{k}"] for k in range(4))
            row |= nearness((raw_vertices, raw_faces), (vertices, faces))
        print(json.dumps(row), flush=True)


def warm_up(run: Callable) -> None:
    """Loads what the way loads on its first call."""
    from tests.solids import three_boxes

    mesh = three_boxes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "boxes.off"
        rows = [" ".join(map(str, row)) for row in mesh.vertices.tolist()]
        rows += ["3 " + " ".join(map(str, row)) for row in mesh.faces[1:].tolist()]
        path.write_text(f"OFF\n{len(mesh.vertices)} {len(mesh.faces) - 1} 0\n" + "\n".join(rows) + "\n")
        run(path)


class Clock:
    """CPU-seconds by step."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}

    def time(self, step: str, call: Callable, *arguments, **named):
        start = time.process_time()
        result = call(*arguments, **named)
        self.steps[step] = self.steps.get(step, 0.0) + time.process_time() - start
        return result


def isomill(path: Path):
    import numpy as np

    from pipeline import encoding
    from pipeline.meshes import read, scale, watertight
    from pipeline.samples import boundary, sdf, surface, volume, voxels

    clock, rng = Clock(), np.random.default_rng(0)
    content = path.read_bytes()
    raw = clock.time("read", read.extract_meshes, content, path.name, {}, read.ReadSettings())
    stored = Files(clock, encoding)
    raw_value = stored.through(raw, "mesh")
    closed = clock.time("watertight", watertight.make_watertight, raw_value, watertight.WatertightSettings())
    closed_value, raw_value = stored.through(closed, "mesh"), stored.through(raw, "mesh")
    canonical = clock.time("scale", scale.scale_to_off, closed_value, raw_value, scale.ScaleSettings())

    def mesh():
        """Every stage reads the mesh for itself."""
        return stored.through(canonical, "off")

    drawn = clock.time("surface", surface.sample_surface, mesh(), surface.SurfaceSettings(count=COUNT), rng)
    stored.through(drawn, "arrays")
    sets = {}
    for sigma in SIGMAS:
        settings = boundary.BoundarySettings(sigma=sigma, count=COUNT)
        near = clock.time("boundary", boundary.sample_boundary, mesh(), settings, rng)
        sets[f"boundary-{sigma:g}"] = stored.through(near, "arrays")["points"]
    stored.through(clock.time("sdf", sdf.compute_sdf, mesh(), sets, sdf.SdfSettings()), "arrays")
    stored.through(
        clock.time("volume", volume.sample_volume, mesh(), volume.VolumeSettings(count=COUNT), rng), "arrays"
    )
    stored.through(clock.time("voxels", voxels.voxelize, mesh(), voxels.VoxelSettings(resolution=VOXELS)), "arrays")
    row = {"steps": clock.steps, "faces": len(raw.value.faces), "link": closed.figures["link"]}
    return row, ((raw.value.vertices, raw.value.faces), (closed.value.vertices, closed.value.faces))


class Files:
    """Products on their way through a store: encoded, written, read and decoded, each product written once."""

    def __init__(self, clock: Clock, encoding) -> None:
        self.clock, self.encoding = clock, encoding
        self.folder = tempfile.TemporaryDirectory()
        self.paths: dict[int, Path] = {}

    def through(self, product, kind: str):
        return self.clock.time("files", self._through, product, kind)

    def _through(self, product, kind: str):
        path = self.paths.get(id(product))
        if path is None:
            path = self.paths[id(product)] = Path(self.folder.name) / str(len(self.paths))
            with open(path, "wb") as stream:
                stream.write(self.encoding.encode(product, kind))
                stream.flush()
                os.fsync(stream.fileno())
        return self.encoding.decode(path.read_bytes(), kind).value


def plain(path: Path):
    import numpy as np

    from benchmarks import reference_geometry as reference

    clock, rng = Clock(), np.random.default_rng(0)
    raw = clock.time("read", reference.read, path)
    vertices, faces = clock.time("watertight", reference.watertight, *raw)
    canonical = clock.time("scale", reference.scaled, vertices)
    clock.time("surface", reference.surface, canonical, faces, COUNT, rng)
    for sigma in SIGMAS:
        clock.time("boundary", reference.boundary, canonical, faces, COUNT, sigma, rng)
    clock.steps["sdf"] = 0.0  # with the boundary points
    clock.time("volume", reference.volume, canonical, faces, COUNT, rng)
    clock.time("voxels", reference.voxels, canonical, faces, VOXELS)
    return {"steps": clock.steps, "faces": len(raw[1])}, (raw, (vertices, faces))


def alpha_wrap(path: Path):
    import numpy as np
    import pymeshlab

    from benchmarks import reference_geometry as reference

    clock = Clock()
    raw = clock.time("read", reference.read, path)

    def wrap():
        corners = raw[0][raw[1]].reshape(-1, 3)
        meshes = pymeshlab.MeshSet()
        meshes.add_mesh(pymeshlab.Mesh(corners, np.arange(len(corners)).reshape(-1, 3)))
        meshes.generate_alpha_wrap(alpha=pymeshlab.PercentageValue(1), offset=pymeshlab.PercentageValue(0.1))
        return meshes.current_mesh().vertex_matrix(), meshes.current_mesh().face_matrix()

    result = clock.time("watertight", wrap)
    return {"steps": clock.steps, "faces": len(raw[1])}, (raw, result)


def trimesh_repair(path: Path):
    import numpy as np
    import trimesh

    from benchmarks import reference_geometry as reference

    clock = Clock()
    raw = clock.time("read", reference.read, path)

    def repair():
        mesh = trimesh.Trimesh(*raw, process=True)
        mesh.update_faces(mesh.unique_faces() & mesh.nondegenerate_faces())
        trimesh.repair.fix_normals(mesh)
        trimesh.repair.fill_holes(mesh)
        return np.asarray(mesh.vertices), np.asarray(mesh.faces)

    result = clock.time("watertight", repair)
    return {"steps": clock.steps, "faces": len(raw[1])}, (raw, result)


if __name__ == "__main__":
    main()
