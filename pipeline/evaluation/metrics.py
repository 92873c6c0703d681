"""Metrics between a predicted and a reference shape: plain functions of samples, raw in the samples' units.

P are samples of the predicted surface, G of the reference, d the distance to the nearest sample of the other side:

accuracy      mean d over P, completeness mean d over G; accuracy2 and completeness2 the same with squared d
chamfer_l1    (accuracy + completeness) / 2 and chamfer_l2 (accuracy2 + completeness2) / 2, as Occupancy Networks
normals_*     mean |cosine| between a sample's normal and its nearest sample's; normal_consistency their mean
precision_t   share of P with d <= t, recall_t share of G with d <= t, f_t their harmonic mean
iou           volume of the intersection over volume of the union, counted on labelled points

Two samples of one surface are never at distance zero: with n points on area A the mean is about 0.5 sqrt(A / n).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.geometry.closest import morton_order
from pipeline.geometry.field import volume_iou

__all__ = ["METRICS", "Metric", "compare_surfaces", "f_score", "nearest", "volume_iou"]

F_THRESHOLDS = (0.005, 0.01, 0.015, 0.02)  # of the longest edge; AIR-Nets uses all, ConvONet the last three
LEAF_SIZE = 32  # faster than scipy's 10 for the few neighbours a surface sample has


@dataclass(frozen=True)
class Metric:
    """What a row's key means. penalty: its value for a shape that failed; higher_is_better: which way it improves."""

    title: str
    penalty: float
    higher_is_better: bool


def _distance(title: str) -> Metric:
    return Metric(title, penalty=3**0.5, higher_is_better=False)  # the diagonal of the unit cube


def _square(title: str) -> Metric:
    return Metric(title, penalty=3.0, higher_is_better=False)


def _share(title: str) -> Metric:
    return Metric(title, penalty=0.0, higher_is_better=True)


METRICS: dict[str, Metric] = {
    "iou": _share("IoU"),
    "chamfer_l1": _distance("Chamfer-L1"),
    "chamfer_l2": _square("Chamfer-L2"),
    "accuracy": _distance("Accuracy"),
    "completeness": _distance("Completeness"),
    "accuracy2": _square("Squared accuracy"),
    "completeness2": _square("Squared completeness"),
    "normal_consistency": _share("Normal consistency"),
    "normals_accuracy": _share("Normals accuracy"),
    "normals_completeness": _share("Normals completeness"),
    **{f"f_{t:g}": _share(f"F-score at {t:g}") for t in F_THRESHOLDS},
    **{f"precision_{t:g}": _share(f"Precision at {t:g}") for t in F_THRESHOLDS},
    **{f"recall_{t:g}": _share(f"Recall at {t:g}") for t in F_THRESHOLDS},
}
"""Every metric of a row, in the order of the tables."""


def nearest(queries: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (n,) from each query (n, 3) to the nearest of the points (m, 3), and that point's index (n,)."""
    from scipy.spatial import cKDTree

    # Tight boxes around the nodes cost time for queries far from all points and save none for near ones.
    return cKDTree(points, leafsize=LEAF_SIZE, compact_nodes=False).query(queries, workers=1)


def compare_surfaces(
    predicted: np.ndarray,
    predicted_normals: np.ndarray,
    reference: np.ndarray,
    reference_normals: np.ndarray,
    thresholds: tuple[float, ...] = F_THRESHOLDS,
) -> dict[str, float]:
    """All surface metrics from samples: points (n, 3) and (m, 3) with their normals; the keys are those of METRICS."""
    predicted, predicted_normals = _in_space_order(predicted, predicted_normals)
    reference, reference_normals = _in_space_order(reference, reference_normals)
    to_reference, at_reference = nearest(predicted, reference)
    to_predicted, at_predicted = nearest(reference, predicted)
    return {
        **_distance_metrics(to_reference, to_predicted),
        **_normal_metrics(
            alignment(predicted_normals, reference_normals[at_reference]),
            alignment(reference_normals, predicted_normals[at_predicted]),
        ),
        **_threshold_metrics(to_reference, to_predicted, thresholds),
    }


def alignment(normals: np.ndarray, others: np.ndarray) -> np.ndarray:
    """|cosine| of the angle between vectors (n, 3), whatever their lengths; 0 where one has none. (n,) float64."""
    normals, others = np.asarray(normals, np.float64), np.asarray(others, np.float64)
    lengths = np.linalg.norm(normals, axis=1) * np.linalg.norm(others, axis=1)
    product = np.abs(np.einsum("ij,ij->i", normals, others))
    return np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)


def f_score(precision: float, recall: float) -> float:
    """Harmonic mean; 0 where both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _distance_metrics(to_reference: np.ndarray, to_predicted: np.ndarray) -> dict[str, float]:
    accuracy, completeness = float(to_reference.mean()), float(to_predicted.mean())
    accuracy2, completeness2 = float((to_reference**2).mean()), float((to_predicted**2).mean())
    return {
        "chamfer_l1": (accuracy + completeness) / 2,
        "chamfer_l2": (accuracy2 + completeness2) / 2,
        "accuracy": accuracy,
        "completeness": completeness,
        "accuracy2": accuracy2,
        "completeness2": completeness2,
    }


def _normal_metrics(of_predicted: np.ndarray, of_reference: np.ndarray) -> dict[str, float]:
    accuracy, completeness = float(of_predicted.mean()), float(of_reference.mean())
    return {
        "normal_consistency": (accuracy + completeness) / 2,
        "normals_accuracy": accuracy,
        "normals_completeness": completeness,
    }


def _threshold_metrics(
    to_reference: np.ndarray, to_predicted: np.ndarray, thresholds: tuple[float, ...]
) -> dict[str, float]:
    row = {}
    for threshold in thresholds:
        precision = float((to_reference <= threshold).mean())
        recall = float((to_predicted <= threshold).mean())
        row[f"f_{threshold:g}"] = f_score(precision, recall)
        row[f"precision_{threshold:g}"], row[f"recall_{threshold:g}"] = precision, recall
    return row


def _in_space_order(points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted along a space-filling curve: queries that follow each other then walk the same branches of the tree."""
    order = morton_order(points)
    return points[order], normals[order]
