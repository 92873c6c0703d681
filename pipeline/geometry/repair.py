"""Repairs that hardly move the surface: welding, splitting, turning and nudging."""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh
from pipeline.geometry.clean import without_unused_vertices
from pipeline.geometry.quality import corner_fans, crossing_faces

MOST_NUDGES = 6  # rounds in which the corners of crossing faces are moved


def with_split_vertices(mesh: Mesh) -> Mesh:
    """The mesh with an own vertex for every fan of faces, so that no vertex is non-manifold; nothing moves."""
    fans = corner_fans(mesh)
    _, first, corner = np.unique(fans, return_index=True, return_inverse=True)
    return Mesh(mesh.vertices[mesh.faces.reshape(-1)[first]], corner.reshape(-1, 3))


def with_agreeing_windings(mesh: Mesh) -> Mesh:
    """Faces turned so that neighbours across two-face edges agree, patch by patch; the first face of a patch stays."""
    import igl

    if len(mesh.faces) == 0:
        return mesh
    turned, _ = igl.bfs_orient(mesh.faces.astype(np.int64))
    return Mesh(mesh.vertices, turned)


def welded(mesh: Mesh, tolerance: float) -> Mesh:
    """The mesh with vertices nearer than `tolerance` to each other made one (chains of them too): the first of them.

    Faces that lose a corner by it are dropped.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    left, right = cKDTree(mesh.vertices).query_pairs(tolerance, output_type="ndarray").T
    size = len(mesh.vertices)
    group = connected_components(coo_array((np.ones(len(left), np.int8), (left, right)), shape=(size, size)))[1]
    _, first = np.unique(group, return_index=True)
    faces = first[group][mesh.faces]
    whole = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    return without_unused_vertices(Mesh(mesh.vertices, faces[whole]))


def nudged(mesh: Mesh, step: float) -> Mesh:
    """The mesh with the corners of crossing faces moved by up to `step` a round, halfway to their neighbours' mean.

    That unfolds slivers, which is what rounding and saving faces leave behind; sheets that pass through each other
    still do so afterwards. Vertices are multiples of float32 in the frame of the mesh's own box, so that a result
    without crossings has none after scaling to float32 either. step: in longest edges of that box.
    """
    low, high = mesh.bounds
    centre, edge = low + (high - low) / 2, (high - low).max()
    vertices, neighbours = _float32((mesh.vertices - centre) / edge), _averaging(mesh)
    for _ in range(MOST_NUDGES):
        crossing = crossing_faces(Mesh(vertices, mesh.faces))
        if len(crossing) == 0:
            break
        corners = np.unique(mesh.faces[crossing.reshape(-1)])
        away = neighbours[corners] @ vertices - vertices[corners]
        length = np.linalg.norm(away, axis=1, keepdims=True)
        vertices[corners] = _float32(vertices[corners] + away * np.minimum(0.5, step / np.maximum(length, step)))
    return Mesh(vertices * edge + centre, mesh.faces)


def _averaging(mesh: Mesh):
    """The matrix (v, v) that gives every vertex of a closed mesh the mean of its neighbours."""
    from scipy.sparse import coo_array

    starts, ends = mesh.faces.reshape(-1), mesh.faces[:, [1, 2, 0]].reshape(-1)
    degrees = np.bincount(starts, minlength=len(mesh.vertices))
    size = len(mesh.vertices)
    return coo_array((1 / degrees[starts], (starts, ends)), shape=(size, size)).tocsr()


def _float32(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(np.float64)
