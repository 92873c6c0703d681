"""Worker processes that take one task at a time, each over a pipe of its own.

Workers share nothing, neither a queue nor a lock: one that is killed, at work or between two tasks, or that hangs,
holds up none of the others. The process that gives out the tasks sees who has which, and for how long it stood still.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic
from typing import Any

from pipeline.progress import LOG
from pipeline.runs import start_time

# Signals that ask a job to stop. The job answers them, its workers do not.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
SECONDS_BETWEEN_LOOKS = 0.5
# Between two looks this process may have been suspended itself: then only so much of that time counts.
MOST_SECONDS_OF_A_LOOK = 2 * SECONDS_BETWEEN_LOOKS
# A worker that uses less of a core than this makes no progress; waking up once in ten seconds to wait on is none.
LEAST_SHARE_OF_A_CORE = 0.002
# States of Linux in which a worker may be expected to go on by itself: it runs, or sleeps until something comes. In
# the others it waits for a disk (D) or was stopped (T), which says nothing about its shape.
OWN_STATES = "RS"
STARTS_ALLOWED = 3
SECONDS_TO_END = 10.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Done:
    """A task ended. value: what its function returned."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """A task's function raised `problem`."""

    problem: BaseException


@dataclass(frozen=True)
class Died:
    """A worker ended in the middle of its task. exit_code: as of `Process`; None where nobody could see it.

    memory_mb: the most it was seen to hold, its libraries included.
    """

    exit_code: int | None
    memory_mb: float


@dataclass(frozen=True)
class StoodStill:
    """A worker was ended because it made no progress."""


class CannotStart(Exception):
    """Worker processes end before they can take a task, or cannot be started at all."""


