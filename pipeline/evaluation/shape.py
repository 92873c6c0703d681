"""Evaluation of one reconstructed mesh: a row of raw values per profile, and the reason where there are none."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveInt

from pipeline.evaluation.profiles import ProfileName
from pipeline.settings import Settings, as_json


class EvaluationSettings(Settings):
    """How reconstructed meshes are compared with their references."""

    profiles: tuple[ProfileName, ...] = Field(("onet", "convonet", "nmf"), min_length=1)
    """Whose protocols and tables; what they share is measured once."""

    samples: PositiveInt | None = None
    """At most so many points of each kind (on either surface, for the IoU) per shape; null: as many as each profile
    asks for. With n points on a surface of area A even a perfect mesh is at a distance of about 0.5 sqrt(A / n), so
    results at other counts do not compare."""

    mesh_distance_points: NonNegativeInt = 10_000
    """Samples of each side whose distances to the other mesh itself are taken (accuracy_mesh, completeness_mesh),
    which have no such floor; 0: none."""

    mesh_quality: bool = True
    """Whether components, Euler characteristic, boundary and non-manifold edges and vertices, folds and
    self-intersections of the prediction are counted."""


from collections.abc import Mapping

import numpy as np

from pipeline.arrays import Mesh, Product
from pipeline.evaluation.measure import UNDEFINED, Arrays, Measurement, Reference, Row
from pipeline.evaluation.metrics import GENERAL
from pipeline.evaluation.profiles import Profile, profile_named
from pipeline.evaluation.remarks import remarks
from pipeline.geometry.clean import merged
from pipeline.geometry.measures import area
from pipeline.geometry.measures import volume as enclosed_volume
from pipeline.geometry.quality import is_watertight

QUALITY = (
    *("components", "euler_characteristic", "boundary_edges", "nonmanifold_edges", "nonmanifold_vertices"),
    *("nonmanifold_faces", "self_intersections"),
)
"""Of `manifold.manifoldness`; in the row with "predicted_" before them."""

FARTHEST = 1e140
"""Coordinate whose square can still be added up over millions of samples."""


def evaluate_mesh(
    predicted: Mesh | None,
    surface: Arrays,
    settings: EvaluationSettings,
    rng: np.random.Generator,
    volume: Arrays | None = None,
    reference: Mesh | None = None,
) -> Product:
    """Compare a predicted mesh with its reference, all in the canonical frame.

    predicted: None where there is no mesh. surface: "points" (n, 3), "normals" (n, 3). volume: "points" (m, 3),
    "occupancies" (m,), or None where the reference has no inside. reference: the mesh that fresh samples and labels
    come from; None where there is none, as in prepared sets.
    The value is {"profiles": {name: row of `evaluate`}} with None for what is undefined, as JSON has it.
    """
    profiles = {name: profile_named(name) for name in settings.profiles}
    seed = int(rng.integers(2**63))
    rows = evaluate(predicted, Reference(reference, surface, volume), profiles, settings, seed)
    return Product(
        {"profiles": as_json(rows)},
        figures={"evaluated": next(iter(rows.values()))["status"]},
    )


def evaluate(
    predicted: Mesh | None,
    reference: Reference,
    profiles: Mapping[str, Profile],
    settings: EvaluationSettings,
    seed: int,
) -> dict[str, Row]:
    """Profile → the row of one shape: its metrics, facts about the prediction, status and reason.

    status: "ok" where the metrics are defined; "missing" (no mesh), "empty" (no surface) or "invalid" (vertices that
    are not finite, faces that name no vertex) where all are NaN. reason: why, and for "ok" what is wrong none the less:
    a mesh that is open or inside out, overlaps itself or leaves the cube of the IoU is measured as it is, by the
    profile's inside test and lines as normals, and says so (`remarks`). iou is NaN where the reference has no volume,
    which the reason and reference_has_volume tell apart from failures; the latter is None where the profile has no IoU.
    settings.profiles is not looked at.
    """
    status, reason = fault_of(predicted)
    if status != "ok":
        asked = Measurement(Mesh(np.zeros((0, 3)), np.zeros((0, 3))), reference, seed, settings.samples)
        return {name: _failed_row(status, reason, profile, asked) for name, profile in profiles.items()}
    measurement = Measurement(predicted, reference, seed, settings.samples)
    facts = _facts(measurement, settings)
    rows = {}
    for name, profile in profiles.items():
        values = measurement.values(profile, settings.mesh_distance_points)
        rows[name] = {"status": "ok", "reason": remarks(measurement, facts, values, profile), **values, **facts}
    return rows


def fault_of(mesh: Mesh | None) -> tuple[str, str]:
    """Why a mesh cannot be measured, as (status, reason); ("ok", "") for one that can."""
    if mesh is None:
        return "missing", "there is no mesh for this shape"
    if len(mesh.faces) == 0:
        return "empty", f"the mesh has {len(mesh.vertices)} vertices and no faces"
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        return "invalid", f"faces name vertices up to {mesh.faces.max()}, the mesh has {len(mesh.vertices)}"
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.faces.reshape(-1)] = True
    broken = ~np.isfinite(mesh.vertices).all(axis=1) & used
    if broken.any():
        return "invalid", f"{broken.sum()} of {used.sum()} vertices are not finite"
    with np.errstate(over="ignore", invalid="ignore"):
        total = area(mesh)
    if not np.isfinite(total):
        return "invalid", "vertices are so far out that the area is not finite"
    farthest = float(np.abs(mesh.vertices[used]).max())
    if farthest > FARTHEST:
        return "invalid", f"vertices lie up to {farthest:.3g} from the origin, where squared distances are not finite"
    return ("ok", "") if total > 0 else ("empty", f"all {len(mesh.faces)} faces have zero area")


def _failed_row(status: str, reason: str, profile: Profile, asked: Measurement) -> Row:
    """Nothing was measured, but whether the reference has a volume is known: it decides what a failure costs."""
    known = asked.labels(profile.volume, profile.frame) if profile.volume else None
    return {
        "status": status,
        "reason": reason,
        **dict.fromkeys((*GENERAL, *profile.metrics), UNDEFINED),
        **dict.fromkeys((f"printed_{name}" for name in profile.printed), UNDEFINED),
        "iou_points": 0 if known is None else len(known[0]),
        "reference_has_volume": None if profile.volume is None else known is not None and bool(known[1].any()),
        "predicted_samples": 0,
        "reference_samples": len(asked.reference_samples(profile.surface).points),
        "predicted_watertight": None,
        "predicted_faces": 0,
        "predicted_volume": UNDEFINED,
    }


def _facts(measurement: Measurement, settings: EvaluationSettings) -> Row:
    mesh = measurement.predicted
    facts = {
        # Merging can pinch a closed mesh of marching cubes; it is only needed where faces do not share vertices.
        "predicted_watertight": is_watertight(mesh) or is_watertight(merged(mesh)),
        "predicted_faces": len(mesh.faces),
        "predicted_volume": enclosed_volume(mesh),
    }
    if settings.mesh_quality:
        facts |= {f"predicted_{key}": measurement.manifoldness[key] for key in QUALITY}
    return facts
