"""What a worker does with the shapes of a data stage: it computes and stores, within the limits of one shape."""

from __future__ import annotations

import ctypes
import mmap
import resource
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.jobs.memory import out_of_memory
from pipeline.jobs.work import Work, make_row, read_value, source_values
from pipeline.jobs.workers import STOPPING
from pipeline.ledger import Row
from pipeline.progress import start_log
from pipeline.sources.errors import SourceError
from pipeline.store import Store

DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


class TooLarge(MemoryError):
    """A shape needed more memory than its worker was allowed.

    granted: the machine would have given as much as the limit of a shape, so it is the shape that needs more.
    """

    def __init__(self, words: str, granted: bool, memory_mb: float) -> None:
        super().__init__(words, granted, memory_mb)
        self.words = words
        self.granted = granted
        self.memory_mb = memory_mb

    def __str__(self) -> str:
        return self.words


_WORKER: dict[str, Any] = {}


def start_worker(
    work: Work, roots: tuple[Path, ...], seconds: float, memory_mb: float, limit_mb: float, log: Path | None
) -> None:
    """Prepare a worker: it dies with its parent, leaves signals to it, and cannot take more memory than allowed.

    seconds: CPU time a shape may take. memory_mb: what this worker may take above its libraries. limit_mb: what any
    shape may; a worker is allowed less while others are at work beside it.
    """
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    mapped = _mapped()
    _allow(mapped + int(memory_mb * 2**20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    start_log(log, append=True)
    store = Store(roots[0], roots[1:])
    _WORKER.update(work=work, store=store, seconds=seconds, limit=mapped + int(limit_mb * 2**20))


def work_on(shape: str, key: str, inputs: Any) -> tuple[Row, dict[str, float]]:
    """Make one shape in a worker: read its inputs, compute, store. Gives its row and what it cost.

    Where it takes longer than allowed, the kernel ends the process by SIGPROF: its timer counts CPU time alone, and
    works inside native code too. Raises TooLarge where memory runs out.
    """
    signal.setitimer(signal.ITIMER_PROF, _WORKER["seconds"])
    try:
        return _made(shape, key, inputs)
    except Exception as problem:
        if not out_of_memory(problem):
            raise
        raise _too_large(problem) from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _made(shape: str, key: str, inputs: Any) -> tuple[Row, dict[str, float]]:
    work, store = _WORKER["work"], _WORKER["store"]
    start, cpu = time.perf_counter(), time.process_time()
    if work.reads_source:
        values = source_values(inputs, work.stage)
        if work.key(shape, digests_of(values)) != key:
            raise SourceError(f"{shape}: its file was changed while this job ran; type the same command again")
    else:
        values = {name: read_value(row, path, store).value for name, (row, path) in inputs.items()}
    read = time.perf_counter()
    row = make_row(work, shape, key, values, store)
    return row, {
        "seconds": round(time.perf_counter() - start, 4),
        "read_seconds": round(read - start, 4),
        "cpu_seconds": round(time.process_time() - cpu, 4),
        "peak_mb": round(_peak_mb(), 1),
    }


def digests_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What of a raw file's values goes into the key of its shape."""
    return {name: _digest(value) for name, value in values.items()}


def _digest(value: Any) -> Any:
    """Content digests of raw bytes; the suffix of a name, which may choose the reader."""
    if isinstance(value, bytes):
        return files.digest_of(value)
    if isinstance(value, Mapping):
        return {name: files.digest_of(content) for name, content in value.items()}
    return Path(value).suffix.lower()


def _too_large(problem: Exception) -> TooLarge:
    """Whose fault it is that memory ran out: asks the machine for what the shape's limit would still allow."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    left = _WORKER["limit"] - _mapped()
    granted = True
    if left > 0:
        try:
            mmap.mmap(-1, left, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        except (OSError, MemoryError):
            granted = False
    return TooLarge(str(problem), granted, _peak_mb())


def _allow(size: int) -> None:
    """Limit the memory this process maps, in bytes. The hard limit stays: it is what the machine allows anyway."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))


def _mapped() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
