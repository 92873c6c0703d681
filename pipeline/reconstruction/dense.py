"""A field evaluated at every point of a lattice: the plain alternative to MISE, and the measure of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.arrays import Rejected
from pipeline.reconstruction.mise import lattice_positions

CHUNK_POINTS = 1 << 18  # points of one shape per round


def evaluate_dense(
    field: Callable[[np.ndarray], np.ndarray], resolution: int, box: float, chunk: int = CHUNK_POINTS
) -> np.ndarray:
    """Values at the (resolution + 1)^3 points of a lattice that spans a centred cube of edge `box`, faces included.

    field: maps points (n, 3) float64 to values (n,). Returns float64, index order x, y, z. For use from Python with any
    field; the workflow asks the `Lattice` of each shape of a batch. Raises Rejected where the field gives values that
    are not finite.
    """
    lattice = Lattice(resolution, chunk)
    while len(points := lattice.queries()):
        lattice.update(field(lattice_positions(points, resolution, box)))
    return lattice.filled()


class Lattice:
    """All points of one shape's lattice, chunk by chunk, with the verbs of `mise.Refinement`."""

    inset = 0.0  # the outermost points stand on the faces of the box

    def __init__(self, resolution: int, chunk: int = CHUNK_POINTS, kind: type = np.float64) -> None:
        self.resolution = resolution
        self.asked = 0
        self._chunk = chunk
        self._values = np.empty((resolution + 1,) * 3, kind)

    def queries(self) -> np.ndarray:
        """Lattice points (n, 3) int64 to evaluate now, x slowest; empty when all are known."""
        pending = np.arange(self.asked, min(self.asked + self._chunk, self._values.size))
        return np.stack(np.unravel_index(pending, self._values.shape), axis=1)

    def update(self, values: np.ndarray) -> None:
        """Take the values (n,) of the current queries, in their order."""
        values = np.asarray(values)
        if not np.isfinite(values).all():
            raise Rejected(f"the field is not finite at {np.sum(~np.isfinite(values))} of {len(values)} points")
        self._values.reshape(-1)[self.asked : self.asked + len(values)] = values
        self.asked += len(values)

    def filled(self) -> np.ndarray:
        """The whole grid."""
        return self._values
