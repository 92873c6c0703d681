"""Free space inside a shell, behind mouths that its grid is too coarse to let through.

Looked at on a finer grid, brick by brick: first along given lines of sight, then on into the recesses they lead to.
Rooms, wider than about three voxels of the shell's grid, are left as they are but for what lies near the lines, so that
a crack does not make a solid hollow.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.clean import without_degenerate_faces
from pipeline.geometry.cubes import zero_surface
from pipeline.meshes.band import band_distances
from pipeline.meshes.keep import joined
from pipeline.meshes.shell import BAND, LEAST_DEPTH, Shell

CELLS = 32  # of the finer grid along a brick
MOST_BRICKS = 600  # 0.2 MB and 5 ms each; recesses that do not end in them stay closed
EXACT = 2.0**30  # corners are rounded to this fraction of a voxel: bricks beside each other then agree to the bit
# Lengths in voxels of the shell's grid.
SKIN = 1  # what is that near to the outside lies before a wall, not in a recess
MOUTH = 3  # how far a pocket reaches out of its recess, to where the shell is outside
VIEW = 4  # how far from a line of sight a room is opened
WALL = 3  # how far what belongs to a room lies from the middle of it at most

AROUND = np.ones((3, 3, 3), bool)
WAYS = [way for way in itertools.product((-1, 0, 1), repeat=3) if any(way)]
FACES = [way for way in WAYS if np.abs(way).sum() == 1]

Index = tuple[int, int, int]


def pockets(shell: Shell, mesh: Mesh, sights: np.ndarray, finer: int, offset: float) -> Mesh:
    """The recesses that lines of sight lead into, as closed outward surfaces.

    mesh: the raw one. sights: (n, 3) points on the lines, nearer to each other than a brick is wide. finer: voxels of
    the finer grid along one of the shell's, a divisor of 32. offset: distance of the surfaces from the mesh in voxels
    of the finer grid; mouths narrower than twice that stay closed. Raises Rejected where there is no such recess.
    """
    survey = _Survey(shell, without_degenerate_faces(mesh), sights, finer, offset)
    survey.explore()
    return survey.surface()


@dataclass(frozen=True)
class _Brick:
    """A cube of the finer grid, n = CELLS + 1 nodes along each edge; neighbours share the nodes between them.

    depth: (n, n, n) float16, distance from the level `offset`, in voxels. regions: (n, n, n) int32, the numbers of
    connected free spaces, 0 elsewhere. ends: the regions that go on behind each face.
    """

    depth: np.ndarray
    regions: np.ndarray
    ends: dict[Index, np.ndarray]


class _Survey:
    """The bricks looked at so far, and how the free spaces in them hang together."""

    def __init__(self, shell: Shell, mesh: Mesh, sights: np.ndarray, finer: int, offset: float) -> None:
        self.shell, self.finer, self.offset = shell, finer, offset
        self.side = CELLS // finer
        self.resolution = shell.grid.resolution * finer
        self.triangles = np.rint((mesh.triangles - shell.grid.corner) * self.resolution * EXACT) / EXACT
        self.low, self.high = self.triangles.min(axis=1), self.triangles.max(axis=1)
        self.sights = np.rint((sights - shell.grid.corner) * self.resolution).astype(int)
        self.inside, self.viewed = ~shell.outside, np.zeros(shell.outside.shape, bool)
        self._mark(self.viewed, self.sights)
        self.bricks: dict[Index, _Brick] = {}
        nodes = (MOST_BRICKS, CELLS + 1, CELLS + 1, CELLS + 1)  # one block each, so that the memory is given back whole
        self.depths, self.regions = np.empty(nodes, np.float16), np.empty(nodes, np.int32)
        self.count = 0  # regions so far
        self.seen, self.outside = [np.zeros(0, int)], [np.zeros(0, int)]  # regions on lines of sight; at the outside
        self.links = [np.zeros((2, 0), int)]

    def explore(self) -> None:
        """Look at the bricks of the lines of sight, then at those into which what is seen goes on."""
        new = {tuple(index) for index in (self.sights // CELLS).tolist()}
        while new and len(self.bricks) + len(new) <= MOST_BRICKS:
            for index in sorted(new):
                self._look(index)
            wanted = self._joined(self.seen)
            new = {behind for behind, regions in self._ends() if wanted[regions].any()}

    def surface(self) -> Mesh:
        """The surface of what is seen, connected with the outside, and ends."""
        endless = [regions for _, regions in self._ends()]
        taken = self._joined(self.seen) & self._joined(self.outside) & ~self._joined(endless)
        recess = np.zeros(self.inside.shape, bool)
        for index, brick in self.bricks.items():
            self._mark(recess, np.argwhere(taken[brick.regions] & self._deep(index)) + np.multiply(index, CELLS))
        parts = []
        for index, brick in self.bricks.items():
            inside = taken[brick.regions] & self._finely(self._near(recess, index, MOUTH))
            for way in WAYS:
                if _beside(index, way) not in self.bricks:
                    inside[_shared(way)] = False
            if inside.any():
                parts.append(_surface(inside, brick.depth, np.multiply(index, CELLS)))
        if not parts:
            raise Rejected("no recess leads out of it")
        whole = _stitched(parts)
        return Mesh(self.shell.grid.corner + whole.vertices / self.resolution, whole.faces)

    def _look(self, index: Index) -> None:
        first = np.multiply(index, CELLS)
        most = self.offset + BAND
        near = (self.low < first + CELLS + most + 1).all(axis=1) & (self.high > first - most - 1).all(axis=1)
        distance = band_distances(self.triangles[near] - first, np.full(3, CELLS + 1), most)
        regions = self._regions(index, distance > self.offset)
        deep = np.where(self._deep(index), regions, 0)
        ends = {way: np.unique(deep[_shared(way)]) for way in FACES}
        brick = _Brick(self.depths[len(self.bricks)], self.regions[len(self.bricks)], ends)
        brick.depth[:] = np.maximum(np.abs(distance - self.offset), LEAST_DEPTH)
        brick.regions[:] = regions
        self.bricks[index] = brick
        at_nodes = regions[:: self.finer, :: self.finer, :: self.finer]
        self.outside.append(np.unique(at_nodes[~self._near(self.inside, index, 0)]))
        mine = self.sights[(self.sights // CELLS == index).all(axis=1)] - first
        self.seen.append(regions[tuple(mine.T)])
        for way in WAYS:
            if _beside(index, way) in self.bricks:
                self._join(brick, self.bricks[_beside(index, way)], way)

    def _regions(self, index: Index, free: np.ndarray) -> np.ndarray:
        """Numbers of the connected free spaces, without what is beyond the mouths and what of rooms is out of view."""
        from scipy.ndimage import binary_dilation, label

        free &= self._finely(self._near(self.inside, index, 1))
        viewed = self._near(self.viewed, index, VIEW)
        rooms = self._near(self.shell.rooms, index, 0) & ~viewed
        if rooms.any():
            hidden = free & ~self._finely(viewed)
            middle = self._finely(rooms) & hidden
            free &= ~binary_dilation(middle, AROUND, WALL * self.finer, mask=hidden)
        regions, found = label(free)
        regions[regions > 0] += self.count
        self.count += found
        return regions

    def _join(self, brick: _Brick, other: _Brick, way: Index) -> None:
        """Note which regions of two neighbours are one; nodes that they share are free in both or in neither."""
        mine, theirs = brick.regions[_shared(way)], other.regions[_shared(np.negative(way))]
        both = (mine > 0) & (theirs > 0)
        self.links.append(np.unique(np.stack([mine[both], theirs[both]]), axis=1))
        brick.regions[_shared(way)] = np.where(both, mine, 0)
        other.regions[_shared(np.negative(way))] = np.where(both, theirs, 0)

    def _ends(self) -> Iterator[tuple[Index, np.ndarray]]:
        """Bricks that were not looked at, with the regions that go on there."""
        for index, brick in self.bricks.items():
            for way, regions in brick.ends.items():
                if _beside(index, way) not in self.bricks:
                    yield _beside(index, way), regions

    def _joined(self, regions: list[np.ndarray]) -> np.ndarray:
        """Which regions hang together with one of the given ones, (count + 1,) bool."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        left, right = np.concatenate(self.links, axis=1)
        shape = (self.count + 1, self.count + 1)
        group = connected_components(coo_array((np.ones(len(left), np.int8), (left, right)), shape=shape))[1]
        chosen = np.zeros(self.count + 1, bool)
        chosen[group[np.concatenate([*regions, np.zeros(1, int)])]] = True
        chosen[group[0]] = False
        return chosen[group]

    def _mark(self, flags: np.ndarray, nodes: np.ndarray) -> None:
        """Set the nodes of the shell's grid that are nearest to those of the finer one, (n, 3)."""
        flags[tuple(np.rint(nodes / self.finer).astype(int).T)] = True

    def _deep(self, index: Index) -> np.ndarray:
        """The nodes of a brick that are not near the outside."""
        return ~self._finely(self._near(self.shell.outside, index, SKIN, beyond=True))

    def _near(self, flags: np.ndarray, index: Index, steps: int, beyond: bool = False) -> np.ndarray:
        """The nodes of the shell's grid in a brick that are at most so many steps from a set one.

        beyond: what nodes beyond the grid count as.
        """
        from scipy.ndimage import binary_dilation

        low = np.multiply(index, self.side) - steps
        high = low + self.side + 1 + 2 * steps
        block = flags[tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(low, high, strict=True))]
        before = np.maximum(-low, 0)
        block = np.pad(block, np.stack([before, high - low - before - block.shape], axis=1), constant_values=beyond)
        if steps == 0:
            return block
        return binary_dilation(block, AROUND, steps)[(slice(steps, -steps),) * 3]

    def _finely(self, flags: np.ndarray) -> np.ndarray:
        """The nodes of a brick, each as the nearest node of the shell's grid."""
        nearest = np.rint(np.arange(CELLS + 1) / self.finer).astype(int)
        return flags[np.ix_(nearest, nearest, nearest)]


