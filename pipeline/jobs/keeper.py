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

DIGEST = "digest"


class FileKeeper(Keeper):
    """Keeps the state of one optimisation in a file that is named by everything that decides it.

    may_write: called before the file is written, and raises where another job has taken the optimisation over.
    """

    def __init__(
        self, path: Path, minutes: float, stop: StopRequest, may_write: Callable[[], None] = lambda: None
    ) -> None:
        self._path, self._seconds, self._stop, self._may_write = path, 60 * minutes, stop, may_write
        self._saved = time.monotonic()

    def restore(self) -> dict[str, Tensor] | None:
        if not self._path.is_file():
            return None
        try:
            state = _decode(self._path.read_bytes())
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
        self._may_write()
        files.write_atomic(self._path, _encode(tensors))
        self._saved = time.monotonic()
        if self._stop.signal:
            LOG.warning("stopped in the middle of an optimisation; the same command goes on there")
            raise Stopped(128 + self._stop.signal)

    def forget(self) -> None:
        """The optimisation is done and its result stored by who asked for it."""
        self._path.unlink(missing_ok=True)


def _encode(tensors: dict[str, Tensor]) -> bytes:
    """The tensors with a digest of themselves."""
    return encode_weights(tensors, {DIGEST: _digest(tensors)})


def _decode(content: bytes) -> dict[str, Tensor]:
    """The tensors that `_encode` was given. Raises ValueError where they are not as they were written."""
    tensors, description = decode_weights(content)
    if description != {DIGEST: _digest(tensors)}:
        raise ValueError("it is not as it was written")
    return tensors


def _digest(tensors: dict[str, Tensor]) -> str:
    return files.digest_of(encode_weights(tensors, {}))
