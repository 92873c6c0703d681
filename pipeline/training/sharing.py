"""How the shapes of a step are shared among processes and taken in parts, with the gradient of their mean loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor

from pipeline.models.contract import Model

if TYPE_CHECKING:
    from pipeline.training.loop import RuntimeSettings, TrainingSettings

Batch = dict[str, Tensor]


def fabric_for(model: Model, settings: TrainingSettings, runtime: RuntimeSettings, device: torch.device) -> Fabric:
    """Fabric on one device, or on several whose processes it starts."""
    if runtime.devices == 1:
        one = 1 if device.type == "cpu" else [device.index]
        return Fabric(accelerator=device.type, devices=one, precision=settings.precision)
    takes_turns = type(model).active_groups is not Model.active_groups
    strategy = DDPStrategy(find_unused_parameters=takes_turns)
    fabric = Fabric(accelerator=device.type, devices=runtime.devices, strategy=strategy, precision=settings.precision)
    fabric.launch()
    return fabric


def own_parts(batch: Batch, rank: int, world: int, parts: int) -> Iterator[tuple[Batch, float, bool]]:
    """This process's shapes of a batch, in at most so many parts: (part, its share, whether it is the last).

    rank: of the process among `world`; all drew the same whole batch. The shares of a process are those of its parts
    in the whole batch times `world`, so that losses weighted by them and averaged over the processes, as DDP averages
    gradients, are the mean over all shapes, however many each process has. A process for which no shape is left, at
    the end of an epoch, takes the first one with a share of 0, since the others wait for it.
    """
    total = shapes_of(batch)
    own = {name: tensor[rank::world] for name, tensor in batch.items()} if world > 1 else batch
    if not shapes_of(own):
        yield {name: tensor[:1] for name, tensor in batch.items()}, 0.0, True
        return
    count = min(parts, shapes_of(own))
    for number in range(count):
        part = {name: tensor[number::count] for name, tensor in own.items()} if count > 1 else own
        yield part, shapes_of(part) * world / total, number == count - 1


def shapes_of(batch: Batch) -> int:
    return len(next(iter(batch.values())))
