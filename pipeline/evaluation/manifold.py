"""How far a mesh is from a manifold: topology, folds and self-intersections, and Neural Mesh Flow's ratios of them.

Neural Mesh Flow (Gupta and Chandraker, NeurIPS 2020) counts non-manifold vertices and edges on the mesh as it is
stored, boundary edges among the latter, and as "faces" the pairs of neighbours that fold by more than 90 degrees. It
divides by the vertices, by three times the faces (every edge taken from each of its faces) and by the faces of the
mesh with equal positions merged, so two meshes meet in one ratio and edge ratios are half of what they seem. The keys
ending in _published follow that to the letter; those ending in _corrected take all from the merged mesh and divide by
the edges there are. Sheet nmf.md, section 6.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.arrays import Mesh
from pipeline.geometry import quality
from pipeline.geometry.clean import merged

RIGHT_ANGLE = 1e-9  # cosine up to which an angle counts as right
NO_LENGTH = 1e-13  # of a face's cross product, up to which trimesh gives it no normal


def manifoldness(mesh: Mesh, self_intersections: bool = True) -> dict[str, Any]:
    """Manifoldness of a mesh (anything with vertices and faces).

    Of the mesh with equal positions merged:

    vertices, edges, faces      unused vertices left out, every edge once
    components, euler_characteristic, watertight
    boundary_edges              edges of one face
    nonmanifold_edges           edges of more than two faces
    nonmanifold_vertices        vertices whose faces form more than one fan
    nonmanifold_faces           pairs of neighbours that fold by more than 90 degrees, whichever way they are wound
    self_intersections          pairs of faces that meet elsewhere than in shared corners, exact; None if not asked for
    nmv_corrected               nonmanifold_vertices / vertices
    nme_corrected               (boundary_edges + nonmanifold_edges) / edges
    nmf_corrected               nonmanifold_faces / edges
    isect_corrected             self_intersections / faces

    As Neural Mesh Flow counts:

    nonmanifold_vertices_published, nonmanifold_edges_published   of the mesh as given; boundary edges are counted
    nonmanifold_faces_published                                   folds by the normals as wound, merged within 1e-8
    nmv_published, nme_published, nmf_published, isect_published  over V, 3F, 3F and F of that merged mesh

    Ratios are shares, not percents; NaN without faces. The original's intersections come from a GPU library that stops
    at eight per face, so isect_published has its denominator but exact pairs. Raises ValueError for vertices that are
    not finite and for faces that name no vertex.
    """
    mesh = Mesh(mesh.vertices, mesh.faces)
    _require_sound(mesh)
    whole = merged(mesh)
    counts = _counts(whole)
    counts["self_intersections"] = quality.self_intersections(whole) if self_intersections else None
    return {**counts, **_corrected(counts), **_published(mesh, counts["self_intersections"])}


def _require_sound(mesh: Mesh) -> None:
    if len(mesh.faces) and (mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices)):
        raise ValueError(f"faces name vertices up to {mesh.faces.max()}, the mesh has {len(mesh.vertices)}")
    broken = int((~np.isfinite(mesh.vertices[np.unique(mesh.faces)])).any(axis=1).sum())
    if broken:
        raise ValueError(f"{broken} vertices are not finite")


def _counts(mesh: Mesh) -> dict[str, Any]:
    edges = quality.edge_counts(mesh)
    return {
        "vertices": len(np.unique(mesh.faces)),
        "edges": edges["edges"],
        "faces": len(mesh.faces),
        "components": quality.component_count(mesh),
        "euler_characteristic": quality.euler_characteristic(mesh),
        "watertight": quality.is_watertight(mesh),
        "boundary_edges": edges["boundary"],
        "nonmanifold_edges": edges["nonmanifold"],
        "nonmanifold_vertices": quality.nonmanifold_vertices(mesh),
        "nonmanifold_faces": folds(mesh),
    }


def _corrected(counts: dict[str, Any]) -> dict[str, float | None]:
    return {
        "nmv_corrected": _ratio(counts["nonmanifold_vertices"], counts["vertices"]),
        "nme_corrected": _ratio(counts["boundary_edges"] + counts["nonmanifold_edges"], counts["edges"]),
        "nmf_corrected": _ratio(counts["nonmanifold_faces"], counts["edges"]),
        "isect_corrected": _ratio(counts["self_intersections"], counts["faces"]),
    }


def _published(mesh: Mesh, self_intersections: int | None) -> dict[str, Any]:
    """Counts of the mesh as given over the sizes of the mesh that trimesh makes of it on loading."""
    loaded = _merged_as_by_trimesh(mesh)
    vertices = _nonmanifold_vertices_as_by_open3d(mesh)
    edges = int((quality.edge_uses(mesh)[1] != 2).sum())
    faces = folds(loaded, as_wound=True)
    return {
        "nonmanifold_vertices_published": vertices,
        "nonmanifold_edges_published": edges,
        "nonmanifold_faces_published": faces,
        "nmv_published": _ratio(vertices, len(loaded.vertices)),
        "nme_published": _ratio(edges, 3 * len(loaded.faces)),
        "nmf_published": _ratio(faces, 3 * len(loaded.faces)),
        "isect_published": _ratio(self_intersections, len(loaded.faces)),
    }


def _nonmanifold_vertices_as_by_open3d(mesh: Mesh) -> int:
    """Number of vertices whose neighbours do not hang together by the edges opposite to them.

    A face that names a vertex twice has one opposite its third corner, from that vertex to itself, and no other.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = len(mesh.vertices)
    corner = mesh.faces.astype(np.int64)
    ends = corner[:, [1, 2, 0]], corner[:, [2, 0, 1]]
    opposite = (ends[0] != corner) & (ends[1] != corner)
    keys = np.concatenate([corner[opposite] * size + end[opposite] for end in ends])
    nodes, number = np.unique(keys, return_inverse=True)
    left, right = np.split(number, 2)
    links = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(len(nodes), len(nodes)))
    part = connected_components(links, directed=False)[1]
    _, first = np.unique(part, return_index=True)
    _, parts_at = np.unique(nodes[first] // max(size, 1), return_counts=True)
    return int((parts_at > 1).sum())


def _merged_as_by_trimesh(mesh: Mesh) -> Mesh:
    """The mesh with one vertex per position rounded to 1e-8, unused ones left out; no face is dropped."""
    used = np.unique(mesh.faces)
    place = np.round(mesh.vertices[used] * 1e8)
    _, first, position = np.unique(place, axis=0, return_index=True, return_inverse=True)
    number = np.zeros(len(mesh.vertices), np.int64)
    number[used] = position.reshape(-1)
    return Mesh(mesh.vertices[used[first]], number[mesh.faces])


def folds(mesh: Mesh, as_wound: bool = False) -> int:
    """Number of edges of two faces across which the surface turns by more than 90 degrees.

    Neighbours that disagree in winding are first made to agree, and right angles are no folds. as_wound: by the faces'
    normals as they are, and of right angles those that rounding makes one, as the original counts.
    """
    half_edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    keys = half_edges.min(axis=1) * len(mesh.vertices) + half_edges.max(axis=1)
    order = np.argsort(keys, kind="stable")
    _, first, uses = np.unique(keys[order], return_index=True, return_counts=True)
    one, other = order[first[uses == 2]], order[first[uses == 2] + 1]
    apart = one // 3 != other // 3
    one, other = one[apart], other[apart]
    normals = _normals_as_by_trimesh(mesh)
    cosine = np.vecdot(normals[one // 3], normals[other // 3])  # rounds as the original's product of two vectors does
    if as_wound:
        return int((cosine < 0).sum())
    agree = half_edges[one, 0] == half_edges[other, 1]  # neighbours run along their edge in opposite ways
    return int((np.where(agree, cosine, -cosine) < -RIGHT_ANGLE).sum())


def _normals_as_by_trimesh(mesh: Mesh) -> np.ndarray:
    """Unit normals of the faces (f, 3), zero without area; its order of operations decides on right angles."""
    a, b, c = mesh.triangles.transpose(1, 0, 2)
    cross = np.cross(b - a, c - b)
    length = np.sqrt(np.dot(cross * cross, [1.0] * 3))
    return cross * np.divide(1.0, length, out=np.zeros_like(length), where=length > NO_LENGTH)[:, None]


def _ratio(part: int | None, whole: int) -> float | None:
    if part is None:
        return None
    return part / whole if whole else float("nan")
