"""Held-out point IoU: how well the fields of unseen shapes agree with the labels of their volume points."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pipeline.arrays import Rejected
from pipeline.geometry.field import point_iou
from pipeline.models.contract import Model, ShapeArrays, stack_observations
from pipeline.seeds import rng_for, torch_seed

LOG = logging.getLogger("isomill")


@dataclass(frozen=True)
class HeldOut:
    """Names, observations, seeds, queries (n, 3) and labels (n,) of held-out shapes, fixed for a whole run.

    left_out: name → reason of the shapes that the model cannot observe, which are not among them.
    """

    names: list[str]
    observations: list[dict[str, np.ndarray]]
    seeds: list[int]
    queries: list[np.ndarray]
    labels: list[np.ndarray]
    left_out: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.seeds)

    @classmethod
    def of(cls, model: Model, shapes: Iterable[ShapeArrays], points: int, seed: int, names: Sequence[str]) -> HeldOut:
        """The first `points` volume points of each shape, and one observation of it, seeded by its name."""
        held_out = cls([], [], [], [], [])
        for name, arrays in zip(names, shapes, strict=True):
            try:
                observation = model.observe(arrays, rng_for(seed, "observe", name))
            except Rejected as reason:
                LOG.warning("%s is left out of the validation: %s", name, reason)
                held_out.left_out[name] = str(reason)
                continue
            queries = arrays["volume.points"][:points]
            if len(held_out) and len(queries) != len(held_out.queries[0]):
                raise ValueError(
                    f"{name} has {len(queries)} labelled volume points to validate with, those before it have "
                    f"{len(held_out.queries[0])}; all shapes of a run need the same sample counts"
                )
            held_out.names.append(name)
            held_out.observations.append(observation)
            held_out.seeds.append(torch_seed(seed, "encode", name))
            held_out.queries.append(queries)
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
