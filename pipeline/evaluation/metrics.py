"""Metrics between a predicted and a reference shape: plain functions of samples, raw in the samples' units.

P are samples of the predicted surface, G of the reference, d the distance to the nearest sample of the other side:

accuracy      mean d over P, completeness mean d over G; accuracy2 and completeness2 the same with squared d
chamfer_l1    (accuracy + completeness) / 2 and chamfer_l2 (accuracy2 + completeness2) / 2, as Occupancy Networks
normals_*     mean |cosine| between a sample's normal and its nearest sample's; normal_consistency their mean
precision_t   share of P with d <= t, recall_t share of G with d <= t, f_t their harmonic mean
iou           volume of the intersection over volume of the union, counted on labelled points

Two samples of one surface are never at distance zero: with n points on area A the mean is about 0.5 sqrt(A / n).
Without that floor, measured against the other surface itself (the first points of P and G, `shape.EvaluationSettings`):

accuracy_mesh       mean distance from P to the reference mesh, completeness_mesh from G to the predicted mesh

Of single papers, named in their profiles:

emd                 mean distance of the best one-to-one assignment between as many points of each (DeepSDF)
mesh_accuracy       distance to the reference mesh within which 90 % of P lie; mesh_completion: share of G within 0.01
                    of the predicted mesh; mesh_cosine: mean cosine between normals at G and there (DeepSDF)
voxel_error         share of the lattice on which the occupancies differ, the mean squared error of voxels (IM-NET)
light_field_distance  `light_field.light_field_distance` (IM-NET)
nmv_* ... isect_*   non-manifold vertices, edges, faces and self-intersections as ratios (Neural Mesh Flow, `manifold`)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.geometry.field import volume_iou

__all__ = [
    "GENERAL",
    "METRICS",
    "Match",
    "Metric",
    "Samples",
    "assignment_distance",
    "compare_surfaces",
    "f_score",
    "nearest",
    "surface_metrics",
    "threshold_scores",
    "volume_iou",
]

F_THRESHOLDS = (0.005, 0.01, 0.015, 0.02)  # of the longest edge; AIR-Nets uses all, ConvONet the last three
LEAF_SIZE = 32  # faster than scipy's 10 for the few neighbours a surface sample has
CELLS = 32  # along each axis, in which samples are put into order: about as many points a cell as a leaf has


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


def _fault(title: str) -> Metric:
    return Metric(title, penalty=1.0, higher_is_better=False)


RATIOS = {"nmv": "Non-manifold vertices", "nme": "Non-manifold edges", "nmf": "Non-manifold faces"}
RATIOS["isect"] = "Self-intersections"

_GENERAL: dict[str, Metric] = {
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
    "accuracy_mesh": _distance("Accuracy to the mesh"),
    "completeness_mesh": _distance("Completeness to the mesh"),
}
GENERAL = tuple(_GENERAL)
"""Metrics that every profile's rows hold."""

METRICS: dict[str, Metric] = {
    **_GENERAL,
    "emd": _distance("Earth mover's distance"),
    "mesh_accuracy": _distance("Mesh accuracy"),
    "mesh_completion": _share("Mesh completion"),
    "mesh_cosine": _share("Mesh cosine similarity"),
    "voxel_error": _fault("Voxel error"),
    # About the largest that is ever seen.
    "light_field_distance": Metric("Light field distance", penalty=20_000.0, higher_is_better=False),
    **{f"{key}_published": _fault(f"{title}, as published") for key, title in RATIOS.items()},
    **{f"{key}_corrected": _fault(f"{title}, corrected") for key, title in RATIOS.items()},
}
"""Every metric of a row, in the order of the tables."""


@dataclass(frozen=True)
class Samples:
    """Points (n, 3) on a surface and their normals (n, 3), None where the surface has none."""

    points: np.ndarray
    normals: np.ndarray | None

    @cached_property
    def ordered(self) -> Samples:
        """Neighbours after one another: queries that follow each other then walk the same branches of a tree."""
        order = _space_order(self.points)
        normals = None if self.normals is None else _unit(self.normals.take(order, axis=0))
        return Samples(self.points.take(order, axis=0), normals)

    def moved(self, centre: np.ndarray, factor: float) -> Samples:
        """The samples in another frame: (points - centre) * factor."""
        return Samples((self.points - centre) * factor, self.normals)


