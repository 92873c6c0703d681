"""Polygons of any number of corners, and their cutting into triangles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.arrays import Rejected
from pipeline.geometry.solids import cut_outline

MAX_CUT_CORNERS = 1000  # cutting costs up to the square of this
FLAT = 1e-12  # area, relative to the square of the polygon's size, under which three corners count as one line


@dataclass(frozen=True)
class Polygons:
    """vertices (v, 3) float64; corners (k,) int64, the vertices of all polygons in a row; sizes (p,) int64."""

    vertices: np.ndarray
    corners: np.ndarray
    sizes: np.ndarray


def without_repeated_corners(polygons: Polygons) -> Polygons:
    """The polygons with corners that are named twice in a row named once; triangles stay as they are."""
    if not (polygons.sizes > 3).any():
        return polygons
    starts = np.cumsum(polygons.sizes) - polygons.sizes
    owners = np.repeat(np.arange(len(polygons.sizes)), polygons.sizes)
    following = np.arange(1, len(polygons.corners) + 1)
    filled = polygons.sizes > 0
    following[(starts + polygons.sizes - 1)[filled]] = starts[filled]
    repeated = (polygons.corners == polygons.corners[following]) & (polygons.sizes[owners] > 3)
    sizes = polygons.sizes - np.bincount(owners[repeated], minlength=len(polygons.sizes))
    return Polygons(polygons.vertices, polygons.corners[~repeated], sizes)


def triangulated(polygons: Polygons) -> np.ndarray:
    """Triangles (f, 3) int64 that cover the polygons, in their order and winding.

    Polygons whose fan from the first corner lies inside them, as that of every convex one, become that fan; manifold3d
    cuts the others, so that nothing outside them is covered. Polygons of fewer than three corners, those named twice in
    a row counted once, give nothing. Indices must be valid. Raises Rejected for more than 1,000 corners to be cut.
    """
    polygons = without_repeated_corners(polygons)
    starts = np.cumsum(polygons.sizes) - polygons.sizes
    parts, owners = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    for size in np.unique(polygons.sizes[polygons.sizes >= 3]):
        which = np.flatnonzero(polygons.sizes == size)
        corners = polygons.corners[starts[which, None] + np.arange(size)]  # (m, size)
        for number, triangles in _triangles(polygons.vertices, corners):
            parts.append(triangles)
            owners.append(np.repeat(which[number], len(triangles) // max(np.size(number), 1)))
    order = np.argsort(np.concatenate(owners), kind="stable")
    return np.concatenate(parts)[order]


def _triangles(vertices: np.ndarray, corners: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers of (m, n) polygons of one size and their triangles (f, 3), as many for each: first all fans."""
    size = corners.shape[1]
    ranks = np.arange(1, size - 1)
    fan = np.stack([np.zeros_like(ranks), ranks, ranks + 1], axis=1)
    if size == 3:
        yield np.arange(len(corners)), corners
        return
    points, normals = _local(vertices[corners])
    leaves = _leaves(points, normals)
    inside = np.flatnonzero(~leaves)
    yield inside, corners[inside][:, fan].reshape(-1, 3)
    for number in np.flatnonzero(leaves):
        if size > MAX_CUT_CORNERS:
            raise Rejected(f"a concave polygon has {size} corners; at most {MAX_CUT_CORNERS} are cut up")
        outline = _flattened(points[number], normals[number])
        yield np.array([number]), corners[number][cut_outline(outline)]


def _local(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polygons (m, n, 3) moved to their first corner and scaled to size 1, and their unit normals (Newell)."""
    with np.errstate(all="ignore"):  # not-finite vertices are refused later, with their own reason
        points = points - points[:, :1]
        points = points / np.maximum(np.abs(points).max(axis=(1, 2), keepdims=True), np.finfo(float).tiny)
        normals = np.cross(points, np.roll(points, -1, axis=1)).sum(axis=1)
        return points, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(float).tiny)


def _leaves(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Whether the fan of each polygon (m, n, 3) has a triangle that runs against its normal (m, 3); (m,) bool.

    The first corner is the origin. The signed areas of a fan add up to the polygon's, so where none is negative it
    covers the polygon and no more, whatever corners lie on each other or in a line.
    """
    areas = np.einsum("mnk,mk->mn", np.cross(points[:, 1:-1], points[:, 2:]), normals)
    return (areas < -FLAT).any(axis=1)


def _flattened(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The polygon (n, 3) seen along its normal, (n, 2), counter-clockwise."""
    helper = np.eye(3)[np.abs(normal).argmin()]
    right = np.cross(helper, normal)
    right /= np.linalg.norm(right)
    return np.stack([points @ right, points @ np.cross(normal, right)], axis=1)
