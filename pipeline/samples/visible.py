"""The surface as it is seen from outside, and signed distances by the votes of its nearest points.

This is how DeepSDF's own program prepares meshes of any kind (sheet deepsdf.md 2.2 and 2.4): parallel views from all
around give points with normals towards the viewer, and a place is outside where the points nearest to it all say so.
What no view reaches, such as a cavity, does not exist for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.closest import morton_order, without_zero_area

FARTHEST = 1 / 1.03  # where the farthest vertex comes to lie in the views' frame
DISTANCE, REACH = 1.1, 2.5  # of a view's plane from the origin, and how far it sees
GRAZING = 1e-3  # cosine below which a face is seen too flatly to count
CHUNK = 50_000  # points whose neighbours are held at a time


@dataclass(frozen=True)
class VisibleCloud:
    """Points (n, 3) of a surface seen from outside, canonical, with unit normals (n, 3) towards the viewer.

    wrong_share: of the points, those on a face after it was seen from both sides. bad_share: of the faces, those.
    """

    points: np.ndarray
    normals: np.ndarray
    wrong_share: float
    bad_share: float


def visible_cloud(mesh: Mesh, views: int, pixels: int) -> VisibleCloud:
    """What parallel views with `pixels` pixels along each edge of a square see of a mesh, all one after the other.

    Raises Rejected where the mesh has no face of positive area.
    """
    import open3d as o3d

    mesh = without_zero_area(mesh)
    if len(mesh.faces) == 0:
        raise Rejected("the mesh has no face of positive area, so nothing of it can be seen")
    centre, scale = _frame(mesh)
    triangles = (mesh.triangles - centre) * scale
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(
        triangles.reshape(-1, 3).astype(np.float32), np.arange(3 * len(triangles), dtype=np.uint32).reshape(-1, 3)
    )
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    places, faces, behind = [], [], []
    for position in view_positions(views):
        origins, towards = _pixels_of(position, pixels)
        rays = np.concatenate([origins, np.broadcast_to(towards, origins.shape)], axis=1).astype(np.float32)
        hits = scene.cast_rays(o3d.core.Tensor.from_numpy(rays), nthreads=1)
        depths, hit = hits["t_hit"].numpy(), hits["primitive_ids"].numpy()
        seen = np.flatnonzero(depths <= REACH)
        slopes = normals[hit[seen]] @ towards
        clear = np.abs(slopes) >= GRAZING
        seen = seen[clear]
        places.append(origins[seen] + depths[seen, None] * towards)
        faces.append(hit[seen].astype(np.int32))
        behind.append(slopes[clear] > 0)
    points, face, turned = (np.concatenate(parts) for parts in (places, faces, behind))
    wrong, bad = _seen_from_both_sides(face, turned)
    oriented = np.where(turned[:, None], -normals[face], normals[face])
    return VisibleCloud(points / scale + centre, oriented, wrong / max(len(face), 1), bad / len(mesh.faces))


def view_positions(views: int) -> np.ndarray:
    """Evenly spread directions to the views (views, 3), unit, along a spiral around the y axis."""
    number = np.arange(views)
    height = (2 * number + 1) / views - 1
    radius, angle = np.sqrt(1 - height**2), (number + 1) * np.pi * (3 - np.sqrt(5))
    return np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], axis=1)


def _frame(mesh: Mesh) -> tuple[np.ndarray, float]:
    """Middle of the box of a mesh, and the factor that brings its farthest vertex to FARTHEST from there."""
    used = mesh.vertices[np.unique(mesh.faces)]
    centre = (used.min(axis=0) + used.max(axis=0)) / 2
    return centre, FARTHEST / float(np.linalg.norm(used - centre, axis=1).max())


def _pixels_of(position: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the rays of one view begin (pixels^2, 3), on a square of half edge 1, and their common direction (3,)."""
    towards = -position
    right = np.cross(towards, (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right)
    above = np.cross(right, towards)
    steps = (2 * np.arange(pixels) + 1) / pixels - 1
    across, along = np.meshgrid(steps, steps, indexing="ij")
    return DISTANCE * position + across.reshape(-1, 1) * right + along.reshape(-1, 1) * above, towards


def _seen_from_both_sides(face: np.ndarray, turned: np.ndarray) -> tuple[int, int]:
    """How many observations came after their face had been seen from both sides, and how many such faces there are.

    face (n,), turned (n,) bool: of the observations in their order, the face and whether it was seen from behind.
    """
    if len(face) == 0:
        return 0, 0
    order = np.argsort(face, kind="stable")
    starts = np.flatnonzero(np.diff(face[order], prepend=-1))
    counts = np.diff(starts, append=len(face))
    other = turned[order] != np.repeat(turned[order][starts], counts)
    place = np.arange(len(face)) - np.repeat(starts, counts)
    if len(face) == 0:
        return 0, 0
    contradicted = np.minimum.reduceat(
        np.where(other, place, len(face)), starts
    )  # place of a face's first contradiction
    bad = contradicted < len(face)
    return int((counts - contradicted - 1)[bad].sum()), int(bad.sum())


def voted_distance(
    cloud: VisibleCloud, points: np.ndarray, neighbours: int, plane_within: float
) -> tuple[np.ndarray, np.ndarray]:
    """Signed distances (n,) of points (n, 3) by their nearest points of the cloud, and where these agree, (n,) bool.

    A neighbour votes for outside where the point lies before its plane. The distance is that to the nearest neighbour's
    plane where this one is nearer than plane_within, else to the neighbour itself; 0 where the votes disagree. Raises
    Rejected where the cloud has fewer points than neighbours are asked for.
    """
    if len(cloud.points) < neighbours:
        raise Rejected(
            f"{len(cloud.points)} points of the surface are seen from outside, and {neighbours} are to vote; raise "
            f"votes.views or votes.pixels"
        )
    # Boxes drawn tight around the leaves make such queries, mostly off the cloud, ten times slower.
    tree = cKDTree(cloud.points, leafsize=32, compact_nodes=False, balanced_tree=False)
    distances, agreed = np.zeros(len(points)), np.zeros(len(points), bool)
    order = morton_order(np.asarray(points, np.float32))
    for start in range(0, len(points), CHUNK):
        rows = order[start : start + CHUNK]
        queries = np.asarray(points[rows], np.float64)
        apart, nearest = (found.reshape(len(rows), -1) for found in tree.query(queries, neighbours))
        before = ((queries[:, None] - cloud.points[nearest]) * cloud.normals[nearest]).sum(axis=2)
        votes = (before > 0).sum(axis=1)
        size = np.where(apart[:, 0] < plane_within, np.abs(before[:, 0]), apart[:, 0])
        # On a point of the cloud itself there is no direction to vote by.
        agreed[rows] = ((votes == 0) | (votes == neighbours)) & (apart[:, 0] > 0)
        distances[rows] = np.where(agreed[rows], np.where(votes > 0, size, -size), 0.0)
    return distances, agreed
