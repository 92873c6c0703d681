"""Inside by parity along z, exactly as Occupancy Networks defines it (im2mesh's libmesh; sheet onet.md 3.3).

Vectorised over point-face pairs: points are sorted into rows and columns of the xy plane, so that the points a face may
cover are a few runs of them. Coordinates stand in arrays of their own and pairs are judged in pieces that the
processor's cache holds, which halves the time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.arrays import Mesh

FRAME = 512  # edge of the frame in which crossings are judged; the original's hash resolution
ROWS, COLUMNS = 256, 1024  # cells that points are sorted into along x and y of that frame
CHUNK_FACES, CHUNK_PAIRS = 1 << 14, 1 << 15  # faces, and point-face pairs, judged at once


def inside_parity(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    """Whether each point (n, 3) lies inside the mesh, (n,) bool: crossings above and below along z are both odd.

    Where a hole makes the two parities disagree the point is outside. A mesh without faces contains nothing.
    """
    above, below = crossings(mesh, points)
    return (above % 2 == 1) & (below % 2 == 1)


def crossings(mesh: Mesh, points: np.ndarray, resolution: float = FRAME) -> tuple[np.ndarray, np.ndarray]:
    """How many faces the line through each point (n, 3) along z crosses above (or at) it and below it, (n,) each.

    A face counts where its projection strictly contains the point's: lines through edges and vertices miss it. Points
    outside the mesh's box have no crossings, faces parallel to z are never crossed. All is judged in a frame where the
    mesh's box is stretched, axis by axis, to 0.5 ... resolution - 0.5; that only decides how sums are rounded.
    """
    points = np.asarray(points).reshape(-1, 3)
    above, below = np.zeros(len(points), np.int64), np.zeros(len(points), np.int64)
    if len(mesh.faces) == 0:
        return above, below
    corners, vertices = mesh.faces.T.astype(np.int64, order="C"), np.ascontiguousarray(mesh.vertices.T)
    low, high = _box(vertices, corners)
    if not (high > low).all():
        return above, below  # a flat mesh holds nothing, and its box cannot be stretched
    scale = (resolution - 1) / (high - low)
    shift = 0.5 - scale * low
    vertices = scale[:, None] * vertices + shift[:, None]
    points = scale[:, None] * np.ascontiguousarray(points.T) + shift[:, None]
    kept = np.flatnonzero(((points >= 0) & (points <= resolution)).all(axis=0))  # false for NaN
    grid = np.array([ROWS, COLUMNS]) / resolution
    x, y, z = points.take(kept, axis=1)
    cell = _cells(x * grid[0], ROWS) * COLUMNS + _cells(y * grid[1], COLUMNS)
    order = np.argsort(cell)
    kept, x, y, z = (array.take(order) for array in (kept, x, y, z))
    starts = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=ROWS * COLUMNS))])
    for first in range(0, corners.shape[1], CHUNK_FACES):
        triangles = vertices.take(corners[:, first : first + CHUNK_FACES], axis=1)
        edges = _edges(triangles)
        for point, face in _candidates(triangles, starts, grid):
            hit = np.flatnonzero(_strictly_within(edges, face, x.take(point), y.take(point)))
            point, face = point.take(hit), face.take(hit)
            up = _crosses_above(triangles.take(face, axis=2), x.take(point), y.take(point), z.take(point))
            point = kept.take(point)
            np.add.at(above, point[up], 1)
            np.add.at(below, point[~up], 1)
    return above, below


def _box(vertices: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest coordinates, (3,) each, of those vertices (3, v) that are a corner of a face."""
    used = np.zeros(vertices.shape[1], bool)
    used[corners] = True
    vertices = vertices if used.all() else vertices[:, used]
    return vertices.min(axis=1), vertices.max(axis=1)


def _cells(coordinates: np.ndarray, count: int) -> np.ndarray:
    return np.clip(coordinates, 0, count - 1).astype(np.int64)


def _candidates(triangles: np.ndarray, starts: np.ndarray, grid: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (points, faces) in chunks such that a point may lie in the xy box of its face.

    Points are sorted by row, then column, and starts tells where each cell begins. So the points that a face may cover
    in one row are one run, and a face has as many runs as its box has rows. triangles: coordinate, corner, face.
    grid: cells per unit of length, (2,).
    """
    low, high = triangles[:2].min(axis=1) * grid[:, None], triangles[:2].max(axis=1) * grid[:, None]
    first_row, first_column = _cells(low[0], ROWS), _cells(low[1], COLUMNS)
    rows, columns = _cells(high[0], ROWS) - first_row + 1, _cells(high[1], COLUMNS) - first_column + 1
    face = np.repeat(np.arange(len(rows)), rows)
    cell = _runs(first_row, rows) * COLUMNS + first_column.take(face)
    begin = starts.take(cell)
    count = starts.take(cell + columns.take(face)) - begin
    some = np.flatnonzero(count)
    face, begin, count = face.take(some), begin.take(some), count.take(some)
    total = np.cumsum(count)
    cuts = np.searchsorted(total, np.arange(CHUNK_PAIRS, total[-1] if len(total) else 0, CHUNK_PAIRS))
    for first, last in zip([0, *cuts], [*cuts, len(count)], strict=True):
        part = slice(first, last)
        yield _runs(begin[part], count[part]), np.repeat(face[part], count[part])


def _runs(begin: np.ndarray, count: np.ndarray) -> np.ndarray:
    """begin[0], begin[0] + 1, ... (count[0] numbers), then the same from begin[1] on, and so forth."""
    ends = np.cumsum(count)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(begin - ends + count, count)


def _edges(triangles: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of each face what `_strictly_within` needs, (faces,) each."""
    (ax, bx, cx), (ay, by, cy) = triangles[:2]
    ax, bx, ay, by = ax - cx, bx - cx, ay - cy, by - cy
    area = ax * by - bx * ay
    side = np.sign(area)
    return cx, cy, side * ax, side * ay, side * bx, side * by, np.abs(area)


def _strictly_within(edges: tuple[np.ndarray, ...], face: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether each place (x, y) lies strictly within its face, by the signs of its scaled barycentric coordinates.

    All are scaled by the projection's area, so nothing is divided; the order of operations is the original's, which
    decides points that lie on an edge up to rounding.
    """
    cx, cy, ax, ay, bx, by, area = edges
    x, y = x - cx.take(face), y - cy.take(face)
    u = by.take(face) * x - bx.take(face) * y
    v = ax.take(face) * y - ay.take(face) * x
    return (u > 0) & (v > 0) & (u + v < area.take(face))


def _crosses_above(triangles: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Whether each point's line along z meets its face, triangles[:, :, i], at the point's height or higher."""
    (ax, bx, cx), (ay, by, cy), (az, bz, cz) = triangles
    (ux, uy, uz), (vx, vy, vz) = (cx - ax, cy - ay, cz - az), (bx - ax, by - ay, bz - az)
    normal = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    rise = (normal[0] * (ax - x) + normal[1] * (ay - y)) * np.sign(normal[2])
    steepness = np.abs(normal[2])  # heights are compared in units of it, so nothing is divided
    return az * steepness + rise >= z * steepness
