"""In which frame meshes are compared, and whether they lie where a protocol looks.

The protocols are written for the canonical frame: the reference's box centred at the origin, its longest edge 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.arrays import Mesh
from pipeline.geometry.clean import without_unused_vertices

SLACK = 1e-3
"""Of a box's edges, by which something may leave it unnoticed: what lies there moves no IoU beyond its noise."""


@dataclass(frozen=True)
class Box:
    """Axis-aligned, by its lower and upper corner (2, 3). slack: as the constant of that name, and more of it where
    the box is only known from a few random points."""

    corners: np.ndarray
    slack: float = SLACK

    @classmethod
    def cube(cls, edge: float) -> Box:
        """Centred at the origin."""
        return cls(np.array([[-edge / 2] * 3, [edge / 2] * 3]))

    @classmethod
    def around(cls, points: np.ndarray) -> Box:
        """The box that points (n, 3) were drawn in, uniformly: about a share of 1 / n away from its faces."""
        corners = np.stack([points.min(axis=0), points.max(axis=0)]).astype(np.float64)
        return cls(corners, SLACK + 10 / len(points))

    def left_by(self, bounds: np.ndarray) -> bool:
        """Whether a box with the corners (2, 3) reaches out of this one."""
        low, high = self.corners
        room = self.slack * (high - low)
        return bool((bounds[0] < low - room).any() or (bounds[1] > high + room).any())

    def __str__(self) -> str:
        low, high = np.round(self.corners, 3)
        if (low == -high).all() and (high == high[0]).all():
            return f"the cube ±{high[0]:g}"
        return f"the box from {words_of(low)} to {words_of(high)}"


COMMON = Box.cube(1.1)
"""The largest cube of the profiles. A reference that leaves it is in no frame that they are written for."""


@dataclass(frozen=True)
class Placement:
    """Another frame: (x - centre) * factor."""

    centre: np.ndarray
    factor: float

    def back(self, points: np.ndarray) -> np.ndarray:
        return points / self.factor + self.centre

    def moved(self, mesh: Mesh) -> Mesh:
        return Mesh((mesh.vertices - self.centre) * self.factor, mesh.faces)


def placement_of(reference: Mesh) -> Placement | None:
    """The canonical frame by the reference's box; None where the reference lies inside ±0.55 as it comes.

    reference: has a face of some area.
    """
    bounds = without_unused_vertices(reference).bounds
    if not COMMON.left_by(bounds):
        return None
    return Placement(bounds.mean(axis=0), 1 / longest_edge(bounds))


def longest_edge(bounds: np.ndarray) -> float:
    """Of a box by its lower and upper corner (2, 3)."""
    return float((bounds[1] - bounds[0]).max())


def reach(bounds: np.ndarray) -> str:
    """A box by its lower and upper corner (2, 3), in words."""
    low, high = bounds
    return f"its box goes from {words_of(low)} to {words_of(high)}"


def words_of(point: np.ndarray) -> str:
    return f"({', '.join(f'{value:.4g}' for value in point)})"
