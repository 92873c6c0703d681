"""One training loop for all models, on Lightning Fabric.

It knows the contract and no model by name. Shapes, batches and dropout of a step follow from the seed and the step's
number, so a run that was interrupted continues bit for bit (CPU, equal thread count).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.settings import Settings


class TrainingSettings(Settings):
    """Length, batches, optimiser and validation of a training."""

    steps: PositiveInt = 300_000
    """Optimiser steps. More continue a finished run, unless the schedule depends on the total."""

    batch_shapes: PositiveInt = 64
    """Distinct shapes per step; all of them where there are fewer."""

    keep_last_batch: bool = False
    """Take the shapes that are left over at the end of an epoch as a smaller batch, as loaders of torch do unless told
    otherwise; false: leave them out of this epoch."""

    learning_rate: PositiveFloat = 1e-4
    """Peak rate; a model may scale it for some of its parameters."""

    optimiser: Literal["adam", "adamw"] = "adam"
    """adamw decays the weights apart from the gradient."""

    adam_epsilon: Literal["corrected", "uncorrected"] = "corrected"
    """Adam's 1e-8 beside the root of the mean square gradient: corrected for its start, as torch has it, or not, as
    TensorFlow ("epsilon hat")."""

    weight_decay: NonNegativeFloat = 0.0
    """In the gradient for adam, per step and learning rate for adamw."""

    schedule: Literal["constant", "step", "milestones", "cosine"] = "constant"
    """step: times decay_factor every decay_every. milestones: times decay_factor at each of them. cosine: to zero at
    the last step, so it depends on the total."""

    schedule_unit: Literal["steps", "epochs"] = "steps"
    """What decay_every and milestones count; an epoch is a pass over the training shapes, the first is 1."""

    decay_every: PositiveInt = 100_000
    """Steps or epochs between two decays of the schedule "step"."""

    milestones: tuple[PositiveInt, ...] = ()
    """Steps or epochs of the decays of the schedule "milestones"."""

    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Of one decay."""

    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises linearly to its peak."""

    gradient_clip: PositiveFloat | None = None
    """Largest norm of the gradient, of what `gradient_clip_of` says; null: no bound."""

    gradient_clip_of: Literal["all", "group"] = "all"
    """all: the parameters together. group: each group that the model has, such as encoder and decoder, by itself."""

    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keep an exponential moving average of the parameters with this decay, and validate and give it instead of
    them; null: none."""

    validate_every: PositiveInt = 2000
    """Steps between two validations; the last step is always followed by one."""

    validation_shapes: NonNegativeInt | Literal["all"] = 100
    """Held-out shapes used, drawn so that every category gives as many as the others; all: every one; 0: no
    validation, the last weights are the best."""

    validation_points: PositiveInt = 10_000
    """Labelled volume points asked of each, the first ones."""

    accumulate: PositiveInt = 1
    """Parts that the shapes of a step are taken in, one after the other: so many times less memory, and one step. The
    statistics of normalisation layers are those of a part."""

    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Of the arithmetic; weights are always kept in 32 bits."""

    tf32: bool = False
    """Multiply matrices of 32 bits in TF32 on graphics cards that can: 10 bits of mantissa, several times the speed."""

    compile: bool = False
    """Compile the network with torch.compile; needs a C++ compiler, or on a graphics card Triton."""


class RuntimeSettings(Settings):
    """Where and how a training runs; nothing here is meant to change its result."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the graphics card where there is one."""

    devices: PositiveInt = 1
    """Graphics cards, or processes on the CPU, that share the shapes of every step (DDP). Random draws do not depend
    on their number, the statistics of normalisation layers do: each takes those of its own shapes."""

    threads: PositiveInt | None = None
    """Threads of torch on the CPU; null: the threads of the job."""

    resident_share: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Share of the card's free memory that the training arrays may take; larger ones stay in host memory."""

    host_share: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Share of the host's free memory that they may take; larger ones are read from a file as they are drawn."""

    checkpoint_minutes: NonNegativeFloat = 10.0
    """Minutes between two saved states."""

    log_every: PositiveInt = 100
    """Steps whose mean makes one row of the history; a validation and the last step make one too."""

    tensorboard: bool = True
    """Write the history for TensorBoard too."""

    wandb: str | None = None
    """Project of Weights & Biases to send the history to, with the key in WANDB_API_KEY; null: nothing is sent."""

    comet: str | None = None
    """Project of Comet to send the history to, with the key in COMET_API_KEY; null: nothing is sent."""


