"""Evaluation of two meshes at hand, without the workflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.arrays import Mesh
from pipeline.evaluation.frame import Box, reach
from pipeline.evaluation.measure import Reference
from pipeline.evaluation.occupancy import inside_many
from pipeline.evaluation.profiles import Profile, VolumeProtocol, profile_named
from pipeline.evaluation.shape import EvaluationSettings, evaluate, fault_of
from pipeline.seeds import stream_seed

Samples = Mapping[str, np.ndarray] | tuple[np.ndarray, np.ndarray]

QUICK = EvaluationSettings(mesh_distance_points=0, mesh_quality=False)
DETAILED = EvaluationSettings()


def evaluate_pair(
    predicted: Any,
    reference: Any,
    profile: str = "onet",
    seed: int = 0,
    reference_samples: Samples | None = None,
    query_points: Samples | np.ndarray | None = None,
    details: bool = False,
) -> dict[str, Any]:
    """Compare a predicted mesh with a reference; both trimesh meshes, or anything with vertices and faces.

    Frame: both are taken as they are, nothing is scaled. Lengths (F-score thresholds, the cube of the IoU) mean the
    canonical frame: the reference's box centred at the origin, its longest edge 1. A reference that leaves the
    profile's cube (±0.55 for onet, ±0.5 for ifnet; that of imnet and air-human moves with the reference) is refused,
    unless query_points are given; a prediction that leaves it is scored as the paper does, with a remark in the row's
    reason. `isomill eval` scales such pairs by the reference's box.

    predicted may be None. reference_samples: the reference's points and normals as a pair or under the keys "points"
    and "normals", in place of fresh ones. query_points: points for the IoU (n, 3), labelled by the reference, or points
    and labels as a pair or under "points" and "occupancies"; else fresh ones, uniform in the profile's cube. The
    reference mesh may be None where both are given with labels. details: measure as well the
    distances to the meshes themselves (accuracy_mesh, completeness_mesh) and the mesh's quality (predicted_components,
    predicted_euler_characteristic, predicted_self_intersections, ...), which cost more time than all the rest.

    Returns raw values: iou chamfer_l1 chamfer_l2 accuracy completeness accuracy2 completeness2 normal_consistency
    f_0.005 ... status reason; NaN where undefined (`shape.evaluate`); and under printed_<name> what the profile's paper
    prints. reason: also of a pair that was measured it tells what is odd (the mesh is open, parts of it overlap, ...).
    Equal arguments give equal values. Raises ValueError for a profile that does not exist, a reference that cannot be
    measured, and one that leaves the profile's cube.
    """
    described = _with_sources(profile_named(profile), reference_samples is not None, query_points is not None)
    reference = _reference(_mesh(reference), described, reference_samples, query_points)
    _require_within(reference, profile, described)
    settings, root = DETAILED if details else QUICK, stream_seed(seed, "evaluate_pair")
    return evaluate(_mesh(predicted), reference, {profile: described}, settings, root)[profile]


def evaluate_profiles(
    predicted: Any, reference: Any, profiles: Sequence[str], seed: int = 0, details: bool = False
) -> dict[str, dict[str, Any]]:
    """Profile → what `evaluate_pair` gives for it, with all that the profiles share measured once.

    Nothing is scaled here either, and a reference that leaves a profile's cube is not refused but remarked on; where it
    leaves ±0.55, the largest cube, its IoU is undefined.
    """
    described = {name: _with_sources(profile_named(name), False, False) for name in profiles}
    measured = Reference(_measurable(_mesh(reference)))
    settings = DETAILED if details else QUICK
    return evaluate(_mesh(predicted), measured, described, settings, stream_seed(seed, "evaluate_pair"))


def _require_within(reference: Reference, name: str, profile: Profile) -> None:
    """Raise ValueError for a reference that leaves the cube in which fresh points of the IoU would be drawn."""
    volume = profile.volume
    if volume is None or volume.source == "stored" or profile.frame != "meshes":
        return
    cube = Box.cube(volume.box)
    if cube.left_by(reference.bounds):
        raise ValueError(
            f"the reference leaves {cube} in which the {name} profile counts the IoU: {reach(reference.bounds)}. "
            "evaluate_pair scales nothing: shift and scale both meshes so that the reference's box is centred at the "
            "origin and its longest edge is 1, as isomill eval does, or give query_points="
        )


def _with_sources(profile: Profile, surface_given: bool, volume_given: bool) -> Profile:
    """What is given counts as stored; what a profile takes from stored samples is else drawn afresh."""
    source = "stored" if surface_given else "fresh"
    profile = replace(profile, surface=replace(profile.surface, reference_source=source))
    volume = profile.volume
    if volume_given:
        volume = replace(volume or VolumeProtocol(), source="stored")
    elif volume is not None and volume.source == "stored":
        volume = replace(volume, source="fresh")
    return replace(profile, volume=volume)


def _reference(mesh: Mesh | None, profile: Profile, surface: Samples | None, volume: Any) -> Reference:
    if surface is None or (volume is None and profile.volume is not None):
        mesh = _measurable(mesh)
    given = None if surface is None else _named(surface, "points", "normals")
    return Reference(mesh, given, None if volume is None else _labelled(mesh, volume, profile.volume))


def _labelled(mesh: Mesh | None, volume: Any, protocol: VolumeProtocol) -> dict[str, np.ndarray]:
    if isinstance(volume, (Mapping, tuple)):
        return _named(volume, "points", "occupancies")
    points = np.asarray(volume)
    return {"points": points, "occupancies": inside_many(_measurable(mesh), points, protocol.inside_test)}


def _mesh(mesh: Any) -> Mesh | None:
    return None if mesh is None else Mesh(mesh.vertices, mesh.faces)


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
