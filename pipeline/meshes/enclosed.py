"""How much of a closed mesh's volume the raw surface encloses, and how much is the thickness that it was given.

What is enclosed cannot be seen from infinity, whichever way faces are wound. A sheet encloses nothing and has to be
given thickness; but a body that is small beside the grid must not come out as several times what it was.
"""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh
from pipeline.geometry.closest import Scene
from pipeline.geometry.sampling import points_on_surface
from pipeline.meshes.interior import LEVEL, Enclosure
from pipeline.meshes.views import STEP_OFF, escapes, hidden_points

CHORDS = 2000  # points within the closed mesh that are looked at, each on a chord of its own
VIEWS = 48  # directions in which each is looked at
BULK = 0.99  # share of the surface that a shape's bulk holds along each axis
SAMPLES = 20_000  # points on the surface by which the bulk is found


def growth(closed: Mesh, raw: Scene, enclosure: Enclosure | None = None) -> float:
    """How many times the volume that the raw surface encloses the closed mesh has, where it follows such surface.

    enclosure: given for the solid reading, what open shells enclose counts too.
    1 where most of the closed mesh follows sheets, which enclose nothing; inf where it does not, and no point within it
    is enclosed.
    """
    points, weights = _points_within(closed)
    enclosed = hidden_points(raw, points, VIEWS)
    if enclosure is not None:
        enclosed |= enclosure.winding(points) > LEVEL
    added = np.zeros(len(points), bool)
    beside = np.flatnonzero(~enclosed)
    added[beside] = _one_sided(raw, points[beside])
    solid = weights[enclosed | added].sum()
    if solid < weights.sum() / 2:
        return 1.0
    with np.errstate(divide="ignore"):
        return float(solid / weights[enclosed].sum())


def bulk_edge(mesh: Mesh) -> float:
    """Longest edge of the box of nearly all of the surface: along each axis the farthest 1 % by area are left out."""
    points, _ = points_on_surface(mesh, SAMPLES, np.random.default_rng(0))
    low, high = np.quantile(points, [(1 - BULK) / 2, (1 + BULK) / 2], axis=0)
    return float((high - low).max())


def _points_within(closed: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) within a closed mesh and their weights (n,), uniform by volume.

    Chords from points uniform on the surface, in directions by the cosine to its normal, cross every part of the volume
    in proportion to it; each gives a point that counts by its length.
    """
    rng = np.random.default_rng(0)
    starts, normals = points_on_surface(closed, CHORDS, rng)
    turns = rng.normal(size=normals.shape)
    inward = turns / np.linalg.norm(turns, axis=1, keepdims=True) - normals
    inward /= np.linalg.norm(inward, axis=1, keepdims=True)
    starts = starts + STEP_OFF / 10 * inward
    lengths = Scene(closed).clearance(starts, inward)
    lengths = np.where(np.isfinite(lengths), lengths, 0)
    return starts + (rng.random(len(starts)) * lengths)[:, None] * inward, lengths


def _one_sided(raw: Scene, points: np.ndarray) -> np.ndarray:
    """Whether the surface nearest to each point (n, 3) is hidden on one side, as that of a body is, (n,) bool."""
    nearest = raw.closest_points(points).astype(np.float64)
    normals = raw.closest_normals(points).astype(np.float64)
    front = escapes(raw, nearest, normals, VIEWS) > 0
    back = escapes(raw, nearest, -normals, VIEWS) > 0
    return ~(front & back)
