"""Held-out point IoU: how well the fields of unseen shapes agree with the labels of their volume points."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.geometry.field import point_iou
from pipeline.models.contract import Model, ShapeArrays, stack_observations
from pipeline.seeds import rng_for, torch_seed


@dataclass(frozen=True)
class HeldOut:
    """Observations, seeds, queries (n, 3) and labels (n,) of held-out shapes, fixed for a whole run."""

    observations: list[dict[str, np.ndarray]]
    seeds: list[int]
    queries: list[np.ndarray]
    labels: list[np.ndarray]

    @classmethod
    def of(cls, model: Model, shapes: Iterable[ShapeArrays], points: int, seed: int) -> HeldOut:
        """The first `points` volume points of each shape, and one seeded observation of it."""
        held_out = cls([], [], [], [])
        for i, arrays in enumerate(shapes):
            label = f"validation {i}"
            held_out.observations.append(model.observe(arrays, rng_for(seed, "observe", label)))
            held_out.seeds.append(torch_seed(seed, "encode", label))
            held_out.queries.append(arrays["volume.points"][:points])
            held_out.labels.append(arrays["volume.occupancies"][:points])
        return held_out

    def mean_iou(self, model: Model, batch: int, device: torch.device) -> float:
        """Mean over shapes at the model's own level; NaN where no shape has an inside point."""
        model.eval()
        with torch.no_grad():
            scores = [self._iou(model, slice(i, i + batch), device) for i in range(0, len(self.seeds), batch)]
        model.train()
        scores = np.concatenate(scores)
        return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")

    def _iou(self, model: Model, part: slice, device: torch.device) -> np.ndarray:
        code = model.encode(stack_observations(self.observations[part], device), self.seeds[part])
        queries = torch.from_numpy(np.stack(self.queries[part])).to(device)
        values: Tensor = model.field(code, queries)
        quantity = model.declaration.quantity
        return point_iou(values.float().cpu().numpy(), np.stack(self.labels[part]), model.level, quantity)