class _InWorker(Exception):
    """Shows where in a worker an exception comes from, as the cause of that exception."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


class StandstillWatch:
    """How long one task has made no progress while the machine ran.

    Only time that this process saw pass counts, so a suspension of all (SIGSTOP, `scontrol suspend`, a laptop's lid)
    or a clock that jumps adds one look at the most.
    """

    def __init__(self, now: float, cpu_seconds: float) -> None:
        self._now = now
        self._cpu_then = cpu_seconds
        self.seconds = 0.0

    def look(self, now: float, cpu_seconds: float, state: str) -> None:
        """now: seconds of any clock. cpu_seconds: the worker's, since it began. state: a letter as in ps(1)."""
        passed = min(now - self._now, MOST_SECONDS_OF_A_LOOK)
        self._now = now
        if state not in OWN_STATES:
            return
        self.seconds += passed
        used = cpu_seconds - self._cpu_then
        if used > LEAST_SHARE_OF_A_CORE * self.seconds:
            self.seconds = 0.0
            self._cpu_then = cpu_seconds


class Worker:
    """One process, what it works on, and what it was seen to take."""

    def __init__(self, context: Any, start: Callable[..., None], arguments: Sequence[Any]) -> None:
        self.pipe, theirs = context.Pipe()
        # Not a daemon: at the exit of this process those are asked to end by a signal that workers leave alone.
        self.process = context.Process(target=_serve, args=(theirs, start, tuple(arguments)), daemon=False)
        try:
            self.process.start()
        finally:
            theirs.close()
        self.task: Any = None
        self.ready = False
        self.tasks_given = 0
        self.memory_mb = 0.0
        self.watch = StandstillWatch(0.0, 0.0)
        self._starter: int | None = None

    def give(self, task: Any, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
        """Set the worker to work on `task`. A worker that is dead by now is noticed when its answer is awaited."""
        self.task = task
        self.tasks_given += 1
        self.watch = StandstillWatch(monotonic(), self._usage()[0])
        with suppress(ConnectionError):
            self.pipe.send((function, tuple(arguments)))

    def look(self) -> None:
        """Note what the worker has used by now."""
        cpu_seconds, state = self._usage()
        self.watch.look(monotonic(), cpu_seconds, state)
        self.memory_mb = max(self.memory_mb, resident_mb(self.process.pid))

    def answer(self) -> Done | Raised | Died | None:
        """What came through the pipe; None where that was only that the worker is ready."""
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(SECONDS_TO_END)
            return Died(self._exit_code(), self.memory_mb)
        if kind == "ready":
            self.ready = True
            self._starter = value
            return None
        if kind == "done":
            return Done(value)
        problem, text = value
        problem.__cause__ = _InWorker(text)
        return Raised(problem)

    def end(self) -> None:
        """Kill the worker, whatever it does."""
        self.process.kill()
        self.process.join(SECONDS_TO_END)
        self.pipe.close()

    def _exit_code(self) -> int | None:
        """The exit code, as far as the process that started the worker lived to see it."""
        lost = self._starter is not None and start_time(self._starter) is None
        return None if lost else self.process.exitcode

    def _usage(self) -> tuple[float, str]:
        """CPU seconds of the process since its start, and its state; of one that is gone zero and "X"."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            return 0.0, "X"
        user, system = int(fields[11]), int(fields[12])
        return (user + system) / TICKS_PER_SECOND, fields[0]


class Crew:
    """Some workers, replaced as they die. Ends them all on leaving the `with` block."""

    def __init__(self, size: int, preload: Sequence[str], start: Callable[..., None], arguments: Sequence[Any]) -> None:
        """preload: modules that every worker has from the beginning. start: called in each worker before its tasks."""
        self._size = size
        self._start = start
        self._arguments = arguments
        self._starts_failed = 0
        self._looked = monotonic()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        self.workers: list[Worker] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.end()
        self.workers.clear()

    @property
    def busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.task is not None]

    def idle(self) -> list[Worker]:
        """Workers that can take a task, after new ones were started in the place of the dead."""
        while len(self.workers) < self._size:
            self._add()
        return [worker for worker in self.workers if worker.ready and worker.task is None]

    def wait(self, most_seconds_still: float) -> list[tuple[Any, Worker, Done | Raised | Died | StoodStill]]:
        """Wait half a second at the most; gives (task, worker, how it ended) for each task that ended meanwhile.

        Raises CannotStart where workers die before their first task, and what their `start` raised.
        """
        ended: list[tuple[Any, Worker, Any]] = []
        heard = wait([worker.pipe for worker in self.workers], timeout=SECONDS_BETWEEN_LOOKS)
        for worker in [worker for worker in self.workers if worker.pipe in heard]:
            self._hear(worker, ended)
        if monotonic() - self._looked >= SECONDS_BETWEEN_LOOKS:
            self._looked = monotonic()
            for worker in self.busy:
                worker.look()
                if worker.watch.seconds >= most_seconds_still:
                    self.dismiss(worker)
                    ended.append((worker.task, worker, StoodStill()))
                    worker.task = None
        return ended

    def dismiss(self, worker: Worker) -> None:
        """End a worker; another takes its place when one is asked for."""
        worker.end()
        self.workers.remove(worker)

    def _hear(self, worker: Worker, ended: list[tuple[Any, Worker, Any]]) -> None:
        answer = worker.answer()
        # One that ran out of memory may have kept some of what it took for the shape.
        spent = isinstance(answer, Raised) and isinstance(answer.problem, MemoryError)
        if spent or isinstance(answer, Died):
            self.dismiss(worker)
        if worker.task is not None and answer is not None:
            ended.append((worker.task, worker, answer))
            worker.task = None
        elif worker.ready:
            self._starts_failed = 0  # it is new, or was killed between two tasks, which costs nothing
        elif isinstance(answer, Raised):
            raise answer.problem
        else:
            self._count_failed_start(_exit_words(answer.exit_code))

    def _add(self) -> None:
        while True:
            try:
                with _deaf():
                    self.workers.append(Worker(self._context, self._start, self._arguments))
                return
            except (OSError, EOFError) as problem:
                self._count_failed_start(str(problem) or "the process that starts them has ended")

    def _count_failed_start(self, why: str) -> None:
        self._starts_failed += 1
        if self._starts_failed >= STARTS_ALLOWED:
            raise CannotStart(why)
        LOG.warning("a worker process did not start (%s); it is tried again", why)


class _deaf:
    """Processes that are started inside never hear the signals that ask a job to stop, not even as they start."""

    def __enter__(self) -> None:
        resource_tracker.ensure_running()  # it would unblock some of them
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        forkserver.ensure_running()

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


def resident_mb(pid: int | None) -> float:
    """The most memory a process has held, MB; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    peak = next((line for line in lines if line.startswith("VmHWM:")), None)
    return int(peak.split()[1]) / 1024 if peak else 0.0


def _exit_words(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"ended by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def _serve(pipe: Connection, start: Callable[..., None], arguments: Sequence[Any]) -> None:
    """What a worker does all its life: get ready, then answer one task after another until nobody asks."""
    try:
        start(*arguments)
    except BaseException as problem:
        pipe.send(("raised", _portable(problem)))
        return
    pipe.send(("ready", os.getppid()))
    while True:
        try:
            function, task_arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = ("done", function(*task_arguments))
        except BaseException as problem:
            answer = ("raised", _portable(problem))
        pipe.send(answer)


def _portable(problem: BaseException) -> tuple[BaseException, str]:
    """An exception and its traceback as text, in a form that goes through a pipe."""
    text = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(problem))
    except Exception:
        problem = RuntimeError(f"{type(problem).__name__}: {problem}")
    return problem, text
