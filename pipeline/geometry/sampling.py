"""Random points on a mesh, uniform by area."""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh
from pipeline.geometry.measures import face_cross, lengths


def points_on_surface(mesh: Mesh, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Independent points (count, 3) and the unit normals (count, 3) of their faces, float64, in the faces' order.

    The order makes neighbours in the sequence neighbours on the surface, which nearest-point queries profit from; a
    part of the sequence is not a sample of the whole. Raises ValueError where the area is zero or not finite.
    """
    cross = face_cross(mesh)
    doubled = lengths(cross)
    cumulative = np.cumsum(doubled)
    if not (len(doubled) and np.isfinite(cumulative[-1]) and cumulative[-1] > 0):
        raise ValueError(f"no point lies on the mesh: its {len(doubled)} faces have no area, or one that is not finite")
    # "right" never meets a face without area; a draw that rounds up to the whole belongs to the last one that has some.
    drawn = np.searchsorted(cumulative, np.sort(rng.random(count)) * cumulative[-1], side="right")
    face = np.minimum(drawn, np.flatnonzero(doubled)[-1])
    along, across = rng.random((2, count, 1))
    beyond = along + across > 1  # past the diagonal: mirrored back, the square folds evenly onto the triangle
    along, across = np.where(beyond, 1 - along, along), np.where(beyond, 1 - across, across)
    a, b, c = (mesh.vertices.take(mesh.faces[:, corner].take(face), axis=0) for corner in range(3))
    return a + along * (b - a) + across * (c - a), cross.take(face, axis=0) / doubled.take(face)[:, None]
