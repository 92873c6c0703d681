"""Adam's epsilon where TensorFlow has it.

Kingma and Ba: Adam, ICLR 2015, arXiv 1412.6980. Torch divides by sqrt(v / (1 - beta2^t)) + epsilon, the paper's
algorithm 1. TensorFlow's optimiser takes the shorter form of its section 2, in which the bias is taken into the rate:
rate * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + epsilon). This epsilon is the larger one in the first
thousands of steps, 32 times at step 1, and so entries whose gradients are near it move less. Both are one formula with
epsilon / sqrt(1 - beta2^t) in torch's place.
"""

from __future__ import annotations

import math
from typing import Any

import torch

EPSILON = 1e-8  # the default of both


def leave_epsilon_uncorrected(optimiser: torch.optim.Optimizer) -> None:
    """From here on, steps of an Adam or AdamW are those of TensorFlow's formula.

    The parameters of a group move together or not at all. A group counts its steps as its "moves", which travel with
    the optimiser's state dict.
    """
    for group in optimiser.param_groups:
        group["moves"] = 0
    optimiser.register_step_pre_hook(_set_epsilon)


def _set_epsilon(optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    for group in optimiser.param_groups:
        if any(parameter.grad is not None for parameter in group["params"]):
            group["moves"] += 1
            group["eps"] = EPSILON / math.sqrt(1 - group["betas"][1] ** group["moves"])
