"""The exponential moving average of a model's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.models.contract import Model


class Average:
    """Starts at the first weights; holds nothing and does nothing where the decay is None.

    The statistics of normalisation layers are averaged like the parameters they were gathered under.
    """

    def __init__(self, model: Model, decay: float | None) -> None:
        state = model.state_dict() if decay else {}  # its tensors share the model's memory
        self.current = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
        self.weights = {name: tensor.clone() for name, tensor in self.current.items()}
        self._average = get_ema_multi_avg_fn(decay) if decay else None

    def update(self) -> None:
        """Take in the model's weights after a step."""
        if self.weights:
            self._average(list(self.weights.values()), list(self.current.values()), 1)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model holds the averages inside, its own weights again afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, current in self.current.items():
            kept = current.clone()
            current.copy_(self.weights[name])
            self.weights[name].copy_(kept)

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Continue from saved averages."""
        for name, average in self.weights.items():
            average.copy_(weights[name])
