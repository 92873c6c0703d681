"""How good a triangle mesh is: topology and self-intersections, and with `geometry.measures` its area and volume.

Everything but `self_intersections` is numpy and scipy.sparse on the faces' indices; vertices at equal positions are
different vertices unless merged first (`geometry.clean.merged`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.arrays import Mesh
from pipeline.geometry.measures import area, volume


def edge_uses(mesh: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The undirected edges and how the faces use them.

    Returns edges (e, 2) int64 with the lower vertex first, the number of faces on each (e,), and the surplus of uses
    from the lower to the higher vertex (e,), which is 0 where two faces agree in winding.
    """
    half_edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    upward = half_edges[:, 0] < half_edges[:, 1]
    low, high = half_edges.min(axis=1), half_edges.max(axis=1)
    base = len(mesh.vertices)
    keys, inverse, uses = np.unique(low * base + high, return_inverse=True, return_counts=True)
    surplus = np.bincount(inverse, np.where(upward, 1, -1), minlength=len(keys)).astype(np.int64)
    edges = np.stack([keys // base, keys % base], axis=1) if base else np.zeros((0, 2), np.int64)
    return edges, uses, surplus


def edge_counts(mesh: Mesh) -> dict[str, int]:
    """Numbers of edges: all, "boundary" (one face), "nonmanifold" (more than two), "misoriented" (two, same way)."""
    _, uses, surplus = edge_uses(mesh)
    return {
        "edges": len(uses),
        "boundary": int((uses == 1).sum()),
        "nonmanifold": int((uses > 2).sum()),
        "misoriented": int(((uses == 2) & (surplus != 0)).sum()),
    }


def is_winding_consistent(mesh: Mesh) -> bool:
    """Whether the two faces on every two-face edge run along it in opposite ways."""
    return edge_counts(mesh)["misoriented"] == 0


def is_watertight(mesh: Mesh) -> bool:
    """Whether every edge has exactly two faces and they agree in winding. An empty mesh is not watertight."""
    starts = mesh.faces.astype(np.int64)
    ends = starts[:, [1, 2, 0]]
    forth = np.sort(starts * len(mesh.vertices) + ends, axis=None)
    back = np.sort(ends * len(mesh.vertices) + starts, axis=None)
    # Every half-edge is there once, and once the other way round.
    once = bool((forth[1:] != forth[:-1]).all()) and bool((starts != ends).all())
    return len(forth) > 0 and once and bool((forth == back).all())


def corner_fans(mesh: Mesh) -> np.ndarray:
    """For each corner (f, 3) the number of its fan: the faces round one vertex that hang together by edges at it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = mesh.faces.size
    corners = np.arange(count).reshape(-1, 3)
    starts, ends = corners.reshape(-1), corners[:, [1, 2, 0]].reshape(-1)  # corners at both ends of each half-edge
    lower = mesh.faces.reshape(-1)[starts] < mesh.faces.reshape(-1)[ends]
    low, high = np.where(lower, starts, ends), np.where(lower, ends, starts)
    vertex = mesh.faces.reshape(-1).astype(np.int64)
    keys = vertex[low] * len(mesh.vertices) + vertex[high]
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    first, second = order[:-1][same], order[1:][same]
    left, right = np.concatenate([low[first], high[first]]), np.concatenate([low[second], high[second]])
    links = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    return connected_components(links, directed=False)[1].reshape(-1, 3)


def nonmanifold_vertices(mesh: Mesh) -> int:
    """Number of vertices whose faces form more than one fan, as where two cubes touch at a corner."""
    fans = corner_fans(mesh)
    _, first = np.unique(fans, return_index=True)
    _, fans_at = np.unique(mesh.faces.reshape(-1)[first], return_counts=True)
    return int((fans_at > 1).sum())


def face_components(mesh: Mesh) -> np.ndarray:
    """The connected component of each face, (f,) int32, counted from 0; faces join by shared vertices."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left, right = mesh.faces[:, [0, 1]].reshape(-1), mesh.faces[:, [1, 2]].reshape(-1)
    size = len(mesh.vertices)
    links = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
    of_vertex = connected_components(links, directed=False)[1]
    return np.unique(of_vertex[mesh.faces[:, 0]], return_inverse=True)[1].astype(np.int32)


def component_count(mesh: Mesh) -> int:
    """Number of connected components; faces join by shared vertices."""
    return int(face_components(mesh).max(initial=-1) + 1)


def euler_characteristic(mesh: Mesh) -> int:
    """Vertices - edges + faces, unused vertices left out: 2 for a sphere, 0 for a torus."""
    return len(np.unique(mesh.faces)) - edge_counts(mesh)["edges"] + len(mesh.faces)


def crossing_faces(mesh: Mesh) -> np.ndarray:
    """The pairs (n, 2) of faces that meet elsewhere than in shared corners; exact arithmetic (libigl, CGAL)."""
    import igl.copyleft.cgal

    if len(mesh.faces) == 0:
        return np.zeros((0, 2), np.int64)
    faces = mesh.faces.astype(np.int64)
    return igl.copyleft.cgal.remesh_self_intersections(mesh.vertices, faces, detect_only=True)[2].reshape(-1, 2)


def self_intersections(mesh: Mesh) -> int:
    """Number of pairs of faces that meet elsewhere than in shared corners, exactly; 0.1 s for 30,000 faces."""
    return len(crossing_faces(mesh))


def describe(mesh: Mesh) -> dict[str, Any]:
    """Figures of a mesh for ledgers and reports; cheap ones only, self-intersections are not counted."""
    counts = edge_counts(mesh)
    return {
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "area": area(mesh),
        "volume": volume(mesh),
        "watertight": is_watertight(mesh),
        "boundary_edges": counts["boundary"],
        "nonmanifold_edges": counts["nonmanifold"],
        "misoriented_edges": counts["misoriented"],
        "nonmanifold_vertices": nonmanifold_vertices(mesh),
        "components": component_count(mesh),
        "euler": euler_characteristic(mesh),
    }
