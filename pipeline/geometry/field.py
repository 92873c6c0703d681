"""Fields: where their surface lies, which points they hold inside, and how well that agrees with labels.

Training validates with `point_iou`, the quick evaluation reports it, and extraction takes its level from here, so
that one threshold means one surface everywhere.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from pipeline.geometry.iou import iou

Quantity = Literal["occupancy_logit", "occupancy", "signed_distance"]


def raw_level(quantity: Quantity, level: float | None = None) -> float:
    """The value that a field of this quantity has on the surface.

    level: a probability in (0, 1) for both occupancies (None: 0.5), a distance for "signed_distance" (None: 0). As a
    logit a probability t is ln t - ln(1 - t). Raises ValueError for a quantity without a level or a probability
    outside (0, 1).
    """
    if quantity not in get_args(Quantity):
        raise ValueError(f"quantity {quantity!r} has no level; those that have are {', '.join(get_args(Quantity))}")
    if quantity == "signed_distance":
        return 0.0 if level is None else float(level)
    probability = 0.5 if level is None else float(level)
    if not 0 < probability < 1:
        raise ValueError(f"the level of an occupancy is a probability above 0 and below 1, got {probability}")
    return math.log(probability) - math.log1p(-probability) if quantity == "occupancy_logit" else probability


def occupied(values: np.ndarray, quantity: Quantity, level: float | None = None) -> np.ndarray:
    """Which values of a field lie inside, bool of the same shape; the level itself counts as inside."""
    threshold = raw_level(quantity, level)
    values = np.asarray(values)
    return values <= threshold if quantity == "signed_distance" else values >= threshold


def point_iou(
    values: np.ndarray, occupancies: np.ndarray, level: float | None = None, quantity: Quantity = "occupancy_logit"
) -> float | np.ndarray:
    """IoU of a field's values with the labels of the same points: a float for (n,), an array (B,) for (B, n).

    level: as in `raw_level`. NaN where the labels hold no inside point or the field gave a value that is NaN, which
    would else pass for outside. Raises ValueError where the shapes differ.
    """
    values, labels = np.asarray(values), np.asarray(occupancies) > 0.5
    if values.ndim > 1:
        return np.array([point_iou(v, o, level, quantity) for v, o in zip(values, labels, strict=True)])
    if np.isnan(values).any():
        return float("nan")
    return volume_iou(occupied(values, quantity, level), labels)


def volume_iou(predicted: np.ndarray, reference: np.ndarray) -> float:
    """IoU of flags (n,) on sample points; NaN where the reference has no volume, since nothing can agree with it."""
    return float(iou(predicted, reference)) if np.any(reference) else float("nan")
