"""Exact distances from the nodes of a regular grid to triangles, in a narrow band round them.

Every triangle gives its distance to the nodes near it, row by row of the grid and column by column along the axis its
normal is nearest to; a column has only a few nodes near the triangle's plane. So nothing is asked far from the surface
and no search tree is walked, and, unlike Embree's, the distances are exact for slivers too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

COLUMNS_AT_ONCE = 1 << 15  # bounds the memory, and keeps the work in the processor's cache
SLACK = 1e-4  # voxels; the band is that much wider, so that rounding loses no node of it
LEVEL = 1e-9  # voxels; an edge that rises less than this runs along its row


def band_distances(triangles: np.ndarray, shape: np.ndarray, most: float) -> np.ndarray:
    """Distance of every node of the grid to the nearest triangle, capped at `most`, (nx, ny, nz) float32.

    triangles: (f, 3, 3) float64 in voxels, where node (i, j, k) is the point (i, j, k); each has an area, and may reach
    beyond the grid. shape: nodes along each axis. Exact to a few 1e-5 voxels.
    """
    squares = np.full(int(np.prod(shape)), most * most, np.float32)
    strides = np.array([shape[1] * shape[2], shape[2], 1], np.int64)
    reach = most + SLACK
    for depth, flat in _by_depth(_Flat.of(triangles, reach, shape), reach):
        for triangle, column in _columns(flat, reach):
            index, square = _squared_distances(flat, triangle, column, depth, strides)
            near = square < most * most
            np.minimum.at(squares, index[near], square[near])
    return np.sqrt(squares, out=squares).reshape(shape)


@dataclass(frozen=True)
class _Flat:
    """Triangles with a frame of their own and the nodes that may be near them.

    axis: (t, 3) the two axes across the columns, then the one along them; coordinates below stand in this order.
    low, high: (t, 3) first and last node that may be near. across: (t, 3, 2) corners seen along the columns.
    origin: (t, 3) first corner. frame: (t, 3, 3) unit vectors: the first edge, its normal in the plane, the plane's.
    edges: (t, 3) length of the first edge, and the third corner in the frame.
    """

    axis: np.ndarray
    low: np.ndarray
    high: np.ndarray
    across: np.ndarray
    origin: np.ndarray
    frame: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(cls, triangles: np.ndarray, reach: float, shape: np.ndarray) -> _Flat:
        ahead = (triangles.max(axis=1) > -reach).all(axis=1)
        triangles = triangles[ahead & (triangles.min(axis=1) < shape - 1 + reach).all(axis=1)]
        a, b, c = triangles.transpose(1, 0, 2)
        normal = np.cross(b - a, c - a)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        length = np.linalg.norm(b - a, axis=1)
        first = (b - a) / length[:, None]
        second = np.cross(normal, first)
        axis = (np.abs(normal).argmax(axis=1)[:, None] + np.array([1, 2, 0])) % 3
        last = np.asarray(shape)[axis] - 1

        def in_order(vectors: np.ndarray) -> np.ndarray:
            return np.take_along_axis(vectors, axis, axis=1)

        return cls(
            axis=axis,
            low=np.maximum(np.ceil(in_order(triangles.min(axis=1)) - reach), 0).astype(np.int32),
            high=np.minimum(np.floor(in_order(triangles.max(axis=1)) + reach), last).astype(np.int32),
            across=np.take_along_axis(triangles, axis[:, None, :2], axis=2),
            origin=in_order(a),
            frame=np.stack([in_order(first), in_order(second), in_order(normal)], axis=1),
            edges=np.stack([length, ((c - a) * first).sum(axis=1), ((c - a) * second).sum(axis=1)], axis=1),
        )

    def of_rows(self, rows: np.ndarray) -> _Flat:
        return _Flat(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


def _by_depth(flat: _Flat, reach: float) -> Iterator[tuple[int, _Flat]]:
    """The triangles by the number of nodes on a column that may be within `reach` of their plane."""
    steepness = np.abs(flat.frame[:, 2, 2])  # 0.57 at least
    depth = np.floor(2 * reach / steepness).astype(int) + 1
    for number in np.unique(depth):
        yield int(number), flat.of_rows(np.flatnonzero(depth == number))


def _columns(flat: _Flat, reach: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The columns near each triangle, in portions: the triangle (c,), and where across the column stands (c, 2)."""
    sides = (flat.high - flat.low + 1)[:, :2].astype(np.int64)
    sizes = np.cumsum(sides.prod(axis=1))
    cuts = np.unique(np.searchsorted(sizes, np.arange(COLUMNS_AT_ONCE, sizes[-1], COLUMNS_AT_ONCE)))
    for rows in np.split(np.arange(len(sizes)), cuts):
        which, row = _counted(flat.low[rows, 0], flat.high[rows, 0])
        triangle = rows[which]
        first, last = _spans(flat.across[triangle], row, reach)
        which, place = _counted(np.maximum(first, flat.low[triangle, 1]), np.minimum(last, flat.high[triangle, 1]))
        yield triangle[which], np.stack([row[which], place], axis=1)


