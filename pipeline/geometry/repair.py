"""Repairs that hardly move the surface: welding, splitting and turning, and saving faces."""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.clean import without_unused_vertices
from pipeline.geometry.quality import corner_fans


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


def simplified(mesh: Mesh, tolerance: float) -> Mesh:
    """The mesh with fewer faces, still manifold (manifold3d); moved by up to about twice the `tolerance` where most.

    Raises Rejected where the mesh is not manifold to begin with.
    """
    from manifold3d import Error, Manifold, Mesh64

    solid = Manifold(Mesh64(mesh.vertices, mesh.faces.astype(np.uint64)))
    if solid.status() != Error.NoError or solid.is_empty():
        raise Rejected(f"it cannot be simplified ({solid.status()})")
    result = solid.simplify(tolerance).to_mesh64()
    return Mesh(result.vert_properties[:, :3], result.tri_verts)
