"""What the sampling stages share: the mesh as something to ask for inside and distance, and figures for the ledger."""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.closest import Scene


def queryable(mesh: Mesh) -> Scene:
    """The mesh prepared for inside and distance queries. Rejected where it has no face of positive area."""
    try:
        return Scene(mesh)
    except ValueError as error:
        raise Rejected(str(error)) from error


def share(flags: np.ndarray) -> float:
    """The part of the flags that is set, 0 where there are none; as `significant`."""
    return significant(flags.mean()) if flags.size else 0.0


def significant(value: float) -> float:
    """Rounded to six digits, so that the last bits of a sum, which processors differ in, stay out of a ledger."""
    return float(f"{value:.6g}")
