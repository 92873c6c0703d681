"""The shared vocabulary of arrays: a mesh, the product of a stage, and the rejection of a shape.

Conventions that hold everywhere: canonical frame (bounding box centred, longest edge 1), occupancy 1 inside and 0
outside, signed distance negative inside, points (n, 3) float32, normals of unit length and pointing outward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: vertices (v, 3) float64, faces (f, 3) int32 with indices into the vertices.

    normals: of the vertices (v, 3) float64, where a stage gives any; what changes a mesh drops them.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vertices", np.ascontiguousarray(self.vertices, np.float64).reshape(-1, 3))
        object.__setattr__(self, "faces", np.ascontiguousarray(self.faces, np.int32).reshape(-1, 3))
        if self.normals is not None:
            normals = np.ascontiguousarray(self.normals, np.float64).reshape(self.vertices.shape)
            object.__setattr__(self, "normals", normals)

    @property
    def triangles(self) -> np.ndarray:
        """Corner positions, (f, 3, 3) float64."""
        return self.vertices[self.faces]

    @property
    def bounds(self) -> np.ndarray:
        """Lower and upper corner of the box of all vertices, (2, 3) float64."""
        return np.stack([self.vertices.min(axis=0), self.vertices.max(axis=0)])


@dataclass(frozen=True)
class Product:
    """What a stage makes of one shape.

    value: a Mesh, or a dict of arrays, or a JSON value.
    figures: small numbers and words about it that belong in the ledger; JSON, deterministic.
    encoding: how an array of a dict is stored where that is not its own type, e.g. {"points": ("uint16", 0.6)};
        the array must already be rounded to it (`storage.rounded`), so that labels belong to the stored values.
    status: "ok", or "repaired" where the input had to be changed.
    """

    value: Mesh | dict[str, np.ndarray] | Any
    figures: dict[str, Any] = field(default_factory=dict)
    encoding: dict[str, tuple[str, float] | tuple[str]] = field(default_factory=dict)
    status: str = "ok"


class Rejected(Exception):
    """A shape cannot go on; the message is the reason a person reads in the ledger and the report."""