def _counted(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All whole numbers from `first` to `last` of each entry (n,): which entry (m,), and the number (m,)."""
    numbers = np.maximum(last - first + 1, 0)
    entry = np.repeat(np.arange(len(first)), numbers)
    return entry, np.arange(len(entry)) + (first - np.cumsum(numbers) + numbers)[entry]


def _spans(corners: np.ndarray, row: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """First and last place (r,) on each row that may be near its triangle; corners: (r, 3, 2).

    A strip as wide as the band, round the row, cuts a part out of the triangle; what is near lies beside that part,
    which spans from the least to the largest end of the three edges' parts.
    """
    strip = reach + SLACK
    least, most = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    for k in range(3):
        (x, y), (next_x, next_y) = corners[:, k].T, corners[:, (k + 1) % 3].T
        rise = next_x - x
        rise[np.abs(rise) < LEVEL] = LEVEL  # an edge along the row is in the strip as a whole, or not at all
        ends = np.clip((row + np.array([[-strip], [strip]]) - x) / rise, 0, 1) * (next_y - y) + y
        touches = np.minimum(x, next_x) <= row + strip
        touches &= np.maximum(x, next_x) >= row - strip
        np.minimum(least, ends.min(axis=0), out=least, where=touches)
        np.maximum(most, ends.max(axis=0), out=most, where=touches)
    return np.ceil(least - reach).astype(np.int64), np.floor(most + reach).astype(np.int64)


def _squared_distances(
    flat: _Flat, triangle: np.ndarray, column: np.ndarray, depth: int, strides: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Flat index and squared distance to the triangle of `depth` nodes on each column, (depth, c) each."""
    frame, axis = flat.frame[triangle], flat.axis[triangle]
    beside = column - flat.origin[triangle, :2]
    height = flat.origin[triangle, 2]
    middle = height - (beside * frame[:, 2, :2]).sum(axis=1) / frame[:, 2, 2]  # where the column meets the plane
    start = np.ceil(middle - depth / 2).astype(np.int64)
    node = np.clip(start + np.arange(depth)[:, None], flat.low[triangle, 2], flat.high[triangle, 2])
    index = (column * strides[axis[:, :2]]).sum(axis=1) + node * strides[axis[:, 2]]
    along = (node - height).astype(np.float32)
    base = np.einsum("ck,cmk->mc", beside, frame[:, :, :2]).astype(np.float32)
    slope = frame[:, :, 2].T.astype(np.float32)
    u, v, w = (base[k] + slope[k] * along for k in range(3))
    return index, w * w + _squared_in_plane(u, v, *flat.edges[triangle].T.astype(np.float32))


def _squared_in_plane(u: np.ndarray, v: np.ndarray, length: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distance of points (u, v) to the triangle (0, 0), (length, 0), (x, y) with y > 0; zero inside."""
    square = _squared_to_segment(u, v, length, np.zeros_like(x))
    inside = v >= 0
    for start_u, start_v, edge_u, edge_v in ((length, 0, x - length, y), (x, y, -x, -y)):
        beside_u, beside_v = u - start_u, v - start_v
        inside &= edge_u * beside_v >= edge_v * beside_u
        np.minimum(square, _squared_to_segment(beside_u, beside_v, edge_u, edge_v), out=square)
    square[inside] = 0
    return square


def _squared_to_segment(u: np.ndarray, v: np.ndarray, edge_u: np.ndarray, edge_v: np.ndarray) -> np.ndarray:
    """Squared distance of points (u, v) to the segment from the origin to (edge_u, edge_v)."""
    square = np.maximum(edge_u * edge_u + edge_v * edge_v, np.finfo(np.float32).tiny)
    share = np.clip((u * edge_u + v * edge_v) / square, 0, 1)
    u, v = u - share * edge_u, v - share * edge_v
    return u * u + v * v
