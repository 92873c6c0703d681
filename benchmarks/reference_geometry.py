"""A plain data path to measure against: the recipes of a sheet of measurements, written down step by step.

Watertighting by an offset shell (distances on a grid in two levels, flood fill, marching cubes, shrink, simplify), and
labels by ray parity and signed distances, Morton-sorted. It uses the libraries as their manuals show, one thread each,
and nothing of Isomill. It has no gate for meshes that are closed already, no acceptance test and no store.
"""

from __future__ import annotations

import numpy as np

RESOLUTION = 256
OFFSET = 0.6  # voxels
SHRINK = 0.25  # voxels
PADDING = 0.06  # of the longest edge
TOLERANCE = 1e-4
COARSE = 4  # voxels


def read(path):
    import trimesh

    mesh = trimesh.load(path, force="mesh", process=False, skip_materials=True)
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)


def watertight(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Closed surface round the triangles, in their frame: (v, 3) float64, (f, 3)."""
    from manifold3d import Manifold, Mesh64

    faces = faces[np.isfinite(vertices[faces]).all(axis=(1, 2))]
    used = vertices[faces.reshape(-1)]
    low, high = used.min(axis=0), used.max(axis=0)
    centre, extent = (low + high) / 2, (high - low).max()
    scene = _scene((vertices - centre) / extent, faces)
    shell, shell_faces = _shell(scene, (high - low) / extent)
    target = _ask(lambda q: scene.compute_closest_points(q, nthreads=1)["points"], shell)
    away = shell - target
    length = np.linalg.norm(away, axis=1, keepdims=True)
    shrunk = target + away * np.minimum(1.0, SHRINK / RESOLUTION / np.maximum(length, 1e-12))
    solid = Manifold(Mesh64(shrunk, shell_faces.astype(np.uint64))).simplify(TOLERANCE).to_mesh64()
    return solid.vert_properties[:, :3] * extent + centre, solid.tri_verts.astype(np.int64)


def _shell(scene, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.ndimage import label
    from skimage.measure import marching_cubes

    voxel = 1 / RESOLUTION
    cells = np.ceil((size + 2 * PADDING) * RESOLUTION / COARSE).astype(int)
    shape = cells * COARSE
    low = -shape * voxel / 2
    first = np.indices(cells).reshape(3, -1).T * COARSE
    coarse = _ask(lambda q: scene.compute_distance(q, nthreads=1), low + (first + COARSE / 2) * voxel)
    near = first[coarse < (OFFSET + 2) * voxel + COARSE * voxel * 3**0.5 / 2]
    distance = np.full(shape, (OFFSET + 2) * voxel, np.float32)
    inner = np.indices((COARSE,) * 3).reshape(3, -1).T
    for part in np.array_split(near, 1 + len(near) // 20_000):
        nodes = (part[:, None] + inner).reshape(-1, 3)
        distance[tuple(nodes.T)] = _ask(lambda q: scene.compute_distance(q, nthreads=1), low + (nodes + 0.5) * voxel)
    regions, _ = label(distance > OFFSET * voxel)
    beyond = np.abs(distance - OFFSET * voxel)
    field = np.where(regions == regions[0, 0, 0], beyond, -np.maximum(beyond, 1e-3 * voxel)) / voxel
    corners, faces, _, _ = marching_cubes(field, 0.0)
    return low + (corners + 0.5) * voxel, faces


def scaled(vertices: np.ndarray) -> np.ndarray:
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    return ((vertices - (low + high) / 2) / (high - low).max()).astype(np.float32)


def surface(vertices, faces, count: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Area-uniform points and normals, (count, 3) each."""
    a, b, c = vertices[faces].transpose(1, 0, 2).astype(np.float64)
    cross = np.cross(b - a, c - a)
    doubled = np.linalg.norm(cross, axis=1)
    total = np.cumsum(doubled)
    face = np.searchsorted(total, rng.random(count) * total[-1])
    u, v = rng.random((2, count, 1))
    over = u + v > 1
    u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
    points = a[face] + u * (b - a)[face] + v * (c - a)[face]
    return points.astype(np.float32), (cross[face] / doubled[face, None]).astype(np.float32)


def boundary(vertices, faces, count: int, sigma: float, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points near the surface, their occupancies and signed distances."""
    points = surface(vertices, faces, count, rng)[0] + rng.normal(0, sigma, (count, 3)).astype(np.float32)
    scene = _scene(vertices, faces)
    inside = _ask(lambda q: scene.compute_occupancy(q, nthreads=1, nsamples=3), points) > 0.5
    order = morton_order(points)
    distances = np.empty(count, np.float32)
    distances[order] = _ask(lambda q: scene.compute_signed_distance(q, nthreads=1, nsamples=3), points[order])
    return points, inside, distances


def volume(vertices, faces, count: int, rng) -> tuple[np.ndarray, np.ndarray]:
    points = (rng.random((count, 3), np.float32) - np.float32(0.5)) * np.float32(1.1)
    return points, occupancy(vertices, faces, points)


def voxels(vertices, faces, resolution: int) -> np.ndarray:
    centres = (np.arange(resolution) + 0.5) / resolution - 0.5
    grid = np.stack(np.meshgrid(centres, centres, centres, indexing="ij"), -1).reshape(-1, 3)
    return occupancy(vertices, faces, grid).reshape((resolution,) * 3)


def occupancy(vertices, faces, points) -> np.ndarray:
    scene = _scene(vertices, faces)
    return _ask(lambda q: scene.compute_occupancy(q, nthreads=1, nsamples=3), points) > 0.5


def morton_order(points: np.ndarray) -> np.ndarray:
    low, high = points.min(axis=0), points.max(axis=0)
    cell = ((points - low) / (high - low) * 1023).astype(np.uint64)
    code = np.zeros(len(points), np.uint64)
    for bit in range(10):
        for axis in range(3):
            code |= ((cell[:, axis] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(3 * bit + axis)
    return np.argsort(code)


def _scene(vertices: np.ndarray, faces: np.ndarray):
    """Ray casting scene of the faces with an area."""
    import open3d as o3d

    a, b, c = vertices[faces].transpose(1, 0, 2)
    faces = faces[np.linalg.norm(np.cross(b - a, c - a), axis=1) > 0]
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(vertices.astype(np.float32), faces.astype(np.uint32))
    return scene


def _ask(query, points: np.ndarray) -> np.ndarray:
    import open3d as o3d

    return query(o3d.core.Tensor.from_numpy(np.ascontiguousarray(points, np.float32))).numpy()
