"""Evaluation without meshes: what a model's field says at labelled points and on the lattice of the voxels.

`point_iou` is what training validates with; the originals report it as their fast evaluation (Occupancy Networks'
eval.py; sheet evaluation.md 7): per shape the IoU on the volume points, the IoU on the 32^3 lattice, and the loss,
which is the reconstruction's negative log-likelihood on as many points as training takes plus the divergence of the
latent's posterior from its prior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.geometry.field import Quantity, point_iou

__all__ = ["evaluate_field", "evaluate_fields", "evaluate_points", "lattice", "point_iou", "reconstruction_loss"]

LOSS_POINTS = 2048
"""Points whose losses are added up, as Occupancy Networks' training takes them."""

VOXELS = 32
"""Cells along each axis of the lattice."""

UNDEFINED = float("nan")

Field = Callable[[np.ndarray], np.ndarray]


def evaluate_points(
    field: Field,
    volume: Mapping[str, np.ndarray],
    quantity: Quantity,
    level: float | None = None,
    batch_points: int = 65_536,
) -> dict[str, Any]:
    """Point IoU of one shape's field, which maps points (n, 3) to values (n,) of the quantity.

    volume: "points" (m, 3) and "occupancies" (m,). level: as `geometry.field.raw_level`.
    Returns iou (NaN where the labels hold no inside point), points, status and reason.
    """
    return _scored(_asked(field, volume["points"], batch_points), volume["occupancies"], quantity, level)


def evaluate_field(
    field: Field,
    volume: Mapping[str, np.ndarray],
    voxels: np.ndarray,
    quantity: Quantity,
    rng: np.random.Generator,
    level: float | None = None,
    kl: float = 0.0,
    batch_points: int = 65_536,
) -> dict[str, Any]:
    """The quick evaluation of one shape: iou iou_voxels loss reconstruction_loss kl points status reason.

    voxels: occupancies (R, R, R) of the reference, R = 32 in the originals. kl: divergence of the posterior that the
    field was decoded from; 0 for a model without a latent. The loss is NaN for a signed distance, which is no
    probability. rng chooses its points.
    """
    values = _asked(field, volume["points"], batch_points)
    row = _scored(values, volume["occupancies"], quantity, level)
    chosen = rng.integers(len(values), size=min(LOSS_POINTS, len(values)))
    loss = reconstruction_loss(values[chosen], np.asarray(volume["occupancies"])[chosen], quantity)
    on_lattice = _asked(field, lattice(len(voxels)), batch_points)
    scores = {
        "iou": row["iou"],
        "iou_voxels": point_iou(on_lattice, np.asarray(voxels).reshape(-1), level, quantity),
        "loss": loss + kl,
        "reconstruction_loss": loss,
        "kl": kl,
    }
    return scores | {key: row[key] for key in ("points", "status", "reason")}


def evaluate_fields(
    model,
    observations: Sequence[Mapping[str, np.ndarray]],
    seeds: Sequence[int],
    volumes: Sequence[Mapping[str, np.ndarray]],
    voxels: Sequence[np.ndarray],
    rngs: Sequence[np.random.Generator],
    batch_points: int = 65_536,
) -> list[dict[str, Any]]:
    """`evaluate_field` of several shapes that are encoded together by a model (`models.contract.Model`).

    A model with a latent gives the divergence of each posterior as the entry "kl" (B,) of its code.
    """
    import torch

    stacked = {key: torch.from_numpy(np.stack([one[key] for one in observations])) for key in observations[0]}
    code = model.encode({key: part.to(model.device) for key, part in stacked.items()}, seeds)
    rows = []
    for i, (volume, grid, rng) in enumerate(zip(volumes, voxels, rngs, strict=True)):
        own = {name: part[i : i + 1] for name, part in code.items()}

        def field(points: np.ndarray, own=own) -> np.ndarray:
            queries = torch.from_numpy(np.ascontiguousarray(points, np.float32))[None].to(model.device)
            with torch.no_grad():
                return model.field(own, queries)[0].float().cpu().numpy()

        kl = float(own["kl"]) if "kl" in own else 0.0
        quantity, level = model.declaration.quantity, model.level
        rows.append(evaluate_field(field, volume, grid, quantity, rng, level, kl, batch_points))
    return rows


def reconstruction_loss(values: np.ndarray, occupancies: np.ndarray, quantity: Quantity) -> float:
    """Negative log-likelihood of labels (n,) under a field's values (n,), added up over the points.

    n ln 2 for a field that knows nothing. NaN for a signed distance, and where a value is NaN.
    """
    values, inside = np.asarray(values, np.float64), np.asarray(occupancies) > 0.5
    if quantity == "signed_distance":
        return UNDEFINED
    if quantity == "occupancy":
        tiny = np.finfo(np.float32).tiny
        return float(-np.log(np.maximum(np.where(inside, values, 1 - values), tiny)).sum())
    return float(np.logaddexp(0, np.where(inside, -values, values)).sum())


def lattice(resolution: int = VOXELS) -> np.ndarray:
    """Centres of the cells of [-0.5, 0.5]^3, (R^3, 3), x slowest: -0.484375 ... 0.484375 for 32."""
    centres = (np.arange(resolution) + 0.5) / resolution - 0.5
    return np.stack(np.meshgrid(centres, centres, centres, indexing="ij"), axis=-1).reshape(-1, 3)


def _asked(field: Field, points: np.ndarray, batch_points: int) -> np.ndarray:
    parts = [np.asarray(field(points[i : i + batch_points])) for i in range(0, len(points), batch_points)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _scored(values: np.ndarray, occupancies: np.ndarray, quantity: Quantity, level: float | None) -> dict[str, Any]:
    broken = int(np.isnan(values).sum())
    return {
        "iou": point_iou(values, occupancies, level, quantity),
        "points": len(values),
        "status": "invalid" if broken else "ok",
        "reason": f"the field is NaN at {broken} of {len(values)} points" if broken else "",
    }
