"""Where a long test-time optimisation keeps its state, so that a kill costs minutes at most."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from pipeline import files
from pipeline.jobs.shards import Stopped, StopRequest
from pipeline.models.contract import Keeper
from pipeline.progress import LOG
from pipeline.training.checkpoint import decode_weights, encode_weights


class FileKeeper(Keeper):
    """Keeps the state of one optimisation in a file that is named by everything that decides it."""

    def __init__(self, path: Path, minutes: float, stop: StopRequest) -> None:
        self._path, self._seconds, self._stop = path, 60 * minutes, stop
        self._saved = time.monotonic()

    def restore(self) -> dict[str, Tensor] | None:
        if not self._path.is_file():
            return None
        try:
            state, _ = decode_weights(self._path.read_bytes())
        except ValueError as problem:
            LOG.warning("%s is not used: %s", self._path, problem)
            return None
        LOG.info("continuing the optimisation kept in %s", self._path)
        return state

    def note(self, state: Callable[[], dict[str, Tensor]]) -> None:
        """Writes the state every so many minutes, and before it raises Stopped where the job is to end."""
        if not self._stop.signal and time.monotonic() - self._saved < self._seconds:
            return
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state().items()}
        files.write_atomic(self._path, encode_weights(tensors, {}))
        self._saved = time.monotonic()
        if self._stop.signal:
            LOG.warning("stopped in the middle of an optimisation; the same command goes on there")
            raise Stopped(128 + self._stop.signal)

    def forget(self) -> None:
        """The optimisation is done and its result stored by who asked for it."""
        self._path.unlink(missing_ok=True)
