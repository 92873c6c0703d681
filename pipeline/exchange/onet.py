"""The prepared ShapeNet of Occupancy Networks (dataset_small_v1.1), written and read.

<category>/<id>/points.npz, pointcloud.npz, model.binvox, img_choy2016/; <category>/{train,val,test}.lst; metadata.yaml.
Layout and types: sheet onet.md 3.1. Its frame is ours with the box of the raw mesh (`scale_to_off.box: raw`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import numpy as np

from pipeline.arrays import Rejected
from pipeline.exchange import views
from pipeline.exchange.binvox import read_binvox, write_binvox
from pipeline.exchange.npz import read_npz, take, write_npz
from pipeline.exchange.shape import FinishedShape

VOXELS = 32


def shape_files(shape: FinishedShape, float16: bool = False) -> dict[str, bytes]:
    """Files of one shape, by their path below <category>/<id>; voxels and views where the shape has them.

    float16: coordinates and normals in half precision, as published. Labels stay those of the stored points, so some
    points within 2.5e-4 of the surface then carry the label of where they were (0.12 % at sigma 0.01); the originals
    have the same fault.
    """
    kind = np.float16 if float16 else np.float32
    arrays, frame = shape.arrays, {"loc": np.asarray(shape.loc, np.float64), "scale": np.float64(shape.scale)}
    points = {
        "points": arrays["volume.points"].astype(kind),
        "occupancies": np.packbits(arrays["volume.occupancies"]),
        **frame,
    }
    cloud = {name: arrays[f"surface.{name}"].astype(kind) for name in ("points", "normals")}
    files = {"points.npz": write_npz(points), "pointcloud.npz": write_npz({**cloud, **frame})}
    if f"voxels.{VOXELS}" in arrays:
        files["model.binvox"] = write_binvox(arrays[f"voxels.{VOXELS}"])
    if "views.images" in arrays:
        files |= views.onet_files(arrays, frame["loc"], shape.scale)
    return files


def set_files(shapes: Iterable[tuple[str, str, str]], names: Mapping[str, str]) -> dict[str, bytes]:
    """metadata.yaml and the split lists of (category, id, split) rows; names: category → readable name."""
    lists: dict[str, dict[str, list[str]]] = {}
    for category, shape, split in sorted(shapes):
        lists.setdefault(category, {"train": [], "val": [], "test": []})[split].append(shape)
    # A line break at the end would be read as one more shape without a name.
    files = {
        f"{category}/{split}.lst": "\n".join(members).encode()
        for category, splits in lists.items()
        for split, members in splits.items()
    }
    table = {category: {"id": category, "name": names.get(category, category)} for category in lists}
    files["metadata.yaml"] = (
        json.dumps(table, indent=1, allow_nan=False) + "\n"
    ).encode()  # JSON is YAML, and keeps ids text
    return files


def read_points(content: bytes) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Points (n, 3) float32 and occupancies (n,) bool of a points.npz, then loc and scale. Raises Rejected."""
    arrays = read_npz(content)
    points = _coordinates(arrays, "points")
    flags = take(arrays, "occupancies", None)
    packed = (len(points) + 7) // 8
    if flags.dtype == np.uint8 and len(flags) == packed and packed != len(points):
        flags = np.unpackbits(flags, count=len(points))
    if len(flags) != len(points) or not np.isin(flags, (0, 1)).all():
        raise Rejected(f"its {len(points):,} points have {len(flags):,} occupancies, which is neither packed nor plain")
    return {"points": points, "occupancies": flags.astype(bool)}, *_frame(arrays)


def read_pointcloud(content: bytes) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Points and unit normals (n, 3) float32 of a pointcloud.npz, then loc and scale. Raises Rejected."""
    arrays = read_npz(content)
    points, normals = _coordinates(arrays, "points"), _coordinates(arrays, "normals").astype(np.float64)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    if len(normals) != len(points) or not (lengths > 0.5).all():
        raise Rejected("its surface points have not one normal of length 1 each")
    return {"points": points, "normals": (normals / lengths).astype(np.float32)}, *_frame(arrays)


def read_voxels(content: bytes) -> np.ndarray:
    """The grid (R, R, R) bool of a model.binvox, index order x, y, z, over [-0.5, 0.5]^3. Raises Rejected."""
    grid, _, _ = read_binvox(content)
    if len(set(grid.shape)) > 1:
        raise Rejected(f"its voxel grid is {grid.shape}, not a cube")
    return grid


def _coordinates(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    values = take(arrays, name, None, 3).astype(np.float32)
    if len(values) == 0 or not np.isfinite(values).all():
        raise Rejected(f"the array {name!r} is empty or holds values that are not finite")
    return values


def _frame(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, float]:
    loc, scale = take(arrays, "loc", 3).astype(np.float64), float(take(arrays, "scale"))
    if not (np.isfinite(loc).all() and np.isfinite(scale) and scale > 0):
        raise Rejected(f"its frame is not one: loc {loc}, scale {scale}")
    return loc, scale
