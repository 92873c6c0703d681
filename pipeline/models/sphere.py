"""Spheres of triangles, from a subdivided icosahedron."""

from __future__ import annotations

import numpy as np

GOLDEN = (1 + 5**0.5) / 2


def icosphere(subdivision: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (10 * 4^k + 2, 3) float64 on the unit sphere and outward faces (20 * 4^k, 3) int32, k subdivisions.

    Every edge belongs to two faces. The vertices of a coarser sphere come first in the finer one.
    """
    vertices, faces = _icosahedron()
    for _ in range(subdivision):
        vertices, faces = _subdivided(vertices, faces)
    return vertices, faces


def _icosahedron() -> tuple[np.ndarray, np.ndarray]:
    signs = np.array([(s, t) for s in (-1, 1) for t in (-1, 1)], np.float64)
    rectangle = np.column_stack([np.zeros(4), signs[:, 0], GOLDEN * signs[:, 1]])
    vertices = np.concatenate([np.roll(rectangle, axis, axis=1) for axis in range(3)])
    # The faces are the triples of vertices that are all two apart.
    near = np.isclose(np.linalg.norm(vertices[:, None] - vertices, axis=-1), 2)
    a, b, c = (corner.ravel() for corner in np.indices((12, 12, 12)))
    found = (a < b) & (b < c) & near[a, b] & near[b, c] & near[a, c]
    faces = np.stack([a[found], b[found], c[found]], axis=1)
    outward = np.linalg.det(vertices[faces]) > 0
    faces[~outward] = faces[~outward, ::-1]
    return vertices / np.linalg.norm(vertices[0]), faces.astype(np.int32)


def _subdivided(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each face cut into four at the middles of its edges, which are pushed out to the sphere."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges, middle = np.unique(edges, axis=0, return_inverse=True)
    middles = vertices[edges].sum(axis=1)
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    a, b, c = faces.T
    ab, bc, ca = (middle.reshape(-1, 3) + len(vertices)).T
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    quarters = np.stack([np.stack(part, axis=1) for part in parts], axis=1).reshape(-1, 3)
    return np.concatenate([vertices, middles]), quarters.astype(np.int32)
