"""One finished shape, as the writers of other projects' formats take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.arrays import Mesh


@dataclass(frozen=True)
class FinishedShape:
    """Everything the store has of a shape, canonical frame.

    split: train, val or test. loc (3,), scale: source = loc + scale * canonical. mesh: the watertight mesh. arrays:
    flat, by the names that models use (`pipeline.shape_arrays`): "surface.points", "volume.occupancies" ...
    """

    category: str
    id: str
    split: str
    loc: np.ndarray
    scale: float
    mesh: Mesh
    arrays: Mapping[str, np.ndarray]

    @property
    def name(self) -> str:
        return f"{self.category}/{self.id}"
