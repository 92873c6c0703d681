"""Shapes between two shapes, by their codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def interpolated(code: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
    """Codes on the straight line from the first shape of a code to its second, both included.

    code: entries with leading 2, as `Model.encode` gives them. The result has leading `steps`, at least 2. Raises
    ValueError where the code is not of two shapes, or holds numbers that cannot be mixed (such as indices).
    """
    import torch

    if steps < 2:
        raise ValueError(f"an interpolation has at least 2 steps, the two shapes themselves; {steps} were asked for")
    mixed = {}
    for name, part in code.items():
        if len(part) != 2:
            raise ValueError(f"codes of two shapes are mixed, {name!r} is of {len(part)}")
        if not part.is_floating_point():
            raise ValueError(f"{name!r} of the code holds whole numbers, which cannot be mixed")
        weights = torch.linspace(0, 1, steps, device=part.device, dtype=part.dtype)
        mixed[name] = torch.stack([torch.lerp(part[0], part[1], weight) for weight in weights])
    return mixed
