"""Evaluation of two meshes at hand, without the workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.arrays import Mesh
from pipeline.evaluation.inside import contains
from pipeline.evaluation.profiles import Protocol, profile_named
from pipeline.evaluation.shape import EvaluationSettings, evaluate, fault_of
from pipeline.geometry.sampling import points_on_surface
from pipeline.seeds import rng_for

Samples = Mapping[str, np.ndarray] | tuple[np.ndarray, np.ndarray]


def evaluate_pair(
    predicted: Any,
    reference: Any,
    profile: str = "onet",
    seed: int = 0,
    reference_samples: Samples | None = None,
    query_points: Samples | np.ndarray | None = None,
) -> dict[str, Any]:
    """Compare a predicted mesh with a reference; both trimesh meshes, or anything with vertices and faces.

    Both are taken as they are: lengths (F-score thresholds, the IoU cube) mean the canonical frame, longest edge 1
    around the origin. predicted may be None. reference_samples: the reference's points and normals as a pair or under
    the keys "points" and "normals", in place of fresh ones. query_points: points for the IoU (n, 3), labelled by the
    reference, or points and labels as a pair or under "points" and "occupancies"; else fresh ones, uniform in the
    profile's cube. The reference mesh may be None where both are given with labels.

    Returns raw values: iou chamfer_l1 chamfer_l2 accuracy completeness accuracy2 completeness2 normal_consistency
    f_0.005 ... status reason; NaN where undefined (`shape.evaluate`). Equal arguments give equal values. Raises
    ValueError for a profile that does not exist and a reference that cannot be measured.
    """
    protocol = profile_named(profile).protocol
    settings = EvaluationSettings(profiles=(profile,), samples=protocol.predicted_samples)
    reference = _mesh(reference)
    surface = _surface(reference, reference_samples, protocol, seed)
    volume = _volume(reference, query_points, protocol, seed)
    return evaluate(_mesh(predicted), surface, volume, settings, rng_for(seed, "evaluate_pair", "predicted"))


def _mesh(mesh: Any) -> Mesh | None:
    return None if mesh is None else Mesh(mesh.vertices, mesh.faces)


def _surface(reference: Mesh | None, given: Samples | None, protocol: Protocol, seed: int) -> dict[str, np.ndarray]:
    if given is not None:
        return _named(given, "points", "normals")
    rng = rng_for(seed, "evaluate_pair", "reference")
    points, normals = points_on_surface(_measurable(reference), protocol.reference_samples, rng)
    return {"points": points, "normals": normals}


def _volume(
    reference: Mesh | None, given: Samples | np.ndarray | None, protocol: Protocol, seed: int
) -> dict[str, np.ndarray]:
    if isinstance(given, (Mapping, tuple)):
        return _named(given, "points", "occupancies")
    if given is None:
        rng = rng_for(seed, "evaluate_pair", "volume")
        given = (rng.random((protocol.iou_points, 3)) - 0.5) * protocol.iou_box
    points = np.asarray(given)
    return {"points": points, "occupancies": contains(_measurable(reference), points, method=protocol.inside_test)}


def _measurable(reference: Mesh | None) -> Mesh:
    status, reason = fault_of(reference)
    if status != "ok":
        raise ValueError(f"the reference cannot be measured: {reason}")
    return reference


def _named(given: Samples, *names: str) -> dict[str, np.ndarray]:
    arrays = [given[name] for name in names] if isinstance(given, Mapping) else list(given)
    if len(arrays) != 2 or len(arrays[0]) != len(arrays[1]):
        raise ValueError(f"expected {names[0]} and {names[1]} of equal length, got {[np.shape(a) for a in arrays]}")
    return dict(zip(names, map(np.asarray, arrays), strict=True))
