"""Multiresolution isosurface extraction (MISE): a field evaluated on a fine lattice only where its surface passes.

Occupancy Networks (Mescheder et al., CVPR 2019), section 3.3 of the paper and its supplement. The space is an octree
of resolution_0^3 cells, each cut at most `depth` times; the lattice has (R + 1)^3 points, R = resolution_0 * 2^depth.
A leaf cell is cut when it touches values on both sides of the level. It touches every evaluated point of its closed
box, also the points that finer neighbours put on its faces, so that cells are found late and rounds repeat until no
cell is left to cut.

"faithful" asks for the same points in the same rounds as the original. It loses a part that lies wholly between the
planes of the coarsest lattice. "safe" also cuts

- the cells around a cell that touches both sides, and
- the cells around a point whose value could reach the level within the cell: |value - level| is at most half the
  cell's diagonal times the slope there. The slope is the larger of the local one (largest difference to a neighbour
  along each axis) and the median over the coarsest lattice. For a signed distance, whose slope is one, this keeps
  every part wider than a cell of the finest lattice, for the price of a wider band. Other fields are judged by their
  own slope: a part that raises no coarse value at all cannot be found by any rule.

There is no loop over cells: flags of all cells come from a few passes over the lattice's signs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from pipeline.arrays import Rejected

Mode = Literal["faithful", "safe"]

ABOVE, BELOW, BOTH = 1, 2, 3  # signs of a point, or of all points a cell touches; a value equal to the level is both
ASKED = 4  # a point that stands in the current round
REACH = 0.75**0.5  # no place in a cell is farther from its nearest corner than half the diagonal


def evaluate_grid(
    field: Callable[[np.ndarray], np.ndarray],
    resolution_0: int,
    depth: int,
    level: float,
    box: float,
    mode: Mode = "faithful",
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Evaluate a field near its surface on the lattice that spans a centred cube of edge `box`, faces included.

    field: maps points (n, 3) float64 to values (n,). level: the value on the surface.
    Returns the grid ((R + 1)^3 float64, index order x, y, z) and the points asked for in each round. Lattice points
    never asked for repeat the point before them along x, else y, else z, as the original's dense output does; only
    the sign means something there. Raises Rejected where the field gives values that are not finite.
    """
    refinement = Refinement(resolution_0, depth, level, mode)
    rounds = []
    while len(points := refinement.queries()):
        rounds.append(lattice_positions(points, refinement.resolution, box))
        refinement.update(field(rounds[-1]))
    return refinement.filled(), rounds


def lattice_positions(points: np.ndarray, resolution: int, box: float) -> np.ndarray:
    """Positions (n, 3) float64 of lattice points (n, 3) with coordinates 0 to `resolution`."""
    axis = box * (np.arange(resolution + 1) / resolution - 0.5)
    return axis[points]


class Refinement:
    """The octree of one shape, advanced round by round so that several shapes can share a device.

    Ask `queries()`, evaluate, `update(values)`, until there are no queries; then `filled()` is the grid.
    `kind` is the grid's float type.
    """

    inset = 0.0  # the outermost points stand on the faces of the box

    def __init__(
        self, resolution_0: int, depth: int, level: float, mode: Mode = "faithful", kind: type = np.float64
    ) -> None:
        if resolution_0 < 1 or depth < 0 or mode not in ("faithful", "safe"):
            raise ValueError(
                f"MISE needs resolution_0 >= 1, depth >= 0 and mode 'faithful' or 'safe'; "
                f"got {resolution_0}, {depth} and {mode!r}"
            )
        self.resolution = resolution_0 << depth
        self.asked = 0
        self._depth, self._level, self._mode = depth, level, mode
        self._values = np.empty((self.resolution + 1,) * 3, kind)  # read where a sign is known only
        self._signs = np.zeros(self._values.shape, np.uint8)
        # Leaves of each level that can still be cut, coarsest first; all cells of the finest level are final.
        self._leaves = [np.full((resolution_0 << cuts,) * 3, cuts == 0) for cuts in range(depth)]
        self._typical_slope = 0.0  # per cell of the coarsest lattice
        coarse = np.arange(0, self.resolution + 1, 1 << depth)
        self._start_round([np.ravel_multi_index(np.ix_(coarse, coarse, coarse), self._signs.shape).reshape(-1)])

    def queries(self) -> np.ndarray:
        """Lattice points (n, 3) int64 to evaluate now, x slowest; empty when the surface is found."""
        return np.stack(np.unravel_index(self._pending, self._signs.shape), axis=1)

    def update(self, values: np.ndarray) -> None:
        """Take the values (n,) of the current queries, in their order, and cut the cells they tell to."""
        values = np.asarray(values, np.float64)  # in float32 the level itself would be rounded
        if values.shape != self._pending.shape:
            raise ValueError(f"{len(self._pending)} points were asked for, so values of that shape; got {values.shape}")
        if not np.isfinite(values).all():
            raise Rejected(f"the field is not finite at {np.sum(~np.isfinite(values))} of {len(values)} points")
        self._values.reshape(-1)[self._pending] = values
        signs = (values >= self._level) * np.uint8(ABOVE) | (values <= self._level) * np.uint8(BELOW)
        self._signs.reshape(-1)[self._pending] = signs
        self._start_round(self._cut_cells())

    def filled(self) -> np.ndarray:
        """The whole grid. Points never asked for take the value of the point before them along x, else y, else z."""
        fill_forward(self._values, self._signs != 0, step=1 << self._depth)
        return self._values

    def _cut_cells(self) -> list[np.ndarray]:
        """Cut the cells that are to be cut; gives their new points as flat indices."""
        touched = self._signs
        flags = []  # per level, coarsest first: the signs each cell touches
        for _ in range(self._depth):
            touched = _over_pairs(touched) if flags else _over_closed_cells(touched)
            flags.insert(0, touched)
        # All levels are judged before any is cut: a new cell waits for the values of its own points.
        cuts = [leaves & self._to_cut(level, flags[level]) for level, leaves in enumerate(self._leaves)]
        asked = []
        for level, cut in enumerate(cuts):
            if cut.any():
                self._leaves[level] &= ~cut
                if level + 1 < self._depth:
                    _children(self._leaves[level + 1])[...] |= cut[..., None, None, None]
                asked += self._ask(np.argwhere(cut) << (self._depth - level), 1 << (self._depth - level - 1))
        return asked

    def _to_cut(self, level: int, flags: np.ndarray) -> np.ndarray:
        mixed = flags == BOTH
        if self._mode == "faithful":
            return mixed
        near = self._may_hide_surface(level) | _corners(mixed)
        return _over_closed_cells(near, width=1)

    def _may_hide_surface(self, level: int) -> np.ndarray:
        """Points of a level's lattice from which the field could reach the level within a cell, (n + 1)^3 bool."""
        spacing = 1 << (self._depth - level)
        lattice = (slice(None, None, spacing),) * 3
        values = np.where(self._signs[lattice] != 0, self._values[lattice], np.nan)
        slope = _slope(values)
        if level == 0 and not self._typical_slope:
            self._typical_slope = float(np.median(slope))
        slope = np.maximum(slope, self._typical_slope / (1 << level))
        return np.abs(values - self._level) <= REACH * slope  # false where the value is not known

    def _ask(self, origins: np.ndarray, spacing: int) -> list[np.ndarray]:
        """Mark the 3 x 3 x 3 points from each origin (n, 3) on that are neither known nor marked; gives indices."""
        signs = self._signs.reshape(-1)
        shape = self._signs.shape
        first = np.ravel_multi_index(tuple(origins.T), shape)
        asked = []
        for offset in np.ravel_multi_index(np.indices((3, 3, 3)).reshape(3, -1) * spacing, shape):
            points = first + offset
            asked.append(points[signs[points] == 0])
            signs[asked[-1]] = ASKED
        return asked

    def _start_round(self, asked: list[np.ndarray]) -> None:
        self._pending = np.sort(np.concatenate([np.zeros(0, np.int64), *asked]))
        self.asked += len(self._pending)


