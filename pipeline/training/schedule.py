"""What a training step does, as functions of its number alone: learning rate, shapes, random streams.

Nothing here has state, so a run that continues at a step does exactly what an undisturbed one would have done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.seeds import torch_seed

if TYPE_CHECKING:
    from pipeline.training.loop import TrainingSettings


def learning_rate_factor(
    settings: TrainingSettings, step: int, epoch: int, group: Mapping[str, Any] | None = None
) -> float:
    """What learning rates are multiplied by at a step (counted from 0) of an epoch (counted from 1).

    group: the group of parameters; its own "decay_every" and "decay_factor" take the place of the settings'.
    """
    own = group or {}
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.schedule == "cosine":
        rest = max(settings.steps - settings.warmup_steps, 1)
        return 0.5 * (1 + math.cos(math.pi * (step - settings.warmup_steps) / rest))
    now = epoch if settings.schedule_unit == "epochs" else step
    factor = own.get("decay_factor", settings.decay_factor)
    if settings.schedule == "step":
        return factor ** (now // own.get("decay_every", settings.decay_every))
    if settings.schedule == "milestones":
        return factor ** sum(now >= milestone for milestone in settings.milestones)
    return 1.0


class ShapeOrder:
    """Which shapes a step takes: each epoch is a seeded permutation of all, cut into batches of distinct shapes.

    The shapes left over at an epoch's end, fewer than a batch, are left out of it, or with `keep_last` make a batch of
    their own. With fewer shapes than a batch holds, every step takes all of them once.
    """

    def __init__(self, shapes: int, batch: int, seed: int, keep_last: bool = False) -> None:
        self.shapes, self.batch, self.seed = shapes, min(batch, shapes), seed
        whole, left_over = divmod(shapes, self.batch)
        self.steps_per_epoch = whole + (1 if keep_last and left_over else 0)
        self._epoch, self._order = 0, torch.empty(0, dtype=torch.long)

    def at(self, step: int) -> tuple[int, Tensor]:
        """Epoch, counted from 1, and shapes (batch,) of a step, counted from 0; fewer at the end of an epoch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch + 1 != self._epoch:
            generator = torch.Generator().manual_seed(torch_seed(self.seed, "epoch", str(epoch)))
            self._epoch, self._order = epoch + 1, torch.randperm(self.shapes, generator=generator)
        return self._epoch, self._order[place * self.batch : (place + 1) * self.batch]


def seed_step(generator: torch.Generator, seed: int, step: int, rank: int = 0) -> None:
    """Give the batch's generator and the global stream, which dropout reads, the state they have at a step.

    rank: of the process among those that share a run: the same batch for all, dropout of its own for each.
    """
    generator.manual_seed(torch_seed(seed, "batch", str(step)))
    torch.manual_seed(torch_seed(seed, "layers", str(step), *([str(rank)] if rank else [])))