def _beside(index: Index, way: Index) -> Index:
    return tuple(np.add(index, way).tolist())


def _shared(way: Index) -> tuple:
    """The nodes of a brick that it shares with the one that way."""
    return tuple({-1: 0, 0: slice(None), 1: -1}[int(step)] for step in way)


def _surface(inside: np.ndarray, depth: np.ndarray, first: np.ndarray) -> Mesh:
    """Where a brick changes from inside to not inside, in voxels; only the part round what is inside is looked at."""
    from scipy.ndimage import find_objects

    (box,) = find_objects(inside.astype(np.int8))
    around = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
    values = depth[around].astype(np.float32)
    np.negative(values, out=values, where=inside[around])
    if (values < 0).all():
        return Mesh(np.zeros((0, 3)), np.zeros((0, 3)))
    return zero_surface(values, first + [s.start for s in around], 1.0)


def _stitched(parts: list[Mesh]) -> Mesh:
    """Parts of a surface as one: vertices on the same edge of the grid become one; none lies at a node."""
    whole = joined(parts)
    node = np.floor(whole.vertices)
    edge = (whole.vertices > node) @ [1, 2, 4]
    _, first, corner = np.unique(np.column_stack([node, edge]), axis=0, return_index=True, return_inverse=True)
    return Mesh(whole.vertices[first], corner.reshape(-1)[whole.faces])
