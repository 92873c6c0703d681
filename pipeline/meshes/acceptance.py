"""Whether a closed mesh stands for the raw one: closed and manifold, close to it in both directions, not much fatter.

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
from pipeline.meshes.enclosed import bulk_edge, growth
from pipeline.meshes.interior import LEVEL, Enclosure
from pipeline.meshes.views import hidden

if TYPE_CHECKING:
    from pipeline.meshes.watertight import AcceptanceSettings

FULL_RESOLUTION = 256  # voxels along the longest edge for which the thresholds are meant
SMALL_BODY = 16  # voxels; a compact body of more has no more than twice its volume in any wrap
BESIDE = 2e-3  # how far beside its face a point tells what is on that side
LID = 0.05  # how near to 1/2 the winding number of a point over a filled opening is


class Original:
    """The raw mesh as the measure of all candidates; its outer points are found once.

    resolution: of the grid the candidates come from; coarser ones than `FULL_RESOLUTION` are allowed proportionally
    more distance. enclosure: given for the solid reading; surface with enclosed space on both sides is not outer then,
    and what closes an opening is not counted as added.
    """

    def __init__(
        self,
        mesh: Mesh,
        scene: Scene,
        settings: AcceptanceSettings,
        resolution: int,
        enclosure: Enclosure | None = None,
    ) -> None:
        self.scene, self.settings, self.enclosure = scene, settings, enclosure
        self.resolution = resolution
        self.bulk = bulk_edge(mesh)
        self.slack = max(1.0, FULL_RESOLUTION / resolution)
        self.longest_edge = _longest_edge(mesh)
        self.components = component_count(with_split_vertices(mesh))  # parts that touch in a point are two
        self.outer, self.normals = outer_points(mesh, scene, settings.samples, settings.directions, enclosure)

    def lost(self, candidate: Mesh) -> np.ndarray:
        """How far each outer point is from the candidate, (n,) float32."""
        return Scene(candidate).distance(self.outer)

    def judge(self, candidate: Mesh, lost: np.ndarray) -> dict[str, Any]:
        """Figures of an accepted candidate; raises Rejected with the first test it fails. lost: from `lost`."""
        parts = self._check_topology(candidate)
        points = _points(candidate, self.settings.samples)[0]
        added = self.scene.distance(points)
        if self.enclosure is not None:
            added = added[~self._over_opening(points, added)]
        self._check_distances(candidate, added, lost)
        surface, solid = area(candidate), volume(candidate)
        self._check_volume(candidate, solid, solid - surface * float(added.mean()))
        return {
            "faces": len(candidate.faces),
            "components": parts,
            "volume": solid,
            "area": surface,
            "thickness": 2 * solid / surface,
            "thickness_added": 2 * float(added.mean()),
            "d_in_mean": float(lost.mean()),
            "d_in_max": float(lost.max()),
            "d_out_mean": float(added.mean()),
            "d_out_max": float(added.max()),
        }

    def _check_topology(self, candidate: Mesh) -> int:
        """The number of parts of a closed manifold candidate."""
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
        if parts > self.components and not self.settings.more_parts:
            raise Rejected(f"{parts} parts, the raw mesh has {self.components}")
        return parts

    def _over_opening(self, points: np.ndarray, distances: np.ndarray) -> np.ndarray:
        """Which points of a candidate lie on a lid: away from the raw surface, where it fills half the view."""
        over = np.zeros(len(points), bool)
        away = np.flatnonzero(distances > 2 * self.slack / FULL_RESOLUTION)
        over[away] = np.abs(self.enclosure.winding(points[away]) - LEVEL) < LID
        return over

    def _check_distances(self, candidate: Mesh, added: np.ndarray, lost: np.ndarray) -> None:
        limits, slack = self.settings, self.slack
        if len(added) == 0 or len(lost) == 0:
            raise Rejected("nothing of it can be compared with the outer raw surface")
        mean = limits.mean_distance * slack
        if added.mean() > mean or added.max() > limits.max_added * slack:
            raise Rejected(f"surface was added (mean distance {added.mean():.4f}, most {added.max():.4f})")
        far = float((lost > limits.far_lost * slack).mean())
        if lost.mean() > mean or far > 0.01:
            raise Rejected(f"surface was lost (mean distance {lost.mean():.4f}, {far:.1%} farther than the limit)")
        change = abs(_longest_edge(candidate) / self.longest_edge - 1)
        if change > limits.edge_change * slack:
            raise Rejected(f"the longest edge changed by {change:.1%}")

    def _check_volume(self, candidate: Mesh, solid: float, least: float) -> None:
        """Rejected where the candidate of volume `solid` is much more than is enclosed, which `least` is a bound for.

        Most shapes pass by the bound: no more was added than the surface times its distance. A body that is large
        beside the grid and grows all the same is thin, a wire or a plate: it is given the thickness that the grid can
        hold, and the distances above say how much that is.
        """
        limit = self.settings.growth
        if limit is None or solid <= limit * least or self.bulk > SMALL_BODY / self.resolution:
            return
        grown = growth(candidate, self.scene, self.enclosure)
        if grown > limit:
            raise Rejected(
                f"its volume is {grown:.3g} times what the raw surface encloses, more than acceptance.growth = "
                f"{limit:g}: it is too small for the grid; remove the loose pieces far from it, or raise the resolution"
            )


def outer_points(
    mesh: Mesh, scene: Scene, count: int, directions: int, enclosure: Enclosure | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Those of `count` surface points that can be seen from infinity in one of the directions, and their normals.

    Both (n, 3). enclosure: given for the solid reading, points with enclosed space on both sides are left out.
    """
    points, normals = _points(mesh, count)
    inner = hidden(scene, points, normals, directions)
    points, normals = np.delete(points, inner, axis=0), np.delete(normals, inner, axis=0)
    if enclosure is None:
        return points, normals
    sides = [enclosure.winding(points + side * BESIDE * normals) > LEVEL for side in (1, -1)]
    outer = ~(sides[0] & sides[1])
    return points[outer], normals[outer]


def _points(mesh: Mesh, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on the surface and their normals; always the same ones, so that a verdict does not hang on a seed."""
    return points_on_surface(mesh, count, np.random.default_rng(0))


def _longest_edge(mesh: Mesh) -> float:
    low, high = mesh.bounds
    return float((high - low).max())
