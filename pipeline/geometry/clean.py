"""Cleaning that changes no position: merging vertices and dropping faces; numpy alone."""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh
from pipeline.geometry.measures import face_cross

SLIVER = 1e-12  # height over longest edge under which a face counts as having no area


def without_unused_vertices(mesh: Mesh) -> Mesh:
    """The mesh with only the vertices its faces use, in their old order."""
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.faces] = True
    if used.all():
        return mesh
    return Mesh(mesh.vertices[used], (np.cumsum(used) - 1)[mesh.faces])


def merged(mesh: Mesh) -> Mesh:
    """The mesh with one vertex for each distinct position (bit for bit; -0 equals 0), in order of first use."""
    positions = np.ascontiguousarray(mesh.vertices + 0.0).view(np.uint64).reshape(-1, 3)
    order = np.lexsort(positions.T)
    ordered = positions[order]
    starts = np.ones(len(order), bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    representative = np.empty(len(order), np.int64)
    representative[order] = order[starts][np.cumsum(starts) - 1]  # lexsort is stable: the first of its equals
    return without_unused_vertices(Mesh(mesh.vertices, representative[mesh.faces]))


def without_degenerate_faces(mesh: Mesh) -> Mesh:
    """The mesh without faces that name a vertex twice or whose corners lie on one line; unused vertices stay."""
    return Mesh(mesh.vertices, mesh.faces[_have_area(mesh)])


def without_stray_faces(mesh: Mesh) -> Mesh:
    """The mesh without faces that have no area and leave the box of those that have: they would shift or widen it.

    Unused vertices stay; a mesh without any area stays as it is.
    """
    proper = _have_area(mesh)
    if proper.all() or not proper.any():
        return mesh
    corners = mesh.vertices[mesh.faces[proper]].reshape(-1, 3)
    low, high = corners.min(axis=0), corners.max(axis=0)
    within = ((mesh.triangles >= low) & (mesh.triangles <= high)).all(axis=(1, 2))
    return mesh if within.all() else Mesh(mesh.vertices, mesh.faces[within])


def _have_area(mesh: Mesh) -> np.ndarray:
    """Which faces have an area, (f,) bool."""
    a, b, c = mesh.triangles.transpose(1, 0, 2)
    longest = np.max([((b - a) ** 2).sum(1), ((c - b) ** 2).sum(1), ((a - c) ** 2).sum(1)], axis=0)
    return np.linalg.norm(face_cross(mesh), axis=1) > SLIVER * longest


def without_duplicate_faces(mesh: Mesh) -> Mesh:
    """The mesh with the first of all faces on the same three vertices, whichever way they are wound."""
    corners = np.sort(mesh.faces, axis=1)
    _, first = np.unique(corners, axis=0, return_index=True)
    return Mesh(mesh.vertices, mesh.faces[np.sort(first)])


def unwelded(mesh: Mesh) -> Mesh:
    """The mesh with three own vertices for every face, which makes it insensitive to windings and shared edges."""
    return Mesh(mesh.triangles.reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3))


def flipped(mesh: Mesh) -> Mesh:
    """The mesh inside out."""
    return Mesh(mesh.vertices, mesh.faces[:, ::-1])
