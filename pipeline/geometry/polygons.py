"""Polygons of any number of corners, and their cutting into triangles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.arrays import Rejected

MAX_CONCAVE_CORNERS = 1000  # clipping ears costs up to the cube of this
FLAT = 1e-12  # turn, relative to the polygon's area, under which three corners count as one line


@dataclass(frozen=True)
class Polygons:
    """vertices (v, 3) float64; corners (k,) int64, the vertices of all polygons in a row; sizes (p,) int64."""

    vertices: np.ndarray
    corners: np.ndarray
    sizes: np.ndarray


def triangulated(polygons: Polygons) -> np.ndarray:
    """Triangles (f, 3) int64 that cover the polygons, in their order and winding.

    Convex polygons become fans from their first corner; concave ones lose ear after ear, so that nothing outside them
    is covered; polygons of fewer than three corners give nothing. Indices must be valid. Raises Rejected for a concave
    polygon of more than 1,000 corners.
    """
    starts = np.cumsum(polygons.sizes) - polygons.sizes
    parts, owners = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    for size in np.unique(polygons.sizes[polygons.sizes >= 3]):
        which = np.flatnonzero(polygons.sizes == size)
        corners = polygons.corners[starts[which, None] + np.arange(size)]  # (m, size)
        parts.append(_triangles(polygons.vertices, corners).reshape(-1, 3))
        owners.append(np.repeat(which, size - 2))
    order = np.argsort(np.concatenate(owners), kind="stable")
    return np.concatenate(parts)[order]


def _triangles(vertices: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(m, n) polygons of one size to (m, n - 2, 3) triangles."""
    size = corners.shape[1]
    ranks = np.arange(1, size - 1)
    fan = np.stack([np.zeros_like(ranks), ranks, ranks + 1], axis=1)
    triangles = corners[:, fan]
    if size > 3:
        points, normals = _local(vertices[corners])
        for i in np.flatnonzero(_is_concave(points, normals)):
            triangles[i] = corners[i][_clip_ears(_flattened(points[i], normals[i]))]
    return triangles


def _local(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polygons (m, n, 3) moved to their first corner and scaled to size 1, and their unit normals (Newell)."""
    with np.errstate(all="ignore"):  # not-finite vertices are refused later, with their own reason
        points = points - points[:, :1]
        points = points / np.maximum(np.abs(points).max(axis=(1, 2), keepdims=True), np.finfo(float).tiny)
        normals = np.cross(points, np.roll(points, -1, axis=1)).sum(axis=1)
        return points, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(float).tiny)


def _is_concave(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Whether some corner of each polygon turns against its normal, (m,) bool."""
    arriving = points - np.roll(points, 1, axis=1)
    turns = np.einsum("mnk,mk->mn", np.cross(arriving, np.roll(arriving, -1, axis=1)), normals)
    return (turns < -FLAT).any(axis=1)


def _flattened(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The polygon (n, 3) seen along its normal, (n, 2), counter-clockwise."""
    helper = np.eye(3)[np.abs(normal).argmin()]
    right = np.cross(helper, normal)
    right /= np.linalg.norm(right)
    return np.stack([points @ right, points @ np.cross(normal, right)], axis=1)


def _clip_ears(points: np.ndarray) -> np.ndarray:
    """Triangles (n - 2, 3) of a counter-clockwise polygon (n, 2)."""
    if len(points) > MAX_CONCAVE_CORNERS:
        raise Rejected(f"a concave polygon has {len(points)} corners; at most {MAX_CONCAVE_CORNERS} are cut up")
    left = list(range(len(points)))
    triangles = []
    while len(left) > 3:
        at = _find_ear(points[left])
        triangles.append((left[at - 1], left[at], left[(at + 1) % len(left)]))
        del left[at]
    return np.array([*triangles, tuple(left)])


def _find_ear(points: np.ndarray) -> int:
    """The corner to cut: the first true ear; failing that (a crossed polygon) a straight or the sharpest one."""
    before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
    turns = _cross(points - before, after - points)
    for at in np.flatnonzero(turns > FLAT):
        if not _holds_any(before[at], points[at], after[at], points):
            return int(at)
    straight = np.flatnonzero(np.abs(turns) <= FLAT)
    return int(straight[0]) if len(straight) else int(turns.argmax())


def _holds_any(a: np.ndarray, b: np.ndarray, c: np.ndarray, points: np.ndarray) -> bool:
    """Whether one of the points lies in the triangle or on its border, its corners excepted."""
    sides = [_cross(end - start, points - start) for start, end in ((a, b), (b, c), (c, a))]
    within = np.min(sides, axis=0) >= -FLAT
    is_corner = (points[:, None] == np.stack([a, b, c])).all(axis=2).any(axis=1)  # by position: bridges name one twice
    return bool((within & ~is_corner).any())


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
