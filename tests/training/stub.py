"""A model of one number, so that what the loop does can be computed by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pipeline.models.contract import Model
from pipeline.models.declaration import Declaration
from pipeline.training.data import ResidentData
from pipeline.training.loop import RuntimeSettings, TrainingSettings, TrainResult, train


class Ball(Model):
    """A ball around the origin whose radius, the only weight, learns to be the mean of the numbers of the shapes.

    `calls` are the (epoch, shapes) of the batches asked for; the loss is NaN at the calls in `nan_at`.
    """

    declaration = Declaration("gradient", "nothing", "occupancy_logit", (), (), True, ())

    def __init__(self, radius: float = 0.0, nan_at: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.network = nn.Identity()
        self.radius = nn.Parameter(torch.tensor(float(radius)))
        self.calls, self.nan_at = [], nan_at

    def observe(self, arrays, rng):
        return {"noise": rng.random(1)}

    def draw(self, data, shapes, generator):
        self.calls.append((self.epoch, shapes.tolist()))
        return {"number": data["number"][shapes], "noise": torch.randn(len(shapes), generator=generator)}

    def loss(self, batch):
        loss = (self.radius - batch["number"] + 0.01 * batch["noise"]).square().mean()
        return {"loss": loss * (float("nan") if len(self.calls) in self.nan_at else 1.0), "twice": 2 * loss}

    def encode(self, observations, seeds):
        return {"code": torch.zeros((len(seeds), 1))}

    def field(self, code, queries):
        return self.radius - queries.norm(dim=-1)


def numbers(*values: float) -> ResidentData:
    shapes = [{"number": np.float32(value)} for value in values]
    return ResidentData.from_shapes(shapes, names=[f"chair/{i}" for i in range(len(values))])


def run(
    model: Model,
    data: ResidentData,
    folder,
    validation=(),
    report=None,
    runtime=None,
    validation_names=None,
    may_save=None,
    **settings,
) -> TrainResult:
    """Train with short defaults; `runtime` holds runtime settings that differ from them."""
    return train(
        model,
        data,
        validation,
        TrainingSettings(**{"steps": 20, "batch_shapes": 2, "learning_rate": 0.1, **settings}),
        RuntimeSettings(**{"device": "cpu", "threads": 1, "tensorboard": False, "log_every": 10, **(runtime or {})}),
        seed=0,
        state_dir=folder,
        log_dir=folder / "logs",
        validation_names=validation_names,
        report=report or (lambda step, total, values: None),
        may_save=may_save or (lambda: None),
    )
