"""Slits narrower than the grid is fine, opened in a closed mesh.

A shell closes every mouth narrower than about two offsets, and what lies behind is solid then, also a recess wide
enough to be followed. Points of the outer surface that are lost that way see infinity along lines through such mouths;
the recesses that these lead into (`meshes.pockets`) are taken away by a Boolean operation on manifolds, which leaves a
manifold.
"""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh
from pipeline.geometry.closest import Scene
from pipeline.geometry.measures import volume
from pipeline.geometry.simplify import simplified
from pipeline.geometry.solids import mesh_of, solid
from pipeline.meshes.acceptance import Original
from pipeline.meshes.keep import joined, split
from pipeline.meshes.pockets import pockets
from pipeline.meshes.shell import Shell
from pipeline.meshes.views import STEP_OFF, escapes, hidden, lines_of_sight

# Lengths in voxels of the shell's grid.
LOST = 1.5  # how far from the closed mesh a point of the outer surface is lost
WORTH = 1.9  # free space before a lost point, and wall behind it, that make it worth to open slits, and
CLEAR = 1.0  # those of the points that are reached for then
MANY = 0.005  # share of the outer points, lost on walls of that thickness, that makes it worth it in any free space
NEARBY = 32  # points drawn round each that is lost, where none is worth it
DEEPEST = 24.0  # most length of a line of sight inside: what is seen farther away through a crack stays closed
STRIDE = 0.5  # between the points on it


def lost_points(
    original: Original, closed: Mesh, distances: np.ndarray, resolution: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points of the outer surface that the closed mesh has lost, and their normals, (n, 3) each.

    None where all of them lie in slits, or on walls, too thin to be worth it. distances: of the original's outer points
    from the closed mesh, (n,); since these are far apart, more are drawn round the lost ones before it is left at that.
    """
    lost = distances > LOST / resolution
    points, normals = original.outer[lost], original.normals[lost]
    wall, gap = _wall_and_gap(original, points, normals, resolution)
    if (wall >= WORTH).sum() >= MANY * len(lost):
        return points[wall >= CLEAR], normals[wall >= CLEAR]
    clear = np.minimum(wall, gap)
    points, normals = points[clear >= CLEAR], normals[clear >= CLEAR]
    if (clear >= WORTH).any() or len(points) == 0:
        return points, normals
    more = _worth_nearby(original, closed, points, resolution)
    if len(more[0]) == 0:
        return more
    return np.concatenate([points, more[0]]), np.concatenate([normals, more[1]])


def _worth_nearby(
    original: Original, closed: Mesh, points: np.ndarray, resolution: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points of the outer surface, about a voxel from the given ones, that are lost and worth it; and their normals."""
    scene, draws = original.scene, np.random.default_rng(0).uniform(-1, 1, (len(points), NEARBY, 3))
    around = (points[:, None] + draws / resolution).reshape(-1, 3)
    points = scene.closest_points(around).astype(np.float64)
    normals = scene.closest_normals(around).astype(np.float64)
    worth = np.flatnonzero(np.minimum(*_clearances(scene, points, normals)) * resolution >= WORTH)
    lost = worth[Scene(closed).distance(points[worth]) > LOST / resolution]
    seen = np.delete(lost, hidden(scene, points[lost], normals[lost], original.settings.directions))
    return points[seen], normals[seen]


def _wall_and_gap(
    original: Original, points: np.ndarray, normals: np.ndarray, resolution: int
) -> tuple[np.ndarray, np.ndarray]:
    """How thick the wall is that outer points (n, 3) lie on, and the free space before them, (n,) in voxels.

    The free space is where the normal points, unless infinity can be seen from the other side only.
    """
    before, behind = (clearance * resolution for clearance in _clearances(original.scene, points, normals))
    front = escapes(original.scene, points, normals, original.settings.directions) > 0
    return np.where(front, behind, before), np.where(front, before, behind)


def _clearances(scene: Scene, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far it is from surface points (n, 3) along their normals, and against them, to more surface, (n,) each."""
    before, behind = (scene.clearance(points + STEP_OFF * way, way) for way in (normals, -normals))
    return before, behind


def opened(
    closed: Mesh,
    shell: Shell,
    mesh: Mesh,
    lines: np.ndarray,
    finer: int,
    offset: float,
    tolerance: float | None,
) -> Mesh:
    """The closed mesh without the recesses that lines of sight lead into.

    shell: that it was made from, and mesh the raw one. lines: points on the lines (`sights`). finer, offset: the grid
    for the recesses (`pockets.pockets`). tolerance: how far the surface may move when faces are saved, None for none.
    Raises Rejected where there is no recess.
    """
    recesses = pockets(shell, mesh, lines, finer, offset)
    if tolerance:
        recesses = simplified(recesses, tolerance)  # a cut costs by the face, and these have many
    left = solid(closed) - solid(recesses)
    parts = split(mesh_of(left.simplify(tolerance) if tolerance else left))
    return joined([part for part in parts if volume(part) > 0])  # cuts leave voids that nothing leads to


def sights(shell: Shell, scene: Scene, points: np.ndarray, normals: np.ndarray, directions: int) -> np.ndarray:
    """Points along the shortest line of sight from each surface point (n, 3) to the shell's outside, (m, 3)."""
    steps = np.arange(STRIDE, DEEPEST, STRIDE) / shell.grid.resolution
    length = np.full(len(points), len(steps))
    line = np.zeros_like(points)
    for rows, view in lines_of_sight(scene, points, normals, directions):
        outside = shell.is_outside(points[rows, None] + steps[:, None] * view)
        first = np.where(outside.any(axis=1), outside.argmax(axis=1), len(steps))
        shorter = first < length[rows]
        length[rows[shorter]], line[rows[shorter]] = first[shorter], view
    found = np.flatnonzero(length < len(steps))
    lines = [points[row] + steps[: length[row] + 1, None] * line[row] for row in found]
    return np.concatenate([np.zeros((0, 3)), *lines])
