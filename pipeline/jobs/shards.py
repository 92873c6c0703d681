"""Map one stage over the shapes of a shard: skip what the store has, make the rest in worker processes.

A worker that takes too long, needs too much memory or dies in native code costs its own shape only. SIGTERM, SIGINT
and SIGUSR1 finish the shapes in flight and leave; a kill loses at most those.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path
from typing import Any

from pipeline import files, ledger
from pipeline.jobs.work import LIMIT_MARK, Limits, Work, make_row, read_value, reject, source_values, stored_row
from pipeline.ledger import Row
from pipeline.progress import LOG, Progress, log_file, start_log
from pipeline.sources.errors import SourceError
from pipeline.store import Store

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "IGL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# Left alone, glibc raises these bounds as arrays are freed, and a worker keeps ever more memory from shape to shape.
# Much lower ones cost time: every array is then handed out by the system anew, page by page.
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(32 << 20)}
WORKER_ENVIRONMENT = {**dict.fromkeys(ONE_THREAD, "1"), **FREED_AT_ONCE}
IMPORT_NAMES = {"open3d-cpu": "open3d", "scikit-image": "skimage.measure", "scipy": "scipy.spatial", "libigl": "igl"}
DEATHS_ALLOWED = 2
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


class Stopped(SystemExit):
    """The job was asked to stop; what is finished is kept."""


class StopRequest:
    """Remembers that a signal asked this process to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.signal = self.signal or number


# One shape's inputs: argument name → (row, ledger it stands in), or for raw meshes the line of the member file.
Inputs = Mapping[str, tuple[Row, str]]


def map_shapes(
    work: Work,
    shapes: Mapping[str, Inputs | dict[str, Any]],
    store: Store,
    limits: Limits,
    workers: int,
    timings: Path,
    label: str,
) -> dict[str, Row]:
    """Rows of all `shapes`, in any order. Raises Stopped after a signal, Damaged where the store needs a repair.

    timings: JSON lines, one for every shape that was computed, appended as it ends; it survives kills.
    """
    stop = StopRequest()
    rows: dict[str, Row] = {}
    waiting: dict[str, str] = {}
    store.refresh()
    for shape in sorted(shapes):
        row, key = settled(work, shape, shapes[shape], store, limits)
        if row is None:
            waiting[shape] = key
        else:
            rows[shape] = row
    LOG.info("%s: %d shapes, %d of them settled already", label, len(shapes), len(rows))
    if waiting:
        pool = _Pool(work, store, limits, min(workers, len(waiting)))
        progress = Progress(label, len(shapes), done=len(rows))
        try:
            for row, cost in pool.run(waiting, shapes, stop):
                rows[row.shape] = row
                files.append_line(timings, {"shape": row.shape, "status": row.status, **cost})
                progress.advance(note=_note(rows))
        finally:
            pool.close()
            progress.close()
    if stop.signal and len(rows) < len(shapes):
        LOG.warning(
            "%s was asked to stop (%s): %d of %d shapes are done and kept; the same command goes on from here",
            label,
            signal.Signals(stop.signal).name,
            len(rows),
            len(shapes),
        )
        raise Stopped(128 + stop.signal)
    return rows


def settled(work: Work, shape: str, inputs: Any, store: Store, limits: Limits) -> tuple[Row | None, str]:
    """The row of a shape that needs no work, and its key: rejected before, or in the store already."""
    from pipeline.arrays import Rejected

    if work.reads_source:
        try:
            digests = _digests(source_values(inputs, work.stage))
        except Rejected as reason:
            return Row(shape, "rejected", reason=str(reason), stage=work.instance), ""
    else:
        rejected = next((row for row, _ in inputs.values() if not row.accepted), None)
        if rejected is not None:
            return Row(shape, "rejected", reason=rejected.reason, stage=rejected.stage), ""
        digests = {name: row.digest for name, (row, _) in inputs.items()}
    key = work.key(shape, digests)
    return stored_row(work, shape, key, store, limits), key


def _digests(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _digest(value) for name, value in values.items()}


def _digest(value: Any) -> Any:
    """Content digests of raw bytes; the suffix of a name, which may choose the reader."""
    if isinstance(value, bytes):
        return files.digest_of(value)
    if isinstance(value, Mapping):
        return {name: files.digest_of(content) for name, content in value.items()}
    return Path(value).suffix.lower()


def _note(rows: Mapping[str, Row]) -> str:
    rejected = sum(not row.accepted for row in rows.values())
    return f"{rejected} rejected" if rejected else ""


