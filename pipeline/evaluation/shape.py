"""Evaluation of one reconstructed mesh: a flat row of raw values, and the reason where there are none."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from pipeline.evaluation.profiles import ProfileName
from pipeline.settings import Settings


class EvaluationSettings(Settings):
    """How reconstructed meshes are compared with their references."""

    profiles: tuple[ProfileName, ...] = Field(("onet", "convonet"), min_length=1)
    """Whose protocols and tables. Profiles listed together must take their values in one way, as these two do."""

    samples: PositiveInt = 100_000
    """Points drawn on each predicted mesh. The profiles ask for 100,000; with n points on a surface of area A even a
    perfect mesh is at a distance of about 0.5 sqrt(A / n), so results at other counts do not compare."""


import math
from typing import Any

import numpy as np

from pipeline.arrays import Mesh, Product
from pipeline.evaluation.inside import contains
from pipeline.evaluation.metrics import METRICS, compare_surfaces, volume_iou
from pipeline.evaluation.profiles import Protocol, shared_protocol
from pipeline.geometry.clean import merged, without_unused_vertices
from pipeline.geometry.measures import area
from pipeline.geometry.measures import volume as enclosed_volume
from pipeline.geometry.quality import is_watertight
from pipeline.geometry.sampling import points_on_surface

Row = dict[str, Any]

UNDEFINED = float("nan")


def evaluate_mesh(
    predicted: Mesh | None,
    surface: dict[str, np.ndarray],
    volume: dict[str, np.ndarray] | None,
    settings: EvaluationSettings,
    rng: np.random.Generator,
) -> Product:
    """Compare a predicted mesh with samples of its reference, all in the canonical frame.

    predicted: None where there is no mesh. surface: "points" (n, 3), "normals" (n, 3). volume: "points" (m, 3),
    "occupancies" (m,), or None where the reference has no inside.
    The value is the row of `evaluate` with None for what is undefined, as JSON has it.
    """
    row = evaluate(predicted, surface, volume, settings, rng)
    undefined = {key: None for key, value in row.items() if isinstance(value, float) and math.isnan(value)}
    return Product({**row, **undefined}, figures={"evaluated": row["status"]})


def evaluate(
    predicted: Mesh | None,
    surface: dict[str, np.ndarray],
    volume: dict[str, np.ndarray] | None,
    settings: EvaluationSettings,
    rng: np.random.Generator,
) -> Row:
    """The row of one shape: the metrics of METRICS, facts about the prediction, status and reason.

    status: "ok" where the metrics are defined; "missing" (no mesh), "empty" (no surface) or "invalid" (vertices that
    are not finite, faces that name no vertex) where all are NaN. reason: why, and for "ok" what is wrong none the less:
    a mesh that is open or inside out is measured as it is, by parity and lines as normals, and says so.
    iou is NaN where the reference has no volume, which reference_has_volume tells apart from failures.
    """
    protocol = shared_protocol(settings.profiles)
    row = _blank_row(surface, volume)
    status, reason = fault_of(predicted)
    if status != "ok":
        return {**row, "status": status, "reason": reason}
    mesh = without_unused_vertices(predicted)
    points, normals = points_on_surface(mesh, settings.samples, rng)
    row |= compare_surfaces(points, normals, surface["points"], surface["normals"])
    row["iou"] = _iou(mesh, volume, protocol)
    row |= _facts(mesh, settings)
    return {**row, "reason": _remarks(row)}


def fault_of(mesh: Mesh | None) -> tuple[str, str]:
    """Why a mesh cannot be measured, as (status, reason); ("ok", "") for one that can."""
    if mesh is None:
        return "missing", "there is no mesh for this shape"
    if len(mesh.faces) == 0:
        return "empty", f"the mesh has {len(mesh.vertices)} vertices and no faces"
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        return "invalid", f"faces name vertices up to {mesh.faces.max()}, the mesh has {len(mesh.vertices)}"
    used = np.unique(mesh.faces)
    broken = ~np.isfinite(mesh.vertices[used]).all(axis=1)
    if broken.any():
        return "invalid", f"{broken.sum()} of {len(used)} vertices are not finite"
    with np.errstate(over="ignore", invalid="ignore"):
        total = area(mesh)
    if not np.isfinite(total):
        return "invalid", "vertices are so far out that the area is not finite"
    return ("ok", "") if total > 0 else ("empty", f"all {len(mesh.faces)} faces have zero area")


def _blank_row(surface: dict[str, np.ndarray], volume: dict[str, np.ndarray] | None) -> Row:
    return {
        "status": "ok",
        "reason": "",
        **dict.fromkeys(METRICS, UNDEFINED),
        "predicted_watertight": None,
        "predicted_faces": 0,
        "predicted_volume": UNDEFINED,
        "predicted_samples": 0,
        "reference_samples": len(surface["points"]),
        "reference_has_volume": volume is not None and bool(np.any(volume["occupancies"])),
        "iou_points": 0 if volume is None else len(volume["points"]),
    }


def _iou(mesh: Mesh, volume: dict[str, np.ndarray] | None, protocol: Protocol) -> float:
    if volume is None:
        return UNDEFINED
    inside = contains(mesh, volume["points"], method=protocol.inside_test)
    return volume_iou(inside, volume["occupancies"])


def _facts(mesh: Mesh, settings: EvaluationSettings) -> Row:
    return {
        # Merging can pinch a closed mesh of marching cubes; it is only needed where faces do not share vertices.
        "predicted_watertight": is_watertight(mesh) or is_watertight(merged(mesh)),
        "predicted_faces": len(mesh.faces),
        "predicted_volume": enclosed_volume(mesh),
        "predicted_samples": settings.samples,
    }


def _remarks(row: Row) -> str:
    if not row["predicted_watertight"]:
        return "the mesh is not watertight; IoU is by ray parity"
    return "the mesh is inside out" if row["predicted_volume"] < 0 else ""
