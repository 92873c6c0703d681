"""A closed surface round any soup of triangles: the level set of the distance, seen from outside.

All lengths are in voxels of a grid with `resolution` voxels along the longest edge; meshes are in the normalised frame
(longest edge 1). Distances near the surface on a grid, a flood fill of the space around, marching cubes, and a step
back towards the surface.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.clean import without_degenerate_faces
from pipeline.geometry.closest import Scene
from pipeline.geometry.cubes import zero_surface
from pipeline.geometry.memory import require_memory
from pipeline.geometry.quality import crossing_faces
from pipeline.meshes.band import band_distances
from pipeline.meshes.interior import Enclosure, excess

BAND = 1  # voxels beyond the offset in which distances are exact: the neighbours of what lies within it
BYTES_PER_NODE = 16  # distance, two flags, region, and what marching cubes copies
MOST_RINGS = 8  # rounds in which crossing faces are put back, each with one more ring of neighbours
LEAST_DEPTH = 1e-3  # voxels; how far inside a solid sample lies at least, so that none is on the level


@dataclass(frozen=True)
class Grid:
    """Nodes at corner + (i, j, k) / resolution, shape (3,) of them."""

    corner: np.ndarray
    shape: np.ndarray
    resolution: int

    @classmethod
    def round(cls, mesh: Mesh, resolution: int, padding: int) -> Grid:
        """The grid centred on the mesh with `padding` empty voxels on each side."""
        low, high = mesh.bounds
        shape = np.ceil((high - low) * resolution).astype(int) + 2 * padding + 1
        return cls((low + high) / 2 - (shape - 1) / 2 / resolution, shape, resolution)


@dataclass(frozen=True)
class Shell:
    """A closed surface and the grid it comes from, whose flags are packed into bits until they are asked for."""

    surface: Mesh
    grid: Grid
    outside_bits: np.ndarray
    rooms_bits: np.ndarray

    @functools.cached_property
    def outside(self) -> np.ndarray:
        """The nodes reached from outside, (nx, ny, nz) bool."""
        return self._unpacked(self.outside_bits)

    @functools.cached_property
    def rooms(self) -> np.ndarray:
        """The nodes inside that lie in the middle of wide free space, (nx, ny, nz) bool."""
        return self._unpacked(self.rooms_bits)

    def is_outside(self, points: np.ndarray) -> np.ndarray:
        """Whether the node nearest to each point (..., 3) is outside, as all beyond the grid is, (...) bool."""
        node = np.rint((points - self.grid.corner) * self.grid.resolution).astype(int)
        beyond = ((node < 0) | (node >= self.grid.shape)).any(axis=-1)
        node = np.clip(node, 0, self.grid.shape - 1)
        return beyond | self.outside[tuple(np.moveaxis(node, -1, 0))]

    def _unpacked(self, bits: np.ndarray) -> np.ndarray:
        return np.unpackbits(bits, count=int(np.prod(self.grid.shape))).view(bool).reshape(self.grid.shape)


def offset_shell(
    mesh: Mesh,
    resolution: int,
    padding: int,
    offset: float,
    enclosure: Enclosure | None = None,
    max_area: float = np.inf,
) -> Shell:
    """The boundary of what cannot be reached from outside when the surface is thickened by `offset` voxels.

    Gaps of up to twice the offset are closed, hidden walls and closed cavities vanish, and a sheet becomes a plate
    2 * offset thick; an offset of at least 0.5 seals any sheet. padding: empty voxels around. enclosure: given for the
    solid reading, what it encloses is filled as well. Raises Rejected where nothing is left, or where the boundary has
    more than about `max_area` (in squared longest edges).
    """
    mesh = without_degenerate_faces(mesh)
    grid = Grid.round(mesh, resolution, padding)
    require_memory(float(np.prod(grid.shape)) * BYTES_PER_NODE, f"a grid of {' x '.join(map(str, grid.shape))} nodes")
    field = band_distances((mesh.triangles - grid.corner) * resolution, grid.shape, offset + BAND)
    outside = _reachable(field > offset)
    if outside.all():
        raise Rejected("nothing of it is as thick as the grid is fine")
    field -= np.float32(offset)
    if enclosure is not None:
        np.minimum(field, excess(enclosure, outside, grid.corner, resolution), out=field, where=outside)
        outside = _reachable(outside & (field > 0))  # what is left between filled parts is inside too
    bounded = _area(outside) / resolution**2
    if bounded > max_area:
        raise Rejected(f"its area is about {bounded:.0f} squared longest edges: loose faces rather than a surface")
    rooms = np.packbits((field > BAND - LEAST_DEPTH) & ~outside)
    np.abs(field, out=field)
    np.maximum(field, LEAST_DEPTH, out=field)
    np.negative(field, out=field, where=~outside)  # beyond a hidden wall the distance grows again: still inside
    bits = np.packbits(outside)
    del outside  # not to be there beside what marching cubes needs
    return Shell(zero_surface(field, grid.corner, 1 / resolution), grid, bits, rooms)


def drawn_back(shell: Mesh, scene: Scene, resolution: int, offset: float, remaining: float) -> Mesh:
    """The shell with every vertex moved straight towards the surface until it is `remaining` voxels away.

    Vertices much farther away than the offset lie on no wall, but over an opening that was filled; they stay.
    """
    target = scene.closest_points(shell.vertices).astype(np.float64)
    away = shell.vertices - target
    length = np.linalg.norm(away, axis=1, keepdims=True) * resolution
    share = np.minimum(1.0, remaining / np.maximum(length, 1e-9))
    return Mesh(np.where(length < offset + BAND, target + away * share, shell.vertices), shell.faces)


def untangled(drawn: Mesh, shell: Mesh) -> Mesh:
    """The drawn-back shell with the vertices of crossing faces, and ever more of those round them, put back.

    Raises Rejected where that does not end in a surface without crossings.
    """
    vertices, back = drawn.vertices.copy(), np.zeros(len(drawn.vertices), bool)
    for rings in range(MOST_RINGS):
        crossing = crossing_faces(Mesh(vertices, shell.faces))
        if len(crossing) == 0:
            return Mesh(vertices, shell.faces)
        near = np.zeros(len(back), bool)
        near[shell.faces[crossing.reshape(-1)]] = True
        for _ in range(rings):
            near[shell.faces[near[shell.faces].any(axis=1)]] = True
        back |= near
        vertices[back] = shell.vertices[back]
    raise Rejected("its faces cross even where they are not drawn back")


def _area(outside: np.ndarray) -> float:
    """Roughly the area between two kinds of nodes, in squared voxels: edges of the grid that cross it, over 1.5.

    A surface of unit area crosses |n_x| + |n_y| + |n_z| of them, 1.5 on average over the directions of its normal n.
    """
    crossed = sum(int((np.diff(outside.view(np.int8), axis=axis) != 0).sum()) for axis in range(3))
    return crossed / 1.5


def _reachable(free: np.ndarray) -> np.ndarray:
    """The free nodes connected through faces with the first corner of the grid, (nx, ny, nz) bool."""
    from scipy.ndimage import label

    if not free[0, 0, 0]:
        raise Rejected("the padding of the grid is too small for the offset")
    regions, _ = label(free)
    return regions == regions[0, 0, 0]