class _Pool:
    """Worker processes that can be killed and replaced (pebble), each with its memory and time limit."""

    def __init__(self, work: Work, store: Store, limits: Limits, workers: int) -> None:
        from pebble import CONSTS, ProcessPool

        # Workers leave SIGTERM to this process, so waiting for them to obey one is of no use.
        CONSTS.term_timeout = 0.05
        os.environ.update(WORKER_ENVIRONMENT)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([work.module, *(IMPORT_NAMES.get(n, n) for n in work.libraries)])
        self._work, self._store, self._limits, self._workers = work, store, limits, workers
        arguments = (work, store.roots, limits.memory_mb, log_file())
        self._pool = ProcessPool(workers, initializer=start_worker, initargs=arguments, context=context)

    def run(self, waiting: Mapping[str, str], shapes: Mapping[str, Any], stop: StopRequest):
        """Yield (row, cost) as shapes end. One more than the workers is in flight, so that a stop is soon obeyed."""
        queue = list(reversed(list(waiting)))
        deaths: dict[str, int] = {}
        futures: dict[Any, str] = {}
        while futures or (queue and not stop.signal):
            while queue and len(futures) <= self._workers and not stop.signal:
                shape = queue.pop()
                task = (shape, waiting[shape], shapes[shape])
                futures[self._pool.schedule(work_on, args=task, timeout=self._limits.seconds)] = shape
            for future in wait(futures, timeout=0.5, return_when=FIRST_COMPLETED).done:
                shape = futures.pop(future)
                outcome = self._outcome(future, shape, waiting[shape], deaths, stop)
                if outcome is None:
                    queue.append(shape)
                else:
                    yield outcome

    def _outcome(self, future, shape: str, key: str, deaths: dict[str, int], stop: StopRequest):
        """The row a worker made, a rejection for a limit or a crash, or None where the shape is to be tried again."""
        from pebble import ProcessExpired

        cost = {"seconds": None, "cpu_seconds": None, "peak_mb": None}
        try:
            return future.result()
        except TimeoutError:
            reason = f"took longer than the limit of {self._limits.seconds:g} s {LIMIT_MARK}seconds)"
        except MemoryError as error:
            why = f": {error}" if str(error) else ""
            reason = f"needs more than the limit of {self._limits.memory_mb} MB of memory{why} {LIMIT_MARK}memory_mb)"
        except ProcessExpired as death:
            deaths[shape] = deaths.get(shape, 0) + 1
            if deaths[shape] < DEATHS_ALLOWED or stop.signal:
                LOG.warning("%s: its worker died (exit code %s); it is tried again", shape, death.exitcode)
                return None
            reason = _death_reason(death.exitcode)
        return reject(self._work, shape, key, reason, self._store, self._limits), cost

    def close(self) -> None:
        self._pool.stop()
        self._pool.join()


def _death_reason(exit_code: int) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = "; the machine may have run out of memory" if name == "SIGKILL" else ""
        return f"native code of this stage crashed on it twice ({name}{hint})"
    return f"native code of this stage ended its process twice (exit code {exit_code})"


_WORKER: dict[str, Any] = {}


def start_worker(work: Work, roots: tuple[Path, ...], memory_mb: int, log: Path | None) -> None:
    """Prepare a worker: it dies with its parent, leaves signals to it, and cannot take more memory than allowed."""
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = mapped + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    start_log(log, append=True)
    _WORKER.update(work=work, store=Store(roots[0], roots[1:]))


def work_on(shape: str, key: str, inputs: Any) -> tuple[Row, dict[str, float]]:
    """Make one shape in a worker: read its inputs, compute, store. Gives its row and what it cost."""
    work, store = _WORKER["work"], _WORKER["store"]
    start, cpu = time.perf_counter(), time.process_time()
    if work.reads_source:
        values = source_values(inputs, work.stage)
        if work.key(shape, _digests(values)) != key:
            raise SourceError(f"{shape}: its file was changed while this job ran; type the same command again")
    else:
        values = {name: read_value(row, path, store).value for name, (row, path) in inputs.items()}
    read = time.perf_counter()
    row = make_row(work, shape, key, values, store)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return row, {
        "seconds": round(time.perf_counter() - start, 4),
        "read_seconds": round(read - start, 4),
        "cpu_seconds": round(time.process_time() - cpu, 4),
        "peak_mb": round(peak, 1),
    }


def inputs_of(paths: Mapping[str, list[str]]) -> dict[str, Inputs]:
    """Shape → its rows in the ledgers of each argument, for all shapes of the first argument.

    Raises SystemExit where a ledger lacks a shape: then the member files changed while the workflow ran.
    """
    tables: dict[str, dict[str, tuple[Row, str]]] = {}
    for argument, ledgers in paths.items():
        tables[argument] = {s: (row, str(path)) for path in ledgers for s, row in ledger.read(Path(path)).rows.items()}
    wanted = list(next(iter(tables.values())))
    missing = {argument: sorted(set(wanted) - set(table)) for argument, table in tables.items()}
    if any(missing.values()):
        argument, gone = next((a, m) for a, m in missing.items() if m)
        raise SystemExit(
            f"{', '.join(paths[argument])} lacks {gone[0]} ({len(gone)} in all); run the same command again"
        )
    return {shape: {argument: table[shape] for argument, table in tables.items()} for shape in wanted}
