"""The shapes of a data stage in worker processes, and the verdict on those that end in trouble.

Shapes are worked on beside one another first. One that runs into a limit there, or whose worker dies, is tried again
alone when the others are done, with all memory a shape may have; only then it is judged:

- more CPU time or memory than `limits` allow: rejected in the ledger, and due again as soon as the limit is raised;
- a crash in native code, twice: rejected in the store as well, for it is the shape's own;
- memory that the machine could not give, or a worker that it killed below its limit: no verdict at all. The job fails
  with the words for it, after all other shapes are done.
"""

from __future__ import annotations

import os
import signal
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.jobs.at_work import TooLarge, start_worker, work_on
from pipeline.jobs.machine import Memory
from pipeline.jobs.work import Limits, Work, reject, set_aside
from pipeline.jobs.workers import CannotStart, Crew, Died, Done, Raised, StoodStill
from pipeline.ledger import Row
from pipeline.limits import LEAST_MEMORY_MB
from pipeline.progress import LOG, log_file
from pipeline.store import Store

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "IGL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# Left alone, glibc raises these bounds as arrays are freed, and a worker keeps ever more memory from shape to shape.
# Much lower ones cost time: every array is then handed out by the system anew, page by page.
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(32 << 20)}
WORKER_ENVIRONMENT = {**dict.fromkeys(ONE_THREAD, "1"), **FREED_AT_ONCE}
IMPORT_NAMES = {"open3d-cpu": "open3d", "scikit-image": "skimage.measure", "scipy": "scipy.spatial", "libigl": "igl"}
DEATHS_ALLOWED = 2
# What nearly all shapes get along with. Where memory is scarce, workers start with this much rather than being few,
# and the few shapes that need more are made alone, with the whole limit.
ROOMY_MB = 2000
# A shape that crashes with this much more memory than its limit does not crash for want of it.
AMPLE = 2
# Signals that native code brings upon itself; any other comes from outside.
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP)
NO_COST = {"seconds": None, "cpu_seconds": None, "peak_mb": None}


@dataclass(frozen=True)
class Trouble:
    """How a try of a shape failed.

    kind: "seconds" and "memory_mb" are limits of a shape, "machine" is what the machine refused or did, "crash" is
    native code's own end. words: what happened, to follow the shape's name. ends_worker: the worker died of it.
    """

    kind: str
    words: str
    ends_worker: bool = False


