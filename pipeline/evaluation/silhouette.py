"""Silhouettes of a mesh: which pixels its projection covers, by the rules of graphics cards and without one.

Vertices are rounded to 1/256 of a pixel and a pixel is covered where its centre lies in a face, the left and lower
edges included: OpenGL's rules with the eight sub-pixel bits that Mesa has. With them the golden values of the light
field distance come out to the integer; without the rounding they are off by up to 4.
"""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh

UP = (0.0, 1.0, 0.0)
SUBPIXELS = 256  # steps per pixel to which vertices are rounded


def silhouette(mesh: Mesh, eye: np.ndarray, pixels: int) -> np.ndarray:
    """The mesh seen from `eye` (3,) towards the origin, orthographic, (pixels, pixels) bool, index order y, x.

    The window is [-1, 1]^2, y upwards with the y axis up. Pixel (x, y) has its centre at (2 (x + 0.5) / pixels - 1,
    2 (y + 0.5) / pixels - 1) and is covered where that lies in the projection of some face, seen from either side. The
    mesh must lie within the window; the eye must not stand on the y axis.
    """
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, UP)
    right /= np.linalg.norm(right)
    plane = np.stack([right, np.cross(right, forward)], axis=1)
    corners = np.round((mesh.vertices @ plane + 1) * (pixels / 2) * SUBPIXELS) / SUBPIXELS
    row, begin, end = _spans(*(corners - 0.5).T.copy(), mesh.faces)  # in units where the centres are integers
    covered = np.bincount(row * (pixels + 1) + begin, minlength=pixels * (pixels + 1))
    covered -= np.bincount(row * (pixels + 1) + end, minlength=pixels * (pixels + 1))
    return covered.reshape(pixels, pixels + 1).cumsum(axis=1)[:, :pixels] > 0


def _spans(x: np.ndarray, y: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of integer points within triangles: row, first x and the x after the last, (n,) int64 each.

    x, y: places of the vertices (v,); faces: (f, 3).
    """
    faces = _with_points_in_their_box(np.ceil(x).astype(np.int32), np.ceil(y).astype(np.int32), faces)
    order = np.argsort(y[faces], axis=1, kind="stable")
    faces = np.take_along_axis(faces, order, axis=1)
    (left, middle, right), (bottom, centre, top) = x[faces].T, y[faces].T
    first = np.ceil(bottom).astype(np.int64)
    rows = np.ceil(top).astype(np.int64) - first
    face = np.repeat(np.arange(len(faces)), rows)
    row = np.arange(len(face)) - np.repeat(np.cumsum(rows) - rows - first, rows)
    below = row < centre[face]
    one = _crossing(row, face, bottom, left, top, right)
    lower = _crossing(row, face, bottom, left, centre, middle)
    other = np.where(below, lower, _crossing(row, face, centre, middle, top, right))
    begin = np.ceil(np.minimum(one, other)).astype(np.int64)
    end = np.ceil(np.maximum(one, other)).astype(np.int64)
    some = begin < end
    return row[some], begin[some], end[some]


def _with_points_in_their_box(column: np.ndarray, row: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The faces whose box holds an integer point, by the first column and row at or after each vertex.

    Most faces of a fine mesh lie between the points.
    """
    for places in (row, column):
        first, second, third = places[faces].T
        low, high = np.minimum(np.minimum(first, second), third), np.maximum(np.maximum(first, second), third)
        faces = faces[low < high]
    return faces


def _crossing(row: np.ndarray, face: np.ndarray, y0, x0, y1, x1) -> np.ndarray:
    """Where the edge of each face from (x0, y0) up to (x1, y1) crosses a row (n,) of it.

    Neighbours that share an edge get the same number, so no gap opens between them. Level edges give x0.
    """
    rise = y1 - y0
    slope = np.divide(x1 - x0, rise, out=np.zeros_like(rise), where=rise > 0)
    return x0[face] + (row - y0[face]) * slope[face]
