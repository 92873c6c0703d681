"""Labels of very many points at once: one test per region of empty space instead of one per point.

A closed mesh divides space into regions, and within one of them every inside test gives the same answer. So points in
cells that the surface does not touch take their region's label, and only the others are tested one by one.
"""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh
from pipeline.evaluation.inside import Method, contains
from pipeline.geometry.clean import merged, without_unused_vertices

POINTS_PER_CELL = 4
"""Points for which a cell is worth having; more cells leave fewer points beside the surface, but must be labelled."""

FEWEST_POINTS = 200_000
"""For fewer the grid is not worth it."""

MOST_CELLS = 96
"""Along each axis."""

OFFSETS = np.array([(0.5641, 0.3789, 0.4273), (0.3127, 0.6421, 0.5519), (0.4517, 0.5833, 0.3391)])
"""Where in a cell its region is tested, by majority: a cell's centre may well lie on the line through an edge."""

MARGIN = 1e-6
"""Of the box's edges, by which a face's box is widened: rounding must not hide a cell from its face."""


def inside_many(mesh: Mesh, points: np.ndarray, method: Method) -> np.ndarray:
    """As `inside.contains`, (n,) bool, and faster where there are more points than the mesh has detail.

    On an open mesh the tests differ from each other and from point to point, so each point is tested; on a closed one
    the answers are those of `contains` but for points whose ray passes through an edge, at most about 1 in 10,000.
    """
    if len(points) < FEWEST_POINTS or not is_closed(mesh):
        return contains(mesh, points, method)
    cells = min(MOST_CELLS, round((len(points) / POINTS_PER_CELL) ** (1 / 3)))
    mesh = without_unused_vertices(mesh)
    low, high = mesh.bounds
    if not (high > low).all():
        return contains(mesh, points, method)
    grid = _Grid(mesh, cells)
    within = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1))
    region = grid.regions[grid.cell_of(points[within])]
    beside = within[region == 0]
    answers = contains(mesh, np.concatenate([points[beside], grid.representatives]), method)
    votes = answers[len(beside) :].reshape(-1, len(OFFSETS)).sum(axis=1)
    of_region = np.concatenate([[False], 2 * votes > len(OFFSETS)])
    inside = np.zeros(len(points), bool)
    inside[within] = of_region[region]
    inside[beside] = answers[: len(beside)]
    return inside


def is_closed(mesh: Mesh) -> bool:
    """Whether every edge has an even number of faces, vertices at one position counting as one."""
    return len(mesh.faces) > 0 and (_all_even(mesh) or _all_even(merged(mesh)))


def _all_even(mesh: Mesh) -> bool:
    if len(mesh.faces) % 2:  # three edges a face: an odd number of uses cannot pair up
        return False
    corners = mesh.faces.astype(np.int64)
    following = corners[:, [1, 2, 0]]
    keys = np.minimum(corners, following) * len(mesh.vertices) + np.maximum(corners, following)
    first, second = np.sort(keys, axis=None).reshape(-1, 2).T
    return bool((first == second).all())


class _Grid:
    """Equal cells over the box of a mesh.

    regions: of each cell, flat: 0 where a face may touch it, else the number of its region of connected free cells.
    representatives: points in each region, (regions * len(OFFSETS), 3).
    """

    def __init__(self, mesh: Mesh, cells: int) -> None:
        from scipy import ndimage

        low, high = mesh.bounds
        self._low, self._scale, self._cells = low, cells / (high - low), cells
        regions = ndimage.label(~self._touched(mesh))[0]
        self.regions = regions.reshape(-1)
        numbers, first = np.unique(self.regions, return_index=True)
        where = np.stack(np.unravel_index(first[numbers > 0], regions.shape), axis=1)
        self.representatives = ((where[:, None] + OFFSETS) / self._scale + low).reshape(-1, 3)

    def cell_of(self, points: np.ndarray) -> np.ndarray:
        """Number of the cell of each point (n, 3) of the box, (n,)."""
        x, y, z = np.minimum((points - self._low) * self._scale, self._cells - 1).astype(np.int32).T
        return (x * self._cells + y) * self._cells + z

    def _touched(self, mesh: Mesh) -> np.ndarray:
        """Cells that meet the box of a face, (cells, cells, cells) bool."""
        scaled, margin = (mesh.vertices - self._low) * self._scale, MARGIN * self._cells
        lowest, highest = (np.clip(scaled + d, 0, self._cells - 1).astype(np.int16) for d in (-margin, margin))
        low = np.minimum.reduce([lowest[mesh.faces[:, k]] for k in range(3)])
        high = np.maximum.reduce([highest[mesh.faces[:, k]] for k in range(3)])
        single = (low == high).all(axis=1)
        touched = _covered(low[~single], high[~single], self._cells)
        touched[tuple(low[single].T)] = True
        return touched


def _covered(low: np.ndarray, high: np.ndarray, cells: int) -> np.ndarray:
    """Cells in any of the boxes from low to high, (n, 3) each and both inclusive.

    Each box adds one from its lowest cell on and takes it away behind its highest, along all three axes.
    """
    size = cells + 1
    count = np.zeros(size**3, np.int64)
    ends = low.astype(np.int64), high.astype(np.int64) + 1
    for upper in np.ndindex(2, 2, 2):
        x, y, z = (ends[side][:, axis] for axis, side in enumerate(upper))
        count += (-1) ** sum(upper) * np.bincount((x * size + y) * size + z, minlength=size**3)
    count = count.reshape(size, size, size)
    for axis in range(3):
        count = count.cumsum(axis=axis)
    return count[:-1, :-1, :-1] > 0