def divided(memory: Memory, limits: Limits, workers: int) -> tuple[int, float]:
    """How many workers fit into a job's memory, of `workers` at the most, and MB for each beside the others."""
    most = int(memory.mb // min(limits.memory_mb, ROOMY_MB))
    size = max(1, min(workers, most))
    return size, max(LEAST_MEMORY_MB, min(limits.memory_mb, memory.mb / size))


class Pool:
    """Makes shapes in workers. `failures` holds, after a run, what to say of the shapes that have no verdict."""

    def __init__(self, work: Work, store: Store, limits: Limits, workers: int, memory: Memory) -> None:
        os.environ.update(WORKER_ENVIRONMENT)
        self._work, self._store, self._limits, self._memory = work, store, limits, memory
        self._size, self._share_mb = divided(memory, limits, workers)
        self._keys: dict[str, str] = {}
        self._again: deque[str] = deque()
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._crashed: set[str] = set()
        self.failures: dict[str, str] = {}
        if memory.mb < limits.memory_mb:
            LOG.warning(
                "limits.memory_mb = %g does not fit into what this job has (%s): one worker is at work, and a shape "
                "that needs more than that ends the job",
                limits.memory_mb,
                memory,
            )
        elif self._size < workers:
            LOG.info("%d workers instead of %d fit into the memory of this job (%s)", self._size, workers, memory)

    def run(
        self, waiting: Mapping[str, str], shapes: Mapping[str, Any], stop: Any
    ) -> Iterator[tuple[Row, dict[str, float | None]]]:
        """Yield (row, cost) as shapes end. waiting: shape → key. stop: has a `signal` once no more are to begin."""
        self._keys = dict(waiting)
        tasks = {shape: (shape, key, shapes[shape]) for shape, key in waiting.items()}
        yield from self._map(tasks, self._size, self._share_mb, stop)
        while self._again and not stop.signal:
            shape = self._again.popleft()
            yield from self._map({shape: tasks[shape]}, 1, self._alone_mb(shape), stop)

    def _alone_mb(self, shape: str) -> float:
        """A shape alone has its limit; after a crash all there is, to see whether it was for want of memory."""
        limit = self._limits.memory_mb
        fits = max(limit, self._memory.mb) if shape in self._crashed else min(limit, self._memory.mb)
        return max(LEAST_MEMORY_MB, fits)

    def _map(self, tasks: Mapping[str, Sequence[Any]], size: int, memory_mb: float, stop: Any):
        queue = deque(tasks)
        with self._crew(size, memory_mb) as crew:
            self._give_out(crew, queue, tasks, stop)
            while crew.busy or (queue and not stop.signal):
                ended = self._wait(crew)
                # Workers go on before the rows of what has ended are written down.
                self._give_out(crew, queue, tasks, stop)
                for shape, worker, end in ended:
                    if isinstance(end, Done):
                        yield end.value
                        continue
                    alone = size == 1
                    row = self._judged(shape, self._trouble(end), alone, worker.tasks_given == 1, memory_mb, stop)
                    if row is not None:
                        yield row, dict(NO_COST)

    def _crew(self, size: int, memory_mb: float) -> Crew:
        work, limits = self._work, self._limits
        preload = [work.module, *(IMPORT_NAMES.get(name, name) for name in work.libraries)]
        arguments = (work, self._store.roots, limits.seconds, memory_mb, limits.memory_mb, log_file())
        return Crew(size, preload, start_worker, arguments)

    def _give_out(self, crew: Crew, queue: deque[str], tasks: Mapping[str, Sequence[Any]], stop: Any) -> None:
        if not queue or stop.signal:
            return
        try:
            idle = crew.idle()
        except CannotStart as problem:
            raise _no_workers(problem, self._memory) from None
        for worker in idle[: len(queue)]:
            shape = queue.popleft()
            worker.give(shape, work_on, tasks[shape])

    def _wait(self, crew: Crew) -> list:
        try:
            return crew.wait(self._limits.seconds)
        except CannotStart as problem:
            raise _no_workers(problem, self._memory) from None

    def _trouble(self, end: Raised | Died | StoodStill) -> Trouble:
        """What an end other than a product means. Raises what a worker raised, unless that is about memory."""
        seconds, limit_mb = self._limits.seconds, self._limits.memory_mb
        if isinstance(end, StoodStill):
            words = f"took longer than the limit of {seconds:g} s without using CPU time (limits.seconds)"
            return Trouble("seconds", words)
        if isinstance(end, Raised):
            if not isinstance(end.problem, TooLarge):
                raise end.problem
            why = f": {end.problem}" if str(end.problem) else ""
            if end.problem.granted and self._memory.mb >= limit_mb:
                words = f"needs more than the limit of {limit_mb:g} MB of memory{why} (limits.memory_mb)"
                return Trouble("memory_mb", words)
            held = f"when it held {end.problem.memory_mb:,.0f} MB"
            words = f"needs more memory than the machine gave it, below limits.memory_mb = {limit_mb:g}, {held}{why}"
            return Trouble("machine", words)
        if end.exit_code == -signal.SIGPROF:
            words = f"took longer than the limit of {seconds:g} s of CPU time (limits.seconds)"
            return Trouble("seconds", words)
        return self._death(end)

    def _death(self, end: Died) -> Trouble:
        held = f"when it held {end.memory_mb:,.0f} MB (limits.memory_mb = {self._limits.memory_mb:g})"
        if end.exit_code is None:
            return Trouble("machine", f"its worker was killed with the process that starts workers, {held}", True)
        if end.exit_code >= 0:
            words = f"native code of this stage ended its process twice (exit code {end.exit_code})"
            return Trouble("crash", words, True)
        name = signal.Signals(-end.exit_code).name
        if -end.exit_code in CRASHES:
            return Trouble("crash", f"native code of this stage crashed on it twice ({name})", True)
        return Trouble("machine", f"its worker was killed from outside ({name}) {held}", True)

    def _judged(
        self, shape: str, trouble: Trouble, alone: bool, fresh: bool, memory_mb: float, stop: Any
    ) -> Row | None:
        """The row of a shape in trouble, or None where it is tried again or has no verdict.

        alone: nothing ran beside it. fresh: its worker had made nothing before. memory_mb: what that was allowed.
        """
        self._deaths[shape, trouble.kind] += 1
        if trouble.kind == "crash":
            self._crashed.add(shape)
        if trouble.ends_worker:
            enough = self._deaths[shape, trouble.kind] >= DEATHS_ALLOWED
        else:
            enough = fresh or trouble.kind == "seconds"
        if not (alone and enough) or (trouble.ends_worker and stop.signal):
            LOG.warning("%s: %s; it is tried again alone", shape, trouble.words.replace(" twice", ""))
            self._again.append(shape)
            return None
        if trouble.kind == "machine":
            LOG.warning("%s: %s", shape, trouble.words)
            self.failures[shape] = trouble.words
            return None
        key, limit_mb = self._keys[shape], self._limits.memory_mb
        if trouble.kind == "crash":
            if memory_mb >= AMPLE * limit_mb:
                return reject(self._work, shape, key, trouble.words, self._store)
            words = f"{trouble.words}; with more memory it may not (limits.memory_mb)"
            return set_aside(self._work, shape, key, words, {"memory_mb": limit_mb})
        limit = {trouble.kind: getattr(self._limits, trouble.kind)}
        return set_aside(self._work, shape, key, trouble.words, limit)

    def failed_words(self, done: int) -> str:
        """The message of a job some of whose shapes have no verdict. done: how many others are kept."""
        shown = list(self.failures.items())[:3]
        lines = [f"{shape}: {words}" for shape, words in shown]
        if len(self.failures) > len(shown):
            lines.append(f"… and {len(self.failures) - len(shown)} more shapes")
        lines.append(
            f"So does a machine that runs out of memory: nothing is the matter with the shape, and nothing is written "
            f"down about it. This job has {self._memory}.\nGive it more (mem_mb of its rule: --set-resources or a "
            f"profile; fewer jobs at once; a larger machine), or lower limits.memory_mb, so that such shapes are "
            f"rejected instead. {done} shapes are done and kept; then type the same command again."
        )
        return "\n".join(lines)


def _no_workers(problem: CannotStart, memory: Memory) -> SystemExit:
    return SystemExit(
        f"no worker process can be started: {problem}.\nThe machine may be out of memory or of processes (see `ulimit "
        f"-u` and `ulimit -v`; this job has {memory}). What is finished is kept; then type the same command again."
    )
