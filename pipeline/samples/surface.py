"""Points on a mesh's surface, uniform by area, with the outward normals of their faces."""

from __future__ import annotations

from pydantic import PositiveInt

from pipeline.settings import Settings
from pipeline.storage_settings import StorageSettings


class SurfaceSettings(Settings):
    """Points with normals on the watertight mesh."""

    count: PositiveInt = 100_000
    """Points per shape. Independent draws: a smaller count gives the first points of a larger one."""

    stratified: bool = False
    """One point in each of `count` parts of equal area, in shuffled order, instead of independent draws: parts of the
    surface then get their share of points almost exactly."""

    storage: StorageSettings = StorageSettings()
    """Precision of the stored points and normals."""


import numpy as np

from pipeline.arrays import Mesh, Product, Rejected
from pipeline.geometry.measures import area, face_cross
from pipeline.samples.solid import require_room, significant
from pipeline.storage import points_encoding, rounded


def sample_surface(mesh: Mesh, settings: SurfaceSettings, rng: np.random.Generator) -> Product:
    """Area-uniform points (n, 3) and unit outward face normals (n, 3), in random order: any prefix is a smaller set.

    The mesh must be wound outward. Raises Rejected where its area is zero or not finite, MemoryError where the process
    may not hold so many.
    """
    require_room(settings.count)
    points, normals = draw_on_surface(mesh, settings.count, rng, settings.stratified)
    # The range comes from the mesh, not from the points, so that rounding does not depend on the count.
    encoding = {
        "points": points_encoding(mesh.bounds, settings.storage.points),
        "normals": (settings.storage.normals,),
    }
    value = {name: rounded(array, encoding[name]) for name, array in (("points", points), ("normals", normals))}
    return Product(value, figures={"area": significant(area(mesh))}, encoding=encoding)


def draw_on_surface(
    mesh: Mesh, count: int, rng: np.random.Generator, stratified: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Unrounded points (count, 3) and face normals (count, 3), float64; Rejected as in `sample_surface`."""
    cross = face_cross(mesh)  # outward, as long as twice the face's area
    lengths = np.linalg.norm(cross, axis=1)
    total = lengths.sum()
    if not (np.isfinite(total) and total > 0):
        raise Rejected(f"the mesh has {len(mesh.faces)} faces of total area {total / 2}, so no point can lie on it")
    draws = rng.random((count, 3))
    if stratified:
        draws[:, 0] = (np.arange(count) + draws[:, 0]) / count
        draws = draws[rng.permutation(count)]
    solid = np.flatnonzero(lengths)
    cumulative = np.cumsum(lengths[solid])
    # In the last stratum a draw may round up to 1, the whole area: it belongs to the last face.
    place = np.searchsorted(cumulative, draws[:, 0] * cumulative[-1], side="right").clip(max=len(solid) - 1)
    chosen = solid[place]
    return _within(mesh.triangles[chosen], draws[:, 1], draws[:, 2]), cross[chosen] / lengths[chosen, None]


def _within(triangles: np.ndarray, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Points in triangles (n, 3, 3) from two draws in [0, 1).

    The root makes the density even: the part of a triangle nearer to its first corner than a share t of the way has
    area t squared.
    """
    reach, turn = np.sqrt(along)[:, None], across[:, None]
    a, b, c = triangles.transpose(1, 0, 2)
    return (1 - reach) * a + reach * (1 - turn) * b + reach * turn * c
