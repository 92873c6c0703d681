"""What may be done to a mesh after extraction: keep its largest part, smooth it, simplify it."""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.clean import without_unused_vertices
from pipeline.geometry.measures import face_areas
from pipeline.geometry.quality import edge_counts, face_components, nonmanifold_vertices

SHRINK, GROW = 0.5, -0.53  # Taubin's factors; the sum of their inverses, 0.11, is the frequency that is kept


def largest_component(mesh: Mesh) -> Mesh:
    """The part of largest area among those connected through shared vertices."""
    part = face_components(mesh)
    largest = np.argmax(np.bincount(part, weights=face_areas(mesh)))
    return without_unused_vertices(Mesh(mesh.vertices, mesh.faces[part == largest]))


def smoothed(mesh: Mesh, steps: int) -> Mesh:
    """The mesh after `steps` passes that shrink and grow it in turn, so that it keeps its size (open3d).

    Taubin, Curve and surface smoothing without shrinkage (ICCV 1995).
    """
    result = _to_open3d(mesh).filter_smooth_taubin(steps, SHRINK, GROW)
    return Mesh(np.asarray(result.vertices), mesh.faces)


def simplified_to(mesh: Mesh, faces: int) -> Mesh:
    """The mesh with at most `faces` faces, where it has more, by quadric error (Garland and Heckbert 1997; open3d).

    Raises Rejected where that opens the surface or makes it less of a manifold than it was.
    """
    if len(mesh.faces) <= faces:
        return mesh
    result = _to_open3d(mesh).simplify_quadric_decimation(faces)
    simple = without_unused_vertices(Mesh(np.asarray(result.vertices), np.asarray(result.triangles)))
    if (_faults(simple) > _faults(mesh)).any():
        raise Rejected(f"simplification from {len(mesh.faces)} to {len(simple.faces)} faces breaks the surface")
    return simple


def _faults(mesh: Mesh) -> np.ndarray:
    """What simplification must not add: open edges, edges of too many or disagreeing faces, non-manifold vertices."""
    counts = edge_counts(mesh)
    return np.array([counts["boundary"], counts["nonmanifold"], counts["misoriented"], nonmanifold_vertices(mesh)])


def _to_open3d(mesh: Mesh):
    import open3d as o3d

    vertices, faces = o3d.utility.Vector3dVector(mesh.vertices), o3d.utility.Vector3iVector(mesh.faces)
    return o3d.geometry.TriangleMesh(vertices, faces)
