"""The data stages of a prepared set: named and set as those that compute, but read from another project's files.

Each takes the bytes of its file and of the files beside it, and gives a product of the same arrays. What the file lacks
cannot be made: the shape is rejected with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.arrays import Product, Rejected
from pipeline.exchange.onet import read_pointcloud, read_points, read_voxels
from pipeline.exchange.views import read_views
from pipeline.samples.solid import share
from pipeline.samples.surface import SurfaceSettings
from pipeline.samples.views import ViewSettings
from pipeline.samples.volume import VolumeSettings
from pipeline.samples.voxels import VoxelSettings
from pipeline.storage import bits_encoding, png_encoding, rounded

CAMERAS, FRAME = "cameras.npz", "points.npz"


def sample_surface(content: bytes, name: str, companions: Mapping[str, bytes], settings: SurfaceSettings) -> Product:
    """The first `count` points and normals of a pointcloud.npz, or all where there are fewer."""
    value, loc, scale = read_pointcloud(content)
    value = {array: values[: settings.count] for array, values in value.items()}
    encoding = {"points": _own_precision(value["points"]), "normals": (settings.storage.normals,)}
    value["normals"] = rounded(value["normals"], encoding["normals"])
    return Product(value, _figures(value, loc, scale), encoding)


def sample_volume(content: bytes, name: str, companions: Mapping[str, bytes], settings: VolumeSettings) -> Product:
    """The first `count` points and occupancies of a points.npz, or all where there are fewer."""
    value, loc, scale = read_points(content)
    value = {array: values[: settings.count] for array, values in value.items()}
    figures = {**_figures(value, loc, scale), "occupied_share": share(value["occupancies"])}
    encoding = {"points": _own_precision(value["points"]), "occupancies": bits_encoding(value["occupancies"])}
    return Product(value, figures, encoding)


def voxelize(content: bytes, name: str, companions: Mapping[str, bytes], settings: VoxelSettings) -> Product:
    """The grid of a model.binvox. Rejected where it is of another resolution than the study asks for."""
    grid = read_voxels(content)
    if grid.shape[0] != settings.resolution:
        raise Rejected(
            f"its voxel grid has {grid.shape[0]} cells along an edge, the study asks for {settings.resolution}"
        )
    return Product({"occupancies": grid}, {"occupied_share": share(grid)}, {"occupancies": bits_encoding(grid)})


def render_views(content: bytes, name: str, companions: Mapping[str, bytes], settings: ViewSettings) -> Product:
    """The first `views` pictures beside a cameras.npz, whose matrices are brought from the frame in points.npz."""
    if FRAME not in companions:
        raise Rejected(f"its {FRAME}, which tells the frame of its cameras, is missing")
    _, loc, scale = read_points(companions[FRAME])
    pictures = {file: picture for file, picture in companions.items() if file != FRAME}
    value = {array: values[: settings.views] for array, values in read_views(pictures, content, loc, scale).items()}
    return Product(value, {"views": len(value["images"])}, {"images": png_encoding(value["images"])})


def _own_precision(points: np.ndarray) -> tuple[str]:
    """The smallest encoding that keeps points as the file has them: their labels belong to these very points."""
    with np.errstate(over="ignore"):
        return ("float16",) if (points.astype(np.float16) == points).all() else ("float32",)


def _figures(value: Mapping[str, np.ndarray], loc: np.ndarray, scale: float) -> dict:
    return {"points": len(value["points"]), "loc": loc.tolist(), "scale": scale}
