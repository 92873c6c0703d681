"""The prepared data of DeepSDF, written and read: sheet deepsdf.md 2.1, 2.5.

SdfSamples/<set>/<category>/<id>.npz, NormalizationParameters/... .npz, SurfaceSamples/... .ply, and the split lists.
Its frame puts a shape's farthest vertex at radius 1 / 1.03 of a sphere around the middle of its box.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.exchange.npz import read_npz, take, write_npz
from pipeline.exchange.shape import FinishedShape

BUFFER = 1.03
SURFACE_POINTS = 30_000


def normalisation(mesh: Mesh) -> tuple[np.ndarray, float]:
    """Centre (3,) and radius of a mesh: x in DeepSDF's frame is (x - centre) / (1.03 radius)."""
    used = mesh.vertices[np.unique(mesh.faces)]
    centre = (used.min(axis=0) + used.max(axis=0)) / 2
    return centre, float(np.linalg.norm(used - centre, axis=1).max())


def shape_files(shape: FinishedShape, dataset: str) -> dict[str, bytes]:
    """Files of one shape by their path below the data folder: its signed distances, and where it came from.

    Samples of disputed sign (`stages.compute_sdf.method` votes) are left out, as in the original.
    """
    centre, radius = normalisation(shape.mesh)
    scale = 1 / (BUFFER * radius)
    rows = [
        np.column_stack([(_points_of(shape, name) - centre) * scale, distances * scale])[kept]
        for name, distances, kept in _distances(shape)
    ]
    samples = np.concatenate(rows).astype(np.float32)
    outside = samples[:, 3] > 0
    frame = {
        "offset": (-(shape.loc + shape.scale * centre)).astype(np.float32),
        "scale": np.array([scale / shape.scale], np.float32),
    }
    surface = shape.loc + shape.scale * shape.arrays["surface.points"][:SURFACE_POINTS].astype(np.float64)
    place = f"{dataset}/{shape.name}"
    return {
        f"SdfSamples/{place}.npz": write_npz({"pos": samples[outside], "neg": samples[~outside]}),
        f"NormalizationParameters/{place}.npz": write_npz(frame),
        f"SurfaceSamples/{place}.ply": _ply(surface),
    }


def set_files(shapes: Iterable[tuple[str, str, str]], dataset: str) -> dict[str, bytes]:
    """Split lists of (category, id, split) rows: {set: {category: [id, ...]}}, one file per split."""
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "val": {}, "test": {}}
    for category, shape, split in sorted(shapes):
        lists[split].setdefault(category, []).append(shape)
    return {
        f"splits/{dataset}_{split}.json": (json.dumps({dataset: categories}, indent=1, allow_nan=False) + "\n").encode()
        for split, categories in lists.items()
    }


def read_samples(content: bytes, per_unit: float = 1.0) -> dict[str, np.ndarray]:
    """Points (n, 3) float32 and signed distances (n,) float32, negative inside, of a SdfSamples file.

    Those outside first. per_unit: canonical units in one of DeepSDF's; points and distances are multiplied by it. Rows
    that are not numbers are dropped, as the original does. Raises Rejected.
    """
    arrays = read_npz(content)
    samples = np.concatenate([take(arrays, "pos", None, 4), take(arrays, "neg", None, 4)]).astype(np.float32)
    samples = samples[np.isfinite(samples).all(axis=1)] * np.float32(per_unit)
    if len(samples) == 0:
        raise Rejected("it holds no samples")
    return {"points": np.ascontiguousarray(samples[:, :3]), "sdf": np.ascontiguousarray(samples[:, 3])}


def read_normalisation(content: bytes) -> tuple[np.ndarray, float]:
    """Offset (3,) and scale of a NormalizationParameters file: x in DeepSDF's frame is (x + offset) * scale."""
    arrays = read_npz(content)
    offset, scale = take(arrays, "offset", 3).astype(np.float64), float(take(arrays, "scale", 1)[0])
    if not (np.isfinite(offset).all() and np.isfinite(scale) and scale > 0):
        raise Rejected(f"its frame is not one: offset {offset}, scale {scale}")
    return offset, scale


def _distances(shape: FinishedShape) -> Iterable[tuple[str, np.ndarray, np.ndarray]]:
    """Name of each set of points, sorted, with its distances (n,) and which of them count (n,) bool."""
    sets = [name for name in shape.arrays if name.startswith("sdf.") and not name.startswith("sdf.kept.")]
    for name in sorted(name.removeprefix("sdf.") for name in sets):
        distances = shape.arrays[f"sdf.{name}"]
        yield name, distances, shape.arrays.get(f"sdf.kept.{name}", np.ones(len(distances), bool))


def _points_of(shape: FinishedShape, name: str) -> np.ndarray:
    return shape.arrays[f"{name}.points"].astype(np.float64)


def _ply(points: np.ndarray) -> bytes:
    """An ASCII PLY of points; the faces make every three neighbours one, since readers of meshes want some."""
    faces = np.arange(len(points) // 3 * 3).reshape(-1, 3)
    header = (
        f"ply\nformat ascii 1.0\nelement vertex {len(points)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    vertices = ("%.9g %.9g %.9g\n" * len(points)) % tuple(points.ravel().tolist())
    corners = ("3 %d %d %d\n" * len(faces)) % tuple(faces.ravel().tolist())
    return (header + vertices + corners).encode()
