"""Whether a closed mesh stands for the raw one: closed and manifold, and close to it in both directions.

Meshes are in the normalised frame (longest edge 1); so are the distances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.closest import Scene
from pipeline.geometry.measures import area, volume
from pipeline.geometry.quality import component_count, edge_counts, nonmanifold_vertices
from pipeline.geometry.repair import with_split_vertices
from pipeline.geometry.sampling import points_on_surface

if TYPE_CHECKING:
    from pipeline.meshes.watertight import AcceptanceSettings

VIEWS_AT_ONCE = 8  # most points are seen in one of the first views and need no more
FULL_RESOLUTION = 256  # voxels along the longest edge for which the thresholds are meant
GRAZING = 0.1  # cosine; flatter views do not count, they look into gaps ten times as deep as wide
STEP_OFF = 1e-4  # how far in front of its face a point is looked at from, so that doubled faces do not hide it


class Original:
    """The raw mesh as the measure of all candidates; its outer points are found once.

    resolution: of the grid the candidates come from; coarser ones than `FULL_RESOLUTION` are allowed proportionally
    more distance.
    """

    def __init__(self, mesh: Mesh, scene: Scene, settings: AcceptanceSettings, resolution: int) -> None:
        self.scene, self.settings = scene, settings
        self.slack = max(1.0, FULL_RESOLUTION / resolution)
        self.longest_edge = _longest_edge(mesh)
        self.components = component_count(with_split_vertices(mesh))  # parts that touch in a point are two
        self.outer = outer_points(mesh, scene, settings.samples, settings.directions)

    def judge(self, candidate: Mesh) -> dict[str, Any]:
        """Figures of an accepted candidate; raises Rejected with the first test it fails."""
        self._check_topology(candidate)
        added = self.scene.distance(_points(candidate, self.settings.samples)[0])
        lost = Scene(candidate).distance(self.outer)
        self._check_distances(candidate, added, lost)
        return {
            "faces": len(candidate.faces),
            "components": component_count(candidate),
            "volume": volume(candidate),
            "area": area(candidate),
            "thickness": 2 * volume(candidate) / area(candidate),
            "d_in_mean": float(lost.mean()),
            "d_in_max": float(lost.max()),
            "d_out_mean": float(added.mean()),
            "d_out_max": float(added.max()),
        }

    def _check_topology(self, candidate: Mesh) -> None:
        counts = edge_counts(candidate)
        for name in ("boundary", "nonmanifold", "misoriented"):
            if counts[name]:
                raise Rejected(f"{name} edges: {counts[name]}")
        pinched = nonmanifold_vertices(candidate)
        if pinched:
            raise Rejected(f"non-manifold vertices: {pinched}")
        if volume(candidate) <= 0:
            raise Rejected("it encloses no volume")
        parts = component_count(candidate)
        if parts > self.components:
            raise Rejected(f"{parts} parts, the raw mesh has {self.components}")

    def _check_distances(self, candidate: Mesh, added: np.ndarray, lost: np.ndarray) -> None:
        limits, slack = self.settings, self.slack
        mean = limits.mean_distance * slack
        if added.mean() > mean or added.max() > limits.max_added * slack:
            raise Rejected(f"surface was added (mean distance {added.mean():.4f}, most {added.max():.4f})")
        far = float((lost > limits.far_lost * slack).mean())
        if lost.mean() > mean or far > 0.01:
            raise Rejected(f"surface was lost (mean distance {lost.mean():.4f}, {far:.1%} farther than the limit)")
        change = abs(_longest_edge(candidate) / self.longest_edge - 1)
        if change > limits.edge_change * slack:
            raise Rejected(f"the longest edge changed by {change:.1%}")


def outer_points(mesh: Mesh, scene: Scene, count: int, directions: int) -> np.ndarray:
    """Those of `count` surface points that can be seen from infinity in one of the directions, (n, 3)."""
    points, normals = _points(mesh, count)
    hidden = np.arange(count)
    for views in np.array_split(_sphere_directions(directions), directions // VIEWS_AT_ONCE):
        facing = np.einsum("nk,vk->nv", normals[hidden], views)
        origins = points[hidden, None] + STEP_OFF * np.sign(facing)[..., None] * normals[hidden, None]
        rays = np.broadcast_to(views, origins.shape)
        blocked = scene.blocked(origins.reshape(-1, 3), rays.reshape(-1, 3)).reshape(facing.shape)
        hidden = hidden[(blocked | (np.abs(facing) < GRAZING)).all(axis=1)]
        if len(hidden) == 0:
            break
    return np.delete(points, hidden, axis=0)


def _sphere_directions(count: int) -> np.ndarray:
    """Well-spread unit vectors (count, 3) on a golden spiral, in an order whose every run covers the sphere."""
    rank = np.arange(count) + 0.5
    height, turn = 1 - 2 * rank / count, np.pi * (1 + 5**0.5) * rank
    ring = np.sqrt(1 - height**2)
    spiral = np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=1)
    return spiral[np.random.default_rng(0).permutation(count)]


def _points(mesh: Mesh, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on the surface and their normals; always the same ones, so that a verdict does not hang on a seed."""
    return points_on_surface(mesh, count, np.random.default_rng(0))


def _longest_edge(mesh: Mesh) -> float:
    low, high = mesh.bounds
    return float((high - low).max())
