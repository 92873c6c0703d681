"""Optimisation at test time: Adam, which a keeper can interrupt and which then goes on with the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from pipeline.models.contract import Keeper
from pipeline.training.adam import leave_epsilon_uncorrected

MOMENTS = ("exp_avg", "exp_avg_sq")  # what Adam remembers of every entry


def descend(
    tensors: Mapping[str, Tensor],
    cost: Callable[[int], Tensor],
    learning_rate: Callable[[int], float],
    steps: int,
    keeper: Keeper,
    seeds: Sequence[int],
    adam_epsilon: Literal["corrected", "uncorrected"] = "corrected",
) -> None:
    """Change the tensors in place so that `cost(step)`, a sum over independent shapes, becomes small.

    Adam works entry by entry, so each shape moves as if it were alone. A kept state is taken up only where it belongs
    to shapes of these seeds and to tensors of these sizes. adam_epsilon: as torch has it, or as TensorFlow
    (`pipeline.training.adam`).
    """
    optimiser = torch.optim.Adam(list(tensors.values()))
    if adam_epsilon == "uncorrected":
        leave_epsilon_uncorrected(optimiser)
    first = _restore(tensors, optimiser, keeper, seeds)
    for step in range(first, steps):
        if step > first:
            keeper.note(lambda step=step: _state(tensors, optimiser, seeds, step))
        optimiser.param_groups[0]["lr"] = learning_rate(step)
        with torch.enable_grad():
            gradients = torch.autograd.grad(cost(step), list(tensors.values()))
        for tensor, gradient in zip(tensors.values(), gradients, strict=True):
            tensor.grad = gradient
        optimiser.step()


def _state(tensors: Mapping[str, Tensor], optimiser: torch.optim.Adam, seeds: Sequence[int], step: int) -> dict:
    moments = {
        f"{name}/{moment}": optimiser.state[tensor][moment] for name, tensor in tensors.items() for moment in MOMENTS
    }
    return {**tensors, **moments, "step": torch.tensor(step), "seeds": torch.tensor(seeds)}


@torch.no_grad()
def _restore(tensors: Mapping[str, Tensor], optimiser: torch.optim.Adam, keeper: Keeper, seeds: Sequence[int]) -> int:
    """The step to go on with: 0 where nothing of these shapes is kept."""
    state = keeper.restore()
    if state is None or state["seeds"].tolist() != list(seeds):
        return 0
    if any(name not in state or state[name].shape != tensor.shape for name, tensor in tensors.items()):
        return 0
    for name, tensor in tensors.items():
        tensor.copy_(state[name])
        moments = {moment: state[f"{name}/{moment}"].to(tensor.device) for moment in MOMENTS}
        optimiser.state[tensor] = {"step": state["step"].float(), **moments}
    made = int(state["step"])
    for group in optimiser.param_groups:
        group["moves"] = made  # read where epsilon is uncorrected
    return made
