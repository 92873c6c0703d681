"""Evaluation without meshes: IoU of a field on labelled points.

`point_iou` is what training validates with; the originals report it as their fast evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.geometry.field import Quantity, point_iou

__all__ = ["evaluate_points", "point_iou"]


def evaluate_points(
    field: Callable[[np.ndarray], np.ndarray],
    volume: dict[str, np.ndarray],
    quantity: Quantity,
    level: float | None = None,
    batch_points: int = 65_536,
) -> dict[str, Any]:
    """Point IoU of one shape's field, which maps points (n, 3) to values (n,) of the quantity.

    volume: "points" (m, 3) and "occupancies" (m,). level: as `geometry.field.raw_level`.
    Returns iou (NaN where the labels hold no inside point), points, status and reason.
    """
    points = volume["points"]
    parts = [np.asarray(field(points[i : i + batch_points])) for i in range(0, len(points), batch_points)]
    values = np.concatenate(parts) if parts else np.zeros(0)
    broken = int(np.isnan(values).sum())
    return {
        "iou": point_iou(values, volume["occupancies"], level, quantity),
        "points": len(points),
        "status": "invalid" if broken else "ok",
        "reason": f"the field is NaN at {broken} of {len(points)} points" if broken else "",
    }