import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pipeline.models.contract import Model, ShapeArrays
from pipeline.training import loggers, surroundings
from pipeline.training.checkpoint import weights_of
from pipeline.training.data import ResidentData, left_out_note
from pipeline.training.run import Interrupted, NonFiniteLoss, Run, TrainResult

__all__ = [
    "Interrupted",
    "NonFiniteLoss",
    "RuntimeSettings",
    "TrainResult",
    "TrainingSettings",
    "device_of",
    "resident_limit",
    "train",
]


def train(
    model: Model,
    data: ResidentData,
    validation: Sequence[ShapeArrays],
    settings: TrainingSettings,
    runtime: RuntimeSettings,
    *,
    seed: int,
    state_dir: Path,
    log_dir: Path | None,
    validation_names: Sequence[str] | None = None,
    report: Callable[[int, int, dict[str, float]], None] = lambda step, total, values: None,
    may_save: Callable[[], None] = lambda: None,
) -> TrainResult:
    """Train a model on resident data, continuing from `state_dir` where it holds a state of this run.

    data: as the model prepares shapes (`ResidentData.for_model`). validation: held-out shapes' arrays, and their names
    "category/id", which decide which of them are taken and what is seen of each; those that the model cannot observe
    are left out, as a note of the result says. report: called every few steps with (step, total, {name: value}).
    may_save: called before a state is written, and raises where another process has taken the folder over. A model
    that is fitted directly is fitted. With several devices this process starts the others, which run the same program
    up to here; their results have `leads` False.

    The result is that of an undisturbed run of so many steps, whatever was interrupted or shorter before.

    Raises ValueError without training shapes, CheckpointMismatch where the state is another run's, NonFiniteLoss
    within ten steps of the first bad loss (the last good state stays), Interrupted after SIGTERM or SIGUSR1.
    """
    if len(data) == 0:
        raise ValueError("there are no training shapes")
    if model.declaration.trains == "directly":
        model.fit(data)
        weights = weights_of(model)
        notes = left_out_note("training", len(data) + len(data.left_out), data.left_out)
        return TrainResult(weights, weights, [], steps_done=0, best_step=0, notes=notes)
    names = validation_names if validation_names is not None else [f"held-out {i}" for i in range(len(validation))]
    device = device_of(runtime)
    with (
        surroundings.stop_signals() as stop,
        surroundings.threads(runtime.threads),
        surroundings.own_random_stream(device),
        surroundings.matmul_precision(settings.tf32),
    ):
        run = Run(model, data, validation, settings, runtime, device, seed, state_dir, names, may_save)
        with loggers.writer(log_dir, runtime, run.last_row, leads=run.leads) as write:
            return run.finish(stop, report, write)


def device_of(runtime: RuntimeSettings) -> torch.device:
    """The device of this process. Raises ValueError where "cuda" is asked for and there is none, or too few."""
    count = torch.cuda.device_count() if runtime.device != "cpu" and torch.cuda.is_available() else 0
    if runtime.device == "cuda" and not count:
        raise ValueError("runtime.device is 'cuda', but torch finds no graphics card; use 'auto' or 'cpu'")
    if count and count < runtime.devices:
        raise ValueError(f"runtime.devices is {runtime.devices}, but torch finds {count} graphics cards")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if count else torch.device("cpu")


def resident_limit(runtime: RuntimeSettings) -> int | None:
    """Bytes of training arrays that may lie on the device; None where it shares the host's memory."""
    device = device_of(runtime)
    return int(torch.cuda.mem_get_info(device)[0] * runtime.resident_share) if device.type == "cuda" else None
