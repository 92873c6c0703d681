"""The surface as it is seen from outside, and signed distances by the votes of its nearest points.

This is how DeepSDF's own program prepares meshes of any kind (sheet deepsdf.md 2.2 and 2.4): parallel views from all
around give points with normals towards the viewer, and a place is outside where the points nearest to it all say so.
What no view reaches, such as a cavity, does not exist for it.

In the original one look at a face from its other side condemns it. Rays slip through edges, though, how many differs
between processors, and they see faces from behind. So here looks at the rarer kind of side are checked by looking past
the edge, and a face is seen from both sides where a share of all looks at it say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.closest import ASIDE, Scene, morton_order, without_zero_area

FARTHEST = 1 / 1.03  # where the farthest vertex comes to lie in the views' frame
DISTANCE, REACH = 1.1, 2.5  # of a view's plane from the origin, and how far it sees
GRAZING = 1e-3  # cosine below which a face is seen too flatly to count
BOTH = 0.05  # share of the looks at a face from its rarer side above which it is seen from both sides
CHUNK = 50_000  # points whose neighbours are held at a time


@dataclass(frozen=True)
class VisibleCloud:
    """Points (n, 3) of a surface seen from outside, canonical, with unit normals (n, 3) towards the viewer.

    wrong_share: of the points, those on a face seen from both sides, after the first look from the other. bad_share: of
    the faces, those. Other faces have no points from their rarer side.
    """

    points: np.ndarray
    normals: np.ndarray
    wrong_share: float
    bad_share: float


def visible_cloud(mesh: Mesh, views: int, pixels: int) -> VisibleCloud:
    """What parallel views with `pixels` pixels along each edge of a square see of a mesh, all one after the other.

    Raises Rejected where the mesh has no face of positive area.
    """
    mesh = without_zero_area(mesh)
    if len(mesh.faces) == 0:
        raise Rejected("the mesh has no face of positive area, so nothing of it can be seen")
    centre, scale = _frame(mesh)
    looks = _Looks((mesh.triangles - centre) * scale)
    seen = [looks.along(*_pixels_of(position, pixels)) for position in view_positions(views)]
    places, faces, behind = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    wrong, bad, stray = _sides_seen(faces, behind)
    normals = looks.normals[faces]
    oriented = np.where(behind[:, None], -normals, normals)
    points = places / scale + centre
    return VisibleCloud(points[~stray], oriented[~stray], wrong / max(len(faces), 1), bad / len(mesh.faces))


class _Looks:
    """Triangles (f, 3, 3) in the views' frame, to look at. normals: (f, 3)."""

    def __init__(self, triangles: np.ndarray) -> None:
        self.scene = Scene(Mesh(triangles.reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3)))
        normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        self.normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)

    def along(self, origins: np.ndarray, towards: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What parallel rays from origins (n, 3) see: places (m, 3), their faces (m,), and which from behind (m,).

        In a view of a closed surface wound alike all looks are at the same side. The rarer ones are looked at from
        beside too, and the nearest thing that is seen counts.
        """
        depths, faces = self.scene.faces_hit(origins, np.broadcast_to(towards, origins.shape))
        seen = np.flatnonzero(depths <= REACH)
        depths, faces = depths[seen], faces[seen]
        behind = self.normals[faces] @ towards > 0
        doubtful = np.flatnonzero(behind == (2 * behind.sum() <= len(behind)))
        for turn in ASIDE:
            beside = np.broadcast_to(towards + turn, (len(doubtful), 3))
            depth, face = self.scene.faces_hit(origins[seen[doubtful]], beside)
            nearer = np.flatnonzero(depth < depths[doubtful])
            depths[doubtful[nearer]] = depth[nearer]
            faces[doubtful[nearer]] = face[nearer]
        slopes = self.normals[faces] @ towards
        clear = np.abs(slopes) >= GRAZING
        places = origins[seen[clear]] + depths[clear, None] * towards
        return places, faces[clear].astype(np.int32), slopes[clear] > 0


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


def _sides_seen(face: np.ndarray, turned: np.ndarray) -> tuple[int, int, np.ndarray]:
    """How many observations came after their face had been seen from both sides, how many such faces there are, and
    which observations (n,) bool are strays: from the rarer side of other faces.

    face (n,), turned (n,) bool: of the observations in their order, the face and whether it was seen from behind.
    """
    stray = np.zeros(len(face), bool)
    if len(face) == 0:
        return 0, 0, stray
    order = np.argsort(face, kind="stable")
    turned = turned[order]
    starts = np.flatnonzero(np.diff(face[order], prepend=-1))
    counts = np.diff(starts, append=len(face))
    from_behind = np.add.reduceat(turned, starts, dtype=np.int64)
    bad = np.minimum(from_behind, counts - from_behind) > BOTH * counts
    mostly = np.repeat(2 * from_behind > counts, counts)
    stray[order] = (turned != mostly) & ~np.repeat(bad, counts)
    other = turned != np.repeat(turned[starts], counts)
    place = np.arange(len(face)) - np.repeat(starts, counts)
    contradicted = np.minimum.reduceat(np.where(other, place, len(face)), starts)  # a face's first contradiction
    return int((counts - contradicted - 1)[bad].sum()), int(bad.sum()), stray


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