@dataclass(frozen=True)
class Match:
    """Nearest neighbours between samples of the predicted and of the reference surface, both ways."""

    predicted: Samples
    reference: Samples
    to_reference: np.ndarray
    """Distance of each predicted sample to the nearest reference sample, (n,); the next is that sample's index."""
    at_reference: np.ndarray
    to_predicted: np.ndarray
    """Distance of each reference sample to the nearest predicted sample, (m,); the next is that sample's index."""
    at_predicted: np.ndarray

    @classmethod
    def of(cls, predicted: Samples, reference: Samples) -> Match:
        predicted, reference = predicted.ordered, reference.ordered
        to_reference = nearest(predicted.points, reference.points)
        to_predicted = nearest(reference.points, predicted.points)
        return cls(predicted, reference, *to_reference, *to_predicted)

    @property
    def pairs(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Unit normals of the predicted samples and of their nearest ones, then of the reference samples and theirs."""
        of_predicted, of_reference = self.predicted.normals, self.reference.normals
        if of_predicted is None or of_reference is None:
            return ()
        return (
            (of_predicted, of_reference.take(self.at_reference, axis=0)),
            (of_reference, of_predicted.take(self.at_predicted, axis=0)),
        )


def nearest(queries: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (n,) from each query (n, 3) to the nearest of the points (m, 3), and that point's index (n,)."""
    from scipy.spatial import cKDTree

    # Tight boxes around the nodes cost time for queries far from all points, and save little for near ones.
    tree = cKDTree(points, leafsize=LEAF_SIZE, compact_nodes=False, balanced_tree=False)
    return tree.query(queries, workers=1)


def compare_surfaces(
    predicted: np.ndarray,
    predicted_normals: np.ndarray | None,
    reference: np.ndarray,
    reference_normals: np.ndarray | None,
    thresholds: tuple[float, ...] = F_THRESHOLDS,
) -> dict[str, float]:
    """All metrics between samples: points (n, 3) and (m, 3) with their normals; the keys are those of METRICS.

    Without normals on both sides the metrics of normals are NaN. Raises ValueError where a side has no point.
    """
    match = Match.of(Samples(predicted, predicted_normals), Samples(reference, reference_normals))
    return surface_metrics(match, thresholds)


def surface_metrics(match: Match, thresholds: tuple[float, ...] = F_THRESHOLDS) -> dict[str, float]:
    """All metrics of a match."""
    return {
        **distance_metrics(match),
        **_normal_metrics(*(np.abs(_cosines(*pair)) for pair in match.pairs)),
        **threshold_scores(match, thresholds),
    }


def mean_cosine(normals: np.ndarray, others: np.ndarray) -> float:
    """Mean cosine of the angle between vectors (n, 3) of any length; negative where they point apart."""
    return float(_cosines(_unit(normals), _unit(others)).mean())


def f_score(precision: float, recall: float) -> float:
    """Harmonic mean; 0 where both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def distance_metrics(match: Match) -> dict[str, float]:
    """The Chamfer distances and their parts."""
    accuracy, completeness = float(match.to_reference.mean()), float(match.to_predicted.mean())
    accuracy2, completeness2 = float(np.square(match.to_reference).mean()), float(np.square(match.to_predicted).mean())
    return {
        "chamfer_l1": (accuracy + completeness) / 2,
        "chamfer_l2": (accuracy2 + completeness2) / 2,
        "accuracy": accuracy,
        "completeness": completeness,
        "accuracy2": accuracy2,
        "completeness2": completeness2,
    }


def threshold_scores(match: Match, thresholds: tuple[float, ...], strict: bool = False) -> dict[str, float]:
    """F-score, precision and recall at each threshold. strict: a distance equal to the threshold is too far."""
    within = np.less if strict else np.less_equal
    row = {}
    for threshold in thresholds:
        precision = float(within(match.to_reference, threshold).mean())
        recall = float(within(match.to_predicted, threshold).mean())
        row[f"f_{threshold:g}"] = f_score(precision, recall)
        row[f"precision_{threshold:g}"], row[f"recall_{threshold:g}"] = precision, recall
    return row


def signed_consistency(match: Match) -> float:
    """Normal consistency in which a normal pointing the other way counts negative (Neural Mesh Flow)."""
    return _mean([_cosines(*pair).mean() for pair in match.pairs])


def componentwise_consistency(match: Match) -> float:
    """Mean of |a_x b_x| + |a_y b_y| + |a_z b_z| over both directions, which Neural-Pull prints as normal consistency.

    It is at least |a . b|: random normals reach 0.75 instead of 0.5 (sheet neuralpull.md 7).
    """
    return _mean([np.abs(a * b).sum(axis=1).mean() for a, b in match.pairs])


def assignment_distance(points: np.ndarray, others: np.ndarray) -> float:
    """Mean distance over the one-to-one assignment of points (n, 3) to others (n, 3) that makes it least; exact.

    Raises ValueError where the numbers differ.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    if len(points) != len(others) or len(points) == 0:
        raise ValueError(f"an assignment needs equal numbers of points, got {len(points)} and {len(others)}")
    distances = cdist(points, others)
    return float(distances[linear_sum_assignment(distances)].mean())


def _normal_metrics(of_predicted: np.ndarray | None = None, of_reference: np.ndarray | None = None) -> dict[str, float]:
    known = of_predicted is not None and of_reference is not None
    accuracy, completeness = (float(of_predicted.mean()), float(of_reference.mean())) if known else (np.nan, np.nan)
    return {
        "normal_consistency": (accuracy + completeness) / 2,
        "normals_accuracy": accuracy,
        "normals_completeness": completeness,
    }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _cosines(normals: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of unit vectors (n, 3)."""
    return np.einsum("ij,ij->i", normals, others)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1, float64; those of length 0 stay."""
    vectors = np.asarray(vectors, np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    lengths[lengths == 0] = 1
    return vectors / lengths[:, None]


def _space_order(points: np.ndarray) -> np.ndarray:
    """Order of points (n, 3) by cell along a Morton curve, (n,); sixteen bits, which sort fastest."""
    if len(points) == 0:
        raise ValueError("there is no sample to compare")
    columns = np.ascontiguousarray(points.T)
    low, high = columns.min(axis=1, keepdims=True), columns.max(axis=1, keepdims=True)
    x, y, z = _SPREAD[((columns - low) * ((CELLS - 1e-3) / np.maximum(high - low, 1e-30))).astype(np.uint16)]
    code = x | y << 1 | z << 2
    return np.argsort(code, kind="stable")


_SPREAD = np.array([sum((value >> bit & 1) << 3 * bit for bit in range(5)) for value in range(CELLS)], np.uint16)
"""Each number below 32 with two zeros between its bits."""
