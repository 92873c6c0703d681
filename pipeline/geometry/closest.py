"""Distances from points to a triangle mesh, single-threaded and in the caller's order.

The scene is a float32 bounding volume hierarchy (open3d, Embree), exact to 1e-7 near the canonical frame; far from
the origin or at extreme scales, centre and scale first. Faces without area are left out, since they disturb it by up
to 6e-4. A face more than about 200 times as long as high may still be missed in favour of its neighbour: distances
are then too large, by 3e-4 at most for 0.3 % of the points near the worst meshes measured, never too small. Queries
are sorted along a Morton curve, which makes large meshes 1.2 to 2.6 times faster and cannot change a value.
"""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh

PARITY_RAYS = 3  # one ray errs on 1-10 points in a million (hits on edges); three never did


class Scene:
    """A mesh prepared for queries; build it once when asking several things about one mesh.

    All queries take points (n, 3) of any float type and give arrays in the points' order. Raises ValueError for a
    mesh without a face of positive area.
    """

    def __init__(self, mesh: Mesh) -> None:
        import open3d as o3d

        mesh = without_zero_area(mesh)
        if len(mesh.faces) == 0:
            raise ValueError("the mesh has no face of positive area, so there is nothing to measure against")
        self._scene = o3d.t.geometry.RaycastingScene(nthreads=1)
        self._scene.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
        self._tensor = o3d.core.Tensor.from_numpy

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Unsigned distance to the surface, (n,) float32."""
        return self._ask(points, lambda q: self._scene.compute_distance(q, nthreads=1))

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Distance to the surface, (n,) float32, negative inside. The mesh must be closed and without overlaps."""
        return self._ask(points, lambda q: self._scene.compute_signed_distance(q, nthreads=1, nsamples=PARITY_RAYS))

    def occupancy(self, points: np.ndarray) -> np.ndarray:
        """True inside, (n,) bool, by ray parity. The mesh must be closed and without overlaps."""
        values = self._ask(points, lambda q: self._scene.compute_occupancy(q, nthreads=1, nsamples=PARITY_RAYS))
        return values > 0.5

    def closest_points(self, points: np.ndarray) -> np.ndarray:
        """The nearest point of the surface for each query, (n, 3) float32."""
        return self._ask(points, lambda q: self._scene.compute_closest_points(q, nthreads=1)["points"])

    def closest_normals(self, points: np.ndarray) -> np.ndarray:
        """Unit normal of the nearest face for each query, (n, 3) float32."""
        return self._ask(points, lambda q: self._scene.compute_closest_points(q, nthreads=1)["primitive_normals"])

    def blocked(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Whether the ray from each origin (n, 3) along its direction (n, 3) meets the surface, (n,) bool."""
        rays = np.concatenate([origins, directions], axis=1).astype(np.float32)
        return self._scene.test_occlusions(self._tensor(rays), nthreads=1).numpy()

    def first_hits(self, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where rays from origins (n, 3) along directions (n, 3) first meet the surface, and on which side of it.

        Gives the distances (n,) float32 in lengths of the direction, inf where a ray meets nothing, and the unit
        normals (n, 3) float32 of the faces hit, zero where there is none.
        """
        rays = np.concatenate([origins, directions], axis=1).astype(np.float32)
        hits = self._scene.cast_rays(self._tensor(rays), nthreads=1)
        return hits["t_hit"].numpy(), hits["primitive_normals"].numpy()

    def _ask(self, points: np.ndarray, query) -> np.ndarray:
        points = np.ascontiguousarray(points, np.float32).reshape(-1, 3)
        order = morton_order(points)
        answers = query(self._tensor(points[order])).numpy()
        result = np.empty_like(answers)
        result[order] = answers
        return result


def distance(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    """Unsigned distance of each point (n, 3) to the mesh, (n,) float32."""
    return Scene(mesh).distance(points)


def signed_distance(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    """Distance of each point (n, 3) to a closed mesh, (n,) float32, negative inside."""
    return Scene(mesh).signed_distance(points)


def closest_points(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    """The nearest point of the mesh for each point (n, 3), (n, 3) float32."""
    return Scene(mesh).closest_points(points)


def without_zero_area(mesh: Mesh) -> Mesh:
    """The mesh without faces whose area is zero in float32; the vertices stay as they are."""
    triangles = mesh.vertices.astype(np.float32)[mesh.faces].astype(np.float64)
    doubled = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    keep = (doubled != 0).any(axis=1)
    return mesh if keep.all() else Mesh(mesh.vertices, mesh.faces[keep])


def morton_order(points: np.ndarray) -> np.ndarray:
    """An order of points (n, 3) in which neighbours in the sequence are mostly neighbours in space, (n,) int64."""
    if len(points) == 0:
        return np.empty(0, np.int64)
    low, high = points.min(axis=0), points.max(axis=0)
    cell = np.clip((points - low) / np.maximum(high - low, 1e-30) * 1023, 0, 1023).astype(np.uint32)  # 10 bits an axis
    code = _spread_bits(cell[:, 0]) | _spread_bits(cell[:, 1]) << 1 | _spread_bits(cell[:, 2]) << 2
    return np.argsort(code, kind="stable")


def _spread_bits(value: np.ndarray) -> np.ndarray:
    """The ten low bits, two zeros between each and the next."""
    value = (value | value << 16) & 0x030000FF
    value = (value | value << 8) & 0x0300F00F
    value = (value | value << 4) & 0x030C30C3
    return (value | value << 2) & 0x09249249
