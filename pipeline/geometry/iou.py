"""Intersection over union of two occupancies."""

from __future__ import annotations

import numpy as np


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the places inside both among those inside either, 0 to 1; NaN where both are empty.

    a, b: occupancies of one shape, bool (or 0 and 1): points (n,) or voxels (x, y, z). Raises ValueError where the
    shapes differ, since broadcasting would count places twice.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape:
        raise ValueError(f"occupancies of shapes {a.shape} and {b.shape} cannot be compared")
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else float("nan")
