"""The solid reading of open shells: what a surface encloses although it has openings.

A point is enclosed where the generalised winding number (Jacobson, Kavan and Sorkine-Hornung 2013, equation 4) of the
surface is above 1/2: seen from there the surface, its outer side away, covers more than half of all directions. An
opening is closed by the surface from which it fills half the view, which in a flat rim is flat; concave outer shapes
are not filled, since the surface turns its outer side to them. Which side is the outer one is decided patch by patch:
the one from which more directions are free (Takayama et al. 2014). A shell modelled with walls of their own thickness
is a closed solid already, and stays hollow.
"""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh
from pipeline.geometry.closest import Scene
from pipeline.geometry.measures import face_areas, face_normals
from pipeline.meshes.views import escapes

LEVEL = 0.5  # winding number above which a point is enclosed
STRIDE = 4  # nodes between the samples of the first, coarse look
SHARPNESS = 64.0  # voxels per unit of winding number; how fast the field rises beside a lid
VIEWS = 48  # directions in which each side of a patch is looked at
SAMPLES = 2000  # points by area on the whole surface, and
LEAST_SAMPLES = 4  # on every patch
FREER = 1e-3  # share of the looks at a patch that are to be more free on one side than on the other
AT_ONCE = 200_000  # points whose winding numbers are asked for together


class Enclosure:
    """A mesh as a boundary with an outer side, for the winding number of points."""

    def __init__(self, mesh: Mesh, scene: Scene) -> None:
        self.mesh = facing_out(mesh, scene)

    def winding(self, points: np.ndarray) -> np.ndarray:
        """Generalised winding number of each point (n, 3), (n,) float64 (Barill et al. 2018, to a few thousandths)."""
        import igl

        faces = self.mesh.faces.astype(np.int64)
        if len(points) == 0:
            return np.zeros(0)
        parts = np.array_split(np.asarray(points, np.float64), 1 + len(points) // AT_ONCE)
        return np.concatenate([igl.fast_winding_number(self.mesh.vertices, faces, part) for part in parts])


def facing_out(mesh: Mesh, scene: Scene) -> Mesh:
    """The mesh with each patch of neighbouring faces turned so that its front sees more free directions than its back.

    A patch that is as free on both sides, or on neither, keeps its winding (the first face's).
    """
    import igl

    faces, patch = igl.bfs_orient(mesh.faces.astype(np.int64))
    mesh = Mesh(mesh.vertices, faces)
    points, normals, owner = _patch_samples(mesh, patch)
    front = escapes(scene, points, normals, VIEWS)
    back = escapes(scene, points, -normals, VIEWS)
    freer = np.bincount(owner, back - front, minlength=patch.max() + 1)
    turned = freer > FREER * VIEWS * np.bincount(owner, minlength=len(freer))
    return Mesh(mesh.vertices, np.where(turned[patch][:, None], mesh.faces[:, ::-1], mesh.faces))


def _patch_samples(mesh: Mesh, patch: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, normals and patch of samples by area, and of the largest faces of every patch."""
    rng = np.random.default_rng(0)
    areas = face_areas(mesh)
    drawn = np.searchsorted(np.cumsum(areas), np.sort(rng.random(SAMPLES)) * areas.sum(), side="right")
    order = np.lexsort((-areas, patch))
    rank = np.arange(len(order)) - np.searchsorted(patch[order], patch[order])
    chosen = np.concatenate([np.minimum(drawn, len(areas) - 1), order[rank < LEAST_SAMPLES]])
    weights = rng.dirichlet(np.ones(3), len(chosen))
    points = np.einsum("nk,nkd->nd", weights, mesh.triangles[chosen])
    return points, face_normals(mesh)[chosen], patch[chosen]


def excess(enclosure: Enclosure, outside: np.ndarray, corner: np.ndarray, resolution: int) -> np.ndarray:
    """How far each outside node is from being enclosed, negative where it is, (nx, ny, nz) float32, large off the lids.

    outside: (nx, ny, nz) bool, nodes that are reached from outside; others get no value of use. Far from walls and
    lids the winding number is smooth and a coarse look is enough; near them every node is asked.
    """
    shape = np.array(outside.shape)
    counts = (shape - 2) // STRIDE + 2  # coarse nodes, the last ones on or beyond the border
    nodes = np.indices(counts).reshape(3, -1).T * STRIDE
    coarse = enclosure.winding(corner + nodes / resolution).reshape(counts)
    enclosed = _corners(coarse > LEVEL)  # (8, cells)
    cells = counts - 1
    padded = np.pad(outside, [(0, int(n)) for n in cells * STRIDE + 1 - shape], constant_values=True)
    walled = ~_all_in_cells(padded, cells)
    close = walled | (enclosed.any(axis=0) != enclosed.all(axis=0))
    field = np.where(enclosed.all(axis=0), -SHARPNESS, SHARPNESS).astype(np.float32)
    field = field.repeat(STRIDE, 0).repeat(STRIDE, 1).repeat(STRIDE, 2)
    field = np.pad(field, [(0, 1)] * 3, mode="edge")[tuple(map(slice, shape))].copy()
    asked = _spread(close)[tuple(map(slice, shape))] & outside
    where = np.argwhere(asked)
    field[asked] = (LEVEL - enclosure.winding(corner + where / resolution)) * SHARPNESS
    return field


def _corners(values: np.ndarray) -> np.ndarray:
    """The values at the eight corners of every cell, (8, nx - 1, ny - 1, nz - 1)."""
    first, last = slice(None, -1), slice(1, None)
    return np.stack([values[i, j, k] for i in (first, last) for j in (first, last) for k in (first, last)])


def _all_in_cells(flags: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Whether all nodes in and on each cell are set."""
    for axis, count in enumerate(cells):
        starts = [np.take(flags, range(k, k + count * STRIDE, STRIDE), axis=axis) for k in range(STRIDE + 1)]
        flags = np.logical_and.reduce(starts)
    return flags


def _spread(cells: np.ndarray) -> np.ndarray:
    """The nodes in and on the flagged cells."""
    for axis in range(3):
        wide = cells.repeat(STRIDE, axis)
        pad = [(0, 0)] * 3
        pad[axis] = (0, 1)
        ends = [(0, 0)] * 3
        ends[axis] = (1, 0)
        cells = np.pad(wide, pad) | np.pad(wide, ends)
    return cells
