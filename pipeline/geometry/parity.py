"""Inside by parity along z, exactly as Occupancy Networks defines it (im2mesh's libmesh; sheet onet.md 3.3).

Vectorised over point-face pairs: points are sorted into rows and columns of the xy plane, so that the points a face may
cover are a few runs of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.arrays import Mesh

FRAME = 512  # edge of the frame in which crossings are judged; the original's hash resolution
ROWS, COLUMNS = 256, 1024  # cells that points are sorted into along x and y of that frame
CHUNK_PAIRS = 1 << 21  # point-triangle pairs judged at once


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
    corners = mesh.triangles.reshape(-1, 3)
    low, high = corners.min(axis=0), corners.max(axis=0)
    if not (high > low).all():
        return above, below  # a flat mesh holds nothing, and its box cannot be stretched
    scale = (resolution - 1) / (high - low)
    shift = 0.5 - scale * low
    triangles, points = (scale * corners + shift).reshape(-1, 3, 3), scale * points + shift
    kept = np.flatnonzero(((points >= 0) & (points <= resolution)).all(axis=1))  # false for NaN
    grid = np.array([ROWS, COLUMNS]) / resolution
    cell = _cells(points[kept, 0] * grid[0], ROWS) * COLUMNS + _cells(points[kept, 1] * grid[1], COLUMNS)
    order = np.argsort(cell)
    kept = kept[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=ROWS * COLUMNS))])
    for point, face in _candidates(triangles, starts, grid):
        hit = _strictly_within(triangles, face, points[kept[point]])
        point, face = kept[point[hit]], face[hit]
        up = _crosses_above(triangles, face, points[point])
        above += np.bincount(point[up], minlength=len(points))
        below += np.bincount(point[~up], minlength=len(points))
    return above, below


def _cells(coordinates: np.ndarray, count: int) -> np.ndarray:
    return np.clip(coordinates, 0, count - 1).astype(np.int64)


def _candidates(triangles: np.ndarray, starts: np.ndarray, grid: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (points, faces) in chunks such that a point may lie in the xy box of its face.

    Points are sorted by row, then column, and starts tells where each cell begins. So the points that a face may cover
    in one row are one run, and a face has as many runs as its box has rows. grid: cells per unit of length, (2,).
    """
    first, second, third = (triangles[:, :, :2] * grid).transpose(1, 0, 2)
    low = np.minimum(np.minimum(first, second), third)
    high = np.maximum(np.maximum(first, second), third)
    first_row = _cells(low[:, 0], ROWS)
    rows = _cells(high[:, 0], ROWS) - first_row + 1
    face = np.repeat(np.arange(len(triangles)), rows)
    row = _runs(first_row, rows) * COLUMNS
    begin = starts[row + _cells(low[:, 1], COLUMNS)[face]]
    count = starts[row + _cells(high[:, 1], COLUMNS)[face] + 1] - begin
    face, begin, count = (array[count > 0] for array in (face, begin, count))
    total = np.cumsum(count)
    cuts = np.searchsorted(total, np.arange(CHUNK_PAIRS, total[-1] if len(total) else 0, CHUNK_PAIRS))
    for part in np.split(np.arange(len(count)), cuts):
        yield _runs(begin[part], count[part]), np.repeat(face[part], count[part])


def _runs(begin: np.ndarray, count: np.ndarray) -> np.ndarray:
    """begin[0], begin[0] + 1, ... (count[0] numbers), then the same from begin[1] on, and so forth."""
    ends = np.cumsum(count)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(begin - ends + count, count)


def _strictly_within(triangles: np.ndarray, face: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether each point's xy lies strictly within its face's, by the signs of its scaled barycentric coordinates.

    All are scaled by the projection's area, so nothing is divided; the order of operations is the original's, which
    decides points that lie on an edge up to rounding.
    """
    third = triangles[:, 2, :2]
    to_first, to_second = triangles[:, 0, :2] - third, triangles[:, 1, :2] - third
    area = to_first[:, 0] * to_second[:, 1] - to_second[:, 0] * to_first[:, 1]
    side, area = np.sign(area), np.abs(area)[face]
    x, y = (points[:, :2] - third[face]).T
    u = (side * to_second[:, 1])[face] * x - (side * to_second[:, 0])[face] * y
    v = (side * to_first[:, 0])[face] * y - (side * to_first[:, 1])[face] * x
    return (u > 0) & (u < area) & (v > 0) & (v < area) & (u + v < area)


def _crosses_above(triangles: np.ndarray, face: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether each point's line along z meets its face at the point's height or higher."""
    first, second, third = triangles[face].transpose(1, 0, 2)
    normal = np.cross(third - first, second - first)
    rise = (normal[:, :2] * (first[:, :2] - points[:, :2])).sum(axis=1) * np.sign(normal[:, 2])
    steepness = np.abs(normal[:, 2])  # heights are compared in units of it, so nothing is divided
    return first[:, 2] * steepness + rise >= points[:, 2] * steepness
