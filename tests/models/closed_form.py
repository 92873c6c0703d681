"""Numbers that look random and are the same everywhere, to fill networks and observations with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def numbers(shape: tuple[int, ...], start: int) -> Tensor:
    """Float32 in [-1, 1) from the integers start, start + 1, …, mixed by multiplications modulo 2^32."""
    mixed = np.arange(start, start + int(np.prod(shape)), dtype=np.uint32)
    for factor, shift in ((0x9E3779B1, 16), (0x85EBCA6B, 13)):
        mixed = mixed * np.uint32(factor)
        mixed = mixed ^ (mixed >> np.uint32(shift))
    return torch.from_numpy((mixed / 2**31 - 1).reshape(shape).astype(np.float32))


def filled(like: Mapping[str, Tensor], gain: float, start: int = 0) -> dict[str, Tensor]:
    """Weights, biases and statistics of the shapes of `like`, whose names decide what they are; no batch counters.

    Matrices and kernels keep the spread of their input but for `gain`, scales and variances are around 1, the rest is
    within 0.2. One run of integers, from `start`, goes through all tensors in the order of their names.
    """
    tensors = {}
    for name in sorted(name for name in like if not name.endswith("num_batches_tracked")):
        shape = tuple(like[name].shape)
        values = numbers(shape, start)
        start += values.numel()
        if len(shape) > 1 and not name.endswith("weight_g"):
            tensors[name] = values * gain * (3 / np.prod(shape[1:])) ** 0.5
        elif name.endswith(("weight", "weight_g", "running_var")):
            tensors[name] = 1 + 0.5 * values
        else:
            tensors[name] = 0.2 * values
    return tensors