def fill_forward(grid: np.ndarray, known: np.ndarray, step: int) -> None:
    """Give unknown points the value before them along x, then y, then z, in place; both arrays are used up.

    known: bool, grid's shape; points whose coordinates are all multiples of `step` are known.
    """
    for values, there in ((grid, known), (grid.swapaxes(0, 1), known.swapaxes(0, 1))):
        for i in range(1, len(values)):
            np.copyto(values[i], values[i - 1], where=there[i - 1] > there[i])
            there[i] |= there[i - 1]
    # Now every point whose z is a multiple of the step is known, so that z needs no walk over all planes.
    for plane, there in zip(grid, known, strict=True):
        for offset in range(1, step):
            np.copyto(plane[:, offset::step], plane[:, offset - 1 : -1 : step], where=~there[:, offset::step])


def _over_closed_cells(points: np.ndarray, width: int = 2) -> np.ndarray:
    """OR over the points of each closed cell that is `width` steps wide: (w n + 1)^3 points to n^3 cells."""
    for axis in range(3):
        points = np.moveaxis(points, axis, 0)
        cells = points[:-1:width] | points[width::width]
        for offset in range(1, width):
            cells |= points[offset::width]
        points = np.moveaxis(cells, 0, axis)
    return points


def _over_pairs(cells: np.ndarray) -> np.ndarray:
    """OR over the eight children of each cell: (2n)^3 to n^3."""
    for axis in range(3):
        cells = np.moveaxis(cells, axis, 0)
        cells = np.moveaxis(cells[::2] | cells[1::2], 0, axis)
    return cells


def _children(cells: np.ndarray) -> np.ndarray:
    """A view of (2n)^3 cells as n^3 parents of 2^3 children, (n, n, n, 2, 2, 2)."""
    n = len(cells) // 2
    return cells.reshape(n, 2, n, 2, n, 2).transpose(0, 2, 4, 1, 3, 5)


def _corners(cells: np.ndarray) -> np.ndarray:
    """The points that are a corner of a marked cell, n^3 to (n + 1)^3."""
    for axis in range(3):
        cells = np.moveaxis(cells, axis, 0)
        points = np.zeros((len(cells) + 1, *cells.shape[1:]), bool)
        points[:-1] = cells
        points[1:] |= cells
        cells = np.moveaxis(points, 0, axis)
    return cells


def _slope(values: np.ndarray) -> np.ndarray:
    """Steepness at each lattice point in values per step: the larger one-sided difference of each axis, as a length.

    Differences to unknown (NaN) neighbours count as zero.
    """
    squared = np.zeros(values.shape)
    for axis in range(3):
        difference = np.nan_to_num(np.abs(np.diff(values, axis=axis)))
        steepest = np.moveaxis(np.zeros(values.shape), axis, 0)
        difference = np.moveaxis(difference, axis, 0)
        steepest[:-1] = difference
        np.maximum(steepest[1:], difference, out=steepest[1:])
        squared += np.moveaxis(steepest, 0, axis) ** 2
    return np.sqrt(squared)
