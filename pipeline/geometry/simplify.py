"""Saving faces of a manifold mesh; of a large one part by part, since the library takes 0.4 kB of memory a face.

The faces are dealt out to parts, and every part is closed by cones on its rims, simplified, and opened again. For the
parts to fit together afterwards the rims must stay as they are: the vertices that parts share are pulled far apart
meanwhile, so that no edge there is short and hardly any two faces lie in a plane.
"""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.quality import corner_fans
from pipeline.geometry.solids import mesh_of, solid

AT_ONCE = 600_000  # faces; few shapes have more on the default grid
FAR = 100.0  # how far vertices are pulled, in longest edges; with 1 some parts changed at their rims


def simplified(mesh: Mesh, tolerance: float) -> Mesh:
    """The mesh with fewer faces, still manifold (manifold3d); moved by up to about twice the `tolerance` where most.

    Raises Rejected where the mesh is not manifold to begin with.
    """
    if len(mesh.faces) > AT_ONCE:
        try:
            return _simplified_whole(_simplified_in_parts(mesh, tolerance, -(-len(mesh.faces) // AT_ONCE)), tolerance)
        except Rejected:  # a rim has changed after all; at once it takes more memory, no more
            pass
    return _simplified_whole(mesh, tolerance)


def _simplified_whole(mesh: Mesh, tolerance: float) -> Mesh:
    return mesh_of(solid(mesh).simplify(tolerance))


def _simplified_in_parts(mesh: Mesh, tolerance: float, count: int) -> Mesh:
    """The mesh with fewer faces, but for those at the seams between the parts."""
    part = _slabs(mesh, count)
    shared = _shared(mesh, part, count)
    part[shared[mesh.faces].all(axis=1)] = count  # nothing to save, and a lone face would vanish
    seam = mesh.vertices[shared]
    rng = np.random.default_rng(0)
    pulled = mesh.vertices.copy()
    far = FAR * np.ptp(mesh.vertices, axis=0).max()
    pulled[shared] += far * rng.normal(size=seam.shape)
    index = np.cumsum(shared) - 1
    vertices, faces, start = [seam], [index[mesh.faces[part == count]]], len(seam)
    for number in np.unique(part[part < count]):
        patch, tips = _patch(pulled, mesh.faces[part == number], shared, rng)
        saved = _simplified_whole(patch, tolerance)
        row = _rows(saved.vertices, np.concatenate([pulled[shared], tips]))  # first the seam's, then the tips'
        without_cones = saved.faces[(row[saved.faces] < len(seam)).all(axis=1)]
        new = row < 0
        row[new] = start + np.arange(np.count_nonzero(new))
        faces.append(row[without_cones])
        vertices.append(saved.vertices[new])
        start += len(vertices[-1])
    return Mesh(np.concatenate(vertices), np.concatenate(faces))


def _slabs(mesh: Mesh, count: int) -> np.ndarray:
    """For each face (f,) the number of its part: equally many in each, cut across the longest axis."""
    along = mesh.vertices[mesh.faces[:, 0], np.ptp(mesh.vertices, axis=0).argmax()]
    return np.searchsorted(np.quantile(along, np.arange(1, count) / count), along)


def _shared(mesh: Mesh, part: np.ndarray, count: int) -> np.ndarray:
    """The vertices with faces of more than one part, (v,) bool."""
    parts = np.zeros(len(mesh.vertices), np.int32)
    for number in range(count):
        used = np.zeros(len(mesh.vertices), bool)
        used[mesh.faces[part == number]] = True
        parts += used
    return parts > 1


def _patch(
    vertices: np.ndarray, faces: np.ndarray, shared: np.ndarray, rng: np.random.Generator
) -> tuple[Mesh, np.ndarray]:
    """The surface of some faces, closed by a cone on every rim, and the tips of the cones, (c, 3).

    shared: which of all vertices are on rims, (v,) bool.
    """
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    vertices, shared, faces = vertices[used], shared[used], (np.cumsum(used) - 1)[faces]
    near = shared[faces].any(axis=1)
    if not near.any():
        return Mesh(vertices, faces), np.zeros((0, 3))
    faces[near], source = _with_own_corners(Mesh(vertices, faces[near]), shared)
    starts, ends = _rims(faces[near], len(vertices), len(vertices) + len(source))
    loop = _loops(starts, ends)
    tips = np.ptp(vertices, axis=0).max() * rng.normal(size=(loop.max() + 1, 3))
    cones = np.stack([ends, starts, len(vertices) + len(source) + loop], axis=1)
    return Mesh(np.concatenate([vertices, vertices[source], tips]), np.concatenate([faces, cones])), tips


def _with_own_corners(mesh: Mesh, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The faces with new vertices in place of the shared ones, and for each new one the old; rims touch nowhere then.

    Every fan of faces round a shared vertex gets one.
    """
    faces = mesh.faces.astype(np.int64)
    at_rim = shared[faces]
    _, first, fan = np.unique(corner_fans(mesh)[at_rim], return_index=True, return_inverse=True)
    source = faces[at_rim][first]
    faces[at_rim] = len(mesh.vertices) + fan
    return faces, source


def _rims(faces: np.ndarray, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the edges between vertices numbered from `first` up to `end` that one face alone has."""
    starts, ends = faces.reshape(-1), faces[:, [1, 2, 0]].reshape(-1)
    between = np.minimum(starts, ends) >= first
    starts, ends = starts[between], ends[between]
    alone = ~np.isin(starts * end + ends, ends * end + starts)
    return starts[alone], ends[alone]


def _loops(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """For each edge (e,) the number of the loop that it is part of."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    vertices, corners = np.unique([starts, ends], return_inverse=True)
    start, end = corners.reshape(2, -1)
    links = coo_array((np.ones(len(start), np.int8), (start, end)), shape=(len(vertices),) * 2)
    return connected_components(links, directed=False)[1][start]


def _rows(points: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each point (n,) the row of the same one among others, -1 where it is not there."""
    from scipy.spatial import cKDTree

    away, row = cKDTree(among).query(points)
    return np.where(away == 0, row, -1)
