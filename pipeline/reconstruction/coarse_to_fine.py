"""Coarse-to-fine sampling of IM-NET (Chen and Zhang, CVPR 2019; `z2voxel` of the author's code, sheet imnet.md 4.1).

The box is cut into resolution_0^3 frames and each frame into (2^depth)^3 voxels; the field is asked at their centres.
First come all frames. A frame whose 26 neighbours and itself are not all on one side has its voxels asked; beyond the
box is outside, so that frames at its faces count as mixed where they are inside. If a voxel of an asked frame is
inside, the neighbours whose own centre was outside are asked too, and so on. All other frames are settled by their
centre. Thin parts that miss every frame's centre are found only from a frame nearby that is asked.

The original writes 1 and 0 into settled frames, here they take their centre's value: the side is the same. It asks some
frames twice, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from pipeline.arrays import Rejected
from pipeline.reconstruction.mise import lattice_positions


def evaluate_coarse_to_fine(
    field: Callable[[np.ndarray], np.ndarray],
    resolution_0: int,
    depth: int,
    level: float,
    box: float,
    inside: Literal["above", "below"] = "above",
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Evaluate a field near its surface at the voxel centres of a centred cube of edge `box`.

    field: maps points (n, 3) float64 to values (n,). inside: which side of the level is solid.
    Returns the grid (R^3 float64, R = resolution_0 * 2^depth, index order x, y, z; index i at box ((i + 0.5) / R -
    0.5)) and the points asked for in each round. Raises Rejected where the field gives values that are not finite.
    """
    frames = CoarseToFine(resolution_0, depth, level, inside)
    rounds = []
    while len(points := frames.queries()):
        rounds.append(lattice_positions(points, frames.resolution, box))
        frames.update(field(rounds[-1]))
    return frames.filled(), rounds


class CoarseToFine:
    """The frames and voxels of one shape, with the verbs of `mise.Refinement`.

    Queries are points of a lattice of half voxels, so that `resolution` is twice the number of voxels per axis; `inset`
    is how far the outermost voxel centres lie within the box, as a share of its edge.
    """

    def __init__(
        self,
        resolution_0: int,
        depth: int,
        level: float,
        inside: Literal["above", "below"] = "above",
        kind: type = np.float64,
    ) -> None:
        if resolution_0 < 1 or depth < 0 or inside not in ("above", "below"):
            raise ValueError(
                f"coarse-to-fine needs resolution_0 >= 1, depth >= 0 and inside 'above' or 'below'; "
                f"got {resolution_0}, {depth} and {inside!r}"
            )
        self._frames, self._parts, self._level, self._sign = resolution_0, 1 << depth, level, inside
        voxels = resolution_0 << depth
        self.resolution, self.inset, self.asked = 2 * voxels, 0.5 / voxels, 0
        self._values = np.empty((voxels,) * 3, kind)
        self._inside: np.ndarray | None = None  # per frame, once the centres are known
        self._known = np.zeros((resolution_0,) * 3, bool)  # frames whose voxels have been asked
        self._pending = np.argwhere(~self._known)  # frames of this round, x slowest
        self.asked += len(self._pending)

    def queries(self) -> np.ndarray:
        """Points (n, 3) int64 of the half-voxel lattice to evaluate now; empty when nothing is left to ask."""
        if self._inside is None:
            return (2 * self._pending + 1) * self._parts
        within = 2 * np.indices((self._parts,) * 3).reshape(3, -1).T + 1
        return (2 * self._parts * self._pending[:, None] + within).reshape(-1, 3)

    def update(self, values: np.ndarray) -> None:
        """Take the values (n,) of the current queries, in their order, and choose the frames they lead to."""
        values = np.asarray(values)
        expected = len(self._pending) * (1 if self._inside is None else self._parts**3)
        if values.shape != (expected,):
            raise ValueError(f"{expected} points were asked for, so values of that shape; got {values.shape}")
        if not np.isfinite(values).all():
            raise Rejected(f"the field is not finite at {np.sum(~np.isfinite(values))} of {len(values)} points")
        chosen = self._settle(values) if self._inside is None else self._spread(values)
        self._known |= chosen
        self._pending = np.argwhere(chosen)
        self.asked += len(self._pending) * self._parts**3

    def filled(self) -> np.ndarray:
        """Values of all voxels; those of frames never asked for have their frame's."""
        return self._values

    def _settle(self, values: np.ndarray) -> np.ndarray:
        """Fill all frames with their centre's value; gives the frames to ask for, those near both sides."""
        from scipy.ndimage import maximum_filter, minimum_filter

        centres = values.reshape(self._known.shape)
        self._by_frame()[...] = centres[..., None, None, None]
        self._inside = self._is_inside(centres)
        if self._parts == 1:
            return np.zeros_like(self._known)  # a frame's one voxel is known by its centre
        sides = (filter(self._inside, 3, mode="constant", cval=0) for filter in (maximum_filter, minimum_filter))
        return np.not_equal(*sides)

    def _spread(self, values: np.ndarray) -> np.ndarray:
        """Fill the frames of this round; gives the outside neighbours, not yet asked for, of those with an inside."""
        from scipy.ndimage import binary_dilation

        self._by_frame()[tuple(self._pending.T)] = values.reshape(-1, *(self._parts,) * 3)
        found = np.zeros_like(self._known)
        some = self._is_inside(values).reshape(len(self._pending), -1).any(axis=1)
        found[tuple(self._pending[some].T)] = True
        return binary_dilation(found, np.ones((3, 3, 3), bool)) & ~self._inside & ~self._known

    def _is_inside(self, values: np.ndarray) -> np.ndarray:
        return values > self._level if self._sign == "above" else values < self._level

    def _by_frame(self) -> np.ndarray:
        """A view of the voxels as (frames)^3 of (parts)^3."""
        frames, parts = self._frames, self._parts
        return self._values.reshape(frames, parts, frames, parts, frames, parts).transpose(0, 2, 4, 1, 3, 5)
