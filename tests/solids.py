"""Solids whose volume, area, inside test and signed distance are known in closed form.

Meshes are closed, consistently wound and outward. `inside` and `sdf` speak of the exact solid, which a tessellation
(sphere, torus) only approaches; boxes are exact.
"""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh

ORIGIN = (0.0, 0.0, 0.0)


def box(extents=(1.0, 1.0, 1.0), centre=ORIGIN) -> Mesh:
    """Twelve triangles on the axis-aligned box with these edge lengths."""
    corners = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    quads = np.array([(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)])
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return Mesh(corners * np.asarray(extents, float) + np.asarray(centre, float), faces)


def box_volume(extents) -> float:
    return float(np.prod(extents))


def box_area(extents) -> float:
    x, y, z = extents
    return 2.0 * (x * y + y * z + z * x)


def box_sdf(points, extents, centre=ORIGIN) -> np.ndarray:
    """Exact signed distance, (n,), negative inside."""
    beyond = np.abs(np.asarray(points, float) - centre) - np.asarray(extents, float) / 2
    return np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(axis=1), 0)


def box_inside(points, extents, centre=ORIGIN) -> np.ndarray:
    return box_sdf(points, extents, centre) < 0


def icosphere(radius: float = 1.0, centre=ORIGIN, subdivisions: int = 3) -> Mesh:
    """An icosahedron, each face cut in four `subdivisions` times, every vertex on the sphere."""
    golden = (1 + 5**0.5) / 2
    vertices = np.array([(0, s, t * golden) for s in (-1, 1) for t in (-1, 1)], float)
    vertices = np.concatenate([np.roll(vertices, k, axis=1) for k in range(3)])
    faces = _convex_faces(vertices)
    for _ in range(subdivisions):
        vertices, faces = _quarter(vertices, faces)
    unit = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    return Mesh(unit * radius + np.asarray(centre, float), faces)


def sphere_volume(radius: float) -> float:
    return 4 / 3 * np.pi * radius**3


def sphere_area(radius: float) -> float:
    return 4 * np.pi * radius**2


def sphere_sdf(points, radius: float = 1.0, centre=ORIGIN) -> np.ndarray:
    """Exact signed distance, (n,), negative inside."""
    return np.linalg.norm(np.asarray(points, float) - centre, axis=1) - radius


def sphere_inside(points, radius: float = 1.0, centre=ORIGIN) -> np.ndarray:
    return sphere_sdf(points, radius, centre) < 0


def torus(major: float = 0.35, minor: float = 0.15, centre=ORIGIN, sections: tuple[int, int] = (96, 48)) -> Mesh:
    """A torus about the z axis: `major` from the axis to the tube's centre, `minor` the tube's radius."""
    around, along = sections
    u, v = np.meshgrid(np.arange(around), np.arange(along), indexing="ij")
    angle_u, angle_v = 2 * np.pi * u / around, 2 * np.pi * v / along
    ring = major + minor * np.cos(angle_v)
    grid = np.stack([ring * np.cos(angle_u), ring * np.sin(angle_u), minor * np.sin(angle_v)], axis=-1)
    u_next, v_next = (u + 1) % around, (v + 1) % along
    a, b, c, d = u * along + v, u_next * along + v, u_next * along + v_next, u * along + v_next
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return Mesh(grid.reshape(-1, 3) + np.asarray(centre, float), faces)


def torus_volume(major: float, minor: float) -> float:
    return 2 * np.pi**2 * major * minor**2


def torus_area(major: float, minor: float) -> float:
    return 4 * np.pi**2 * major * minor


def torus_sdf(points, major: float = 0.35, minor: float = 0.15, centre=ORIGIN) -> np.ndarray:
    """Exact signed distance, (n,), negative inside."""
    local = np.asarray(points, float) - centre
    return np.hypot(np.hypot(local[:, 0], local[:, 1]) - major, local[:, 2]) - minor


THREE_BOXES = (
    ((0.40, 0.22, 0.14), (-0.21, 0.11, 0.07)),
    ((0.12, 0.34, 0.20), (0.25, -0.13, -0.06)),
    ((0.16, 0.10, 0.26), (0.08, 0.24, -0.25)),
)
"""(extents, centre) of three disjoint boxes: no symmetry, no two edges alike, off centre, inside [-0.5, 0.5]^3."""


def three_boxes() -> Mesh:
    """The three boxes as one mesh; a mix-up of axes, signs or origin changes every figure of it."""
    parts = [box(extents, centre) for extents, centre in THREE_BOXES]
    return join(*parts)


def three_boxes_volume() -> float:
    return sum(box_volume(extents) for extents, _ in THREE_BOXES)


def three_boxes_area() -> float:
    return sum(box_area(extents) for extents, _ in THREE_BOXES)


def three_boxes_sdf(points) -> np.ndarray:
    """Exact signed distance, (n,), negative inside: the boxes are disjoint, so the least of the three is exact."""
    return np.min([box_sdf(points, extents, centre) for extents, centre in THREE_BOXES], axis=0)


def three_boxes_inside(points) -> np.ndarray:
    return three_boxes_sdf(points) < 0


def join(*meshes: Mesh) -> Mesh:
    """The meshes side by side in one; nothing is merged."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)]
    return Mesh(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces))


def flipped(mesh: Mesh) -> Mesh:
    """The same surface inside out."""
    return Mesh(mesh.vertices, mesh.faces[:, ::-1])


def moved(mesh: Mesh, shift=ORIGIN, scale: float = 1.0) -> Mesh:
    return Mesh(mesh.vertices * scale + np.asarray(shift, float), mesh.faces)


def _convex_faces(vertices: np.ndarray) -> np.ndarray:
    """Outward triangles of a convex set of equal edges: all triples of mutual neighbours."""
    apart = np.linalg.norm(vertices[:, None] - vertices[None], axis=-1)
    near = np.isclose(apart, apart[apart > 0].min())
    n = len(vertices)
    triples = [
        (i, j, k) for i in range(n) for j in range(i) for k in range(j) if near[i, j] and near[j, k] and near[k, i]
    ]
    faces = np.array(triples)
    outward = np.linalg.det(vertices[faces]) > 0
    return np.where(outward[:, None], faces, faces[:, ::-1])


def _quarter(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each face cut in four at its edges' middles; a middle shared by two faces is one vertex."""
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]], axis=2)
    unique, inverse = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True)
    middle = inverse.reshape(-1, 3) + len(vertices)
    unit = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    a, b, c = faces.T
    ab, bc, ca = middle.T
    cut = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    return np.concatenate([unit, unit[unique].mean(axis=1)]), cut
