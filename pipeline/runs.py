"""Runs of the workflow in one working directory: who is alive, whose locks are stale, which jobs were left behind.

The same command is always the repair. A run that was killed leaves a lock and perhaps jobs that still work, here or
in a cluster's queue; the next run sees from the records that nobody alive owns them, ends the jobs, removes the lock
and goes on.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import commands, files, leftovers, records, slurm
from pipeline.processes import ALIVE, DEAD, ELSEWHERE, start_time  # noqa: F401 - as a record's field
from pipeline.progress import LOG
from pipeline.records import FOLDER, JOBS, RUNS, is_over, own_name, read, record, state

GUARD = FOLDER / "guard"
LOCKS = Path(".snakemake") / "locks"
RUN_VARIABLE = "ISOMILL_RUN"
SECONDS_BETWEEN_LOOKS = 1.0
# A job on another machine reads its run's record over the network.
LOOKS_LEFT_OUT_ELSEWHERE = 10
# Switches that print, check or repair something instead of running jobs.
NOT_A_RUN = (
    "dryrun", "lint", "summary", "detailed_summary", "dag", "rulegraph", "filegraph", "d3dag", "report", "unlock",
    "touch", "delete_all_output", "delete_temp_output", "archive", "list_rules", "list_target_rules", "list_changes",
    "list_input_changes", "list_params_changes", "list_untracked", "cleanup_metadata", "containerize",
    "generate_unit_tests", "export_cwl", "print_compilation", "conda_cleanup_envs", "list_conda_envs",
    "conda_create_envs_only", "cleanup_shadow", "draft_notebook", "edit_notebook", "container_cleanup_images",
    "reporter",
)  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A Snakemake command line, profiles merged in.

    main: a person started it (it is not a job of a run). real: it will run jobs. gpus_unset: it runs jobs on this
    machine and nobody said how many GPUs they may take. executor: who runs them, as in `--executor`. hooks: the
    workflow is told when its jobs begin. dry: it shows what would run. planned: it runs jobs or shows which it would
    run (-n). local: the jobs run on this machine. targets: what is asked for.
    """

    main: bool
    real: bool
    gpus_unset: bool
    executor: str = "local"
    hooks: bool = True
    dry: bool = False
    planned: bool = False
    local: bool = False
    targets: tuple[str, ...] = ()


def command_line(argv: Sequence[str]) -> Command:
    """Read a command line; Snakemake does not tell a Snakefile itself whether this is a dry run."""
    from snakemake.cli import parse_args
    from snakemake_interface_executor_plugins.settings import ExecMode

    try:
        _, arguments = parse_args(list(argv))
    except SystemExit:
        return Command(False, False, False)
    main = arguments.mode == ExecMode.DEFAULT
    local = arguments.executor in (None, "local")
    given = any("gpu" in (getattr(arguments, name, None) or {}) for name in ("resources", "default_resources"))
    asked = {name for name in NOT_A_RUN if _given(getattr(arguments, name, None))}
    if getattr(arguments, "report_after_run", False):
        asked -= {"report", "reporter"}
    return Command(
        main,
        real=main and not asked,
        gpus_unset=main and local and not given,
        executor=arguments.executor or "local",
        hooks=not arguments.no_hooks,
        dry=main and bool(arguments.dryrun),
        planned=main and asked <= {"dryrun"},
        local=local,
        targets=tuple(arguments.targets or ()),
    )


def _given(value: Any) -> bool:
    return value not in (None, False, [], ())


@contextmanager
def guard():
    """One process at a time looks at records and locks."""
    FOLDER.mkdir(exist_ok=True)
    with open(GUARD, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def begin() -> list[str]:
    """Take over what dead runs left, and write down this run. Returns the lines to print.

    Raises SystemExit where a lock may belong to somebody alive elsewhere, or where jobs of a dead run cannot be
    ended, saying what to do.
    """
    lines: list[str] = []
    with guard():
        others = {path: state(path) for path in sorted(RUNS.glob("*.json")) if path.name != own_name()}
        if _alone(others):
            lines += _unlock()
            lines += leftovers.end(list(others))
            files.sweep_temporaries(Path("results"), below=True)
        own = record(RUNS).resolve()
    # What ended by itself leaves no record: on another machine, later, nobody could tell that it is over.
    atexit.register(_end, own)
    os.environ[RUN_VARIABLE] = str(own)
    return lines


def _end(own: Path) -> None:
    """Remove the record, unless Slurm jobs are left, as after an error in Snakemake itself: the next run ends them.

    The mark of a run that was taken over stays too.
    """
    row = read(own)
    try:
        left = bool(row.get("slurm") and slurm.jobs_of(**row["slurm"]))
    except slurm.SlurmError:
        left = True
    if not left and not row.get("over"):
        own.unlink(missing_ok=True)


def alone() -> bool:
    """No other run of this directory is alive, as far as this machine can see."""
    return all(state(path) == DEAD for path in RUNS.glob("*.json") if path.name != own_name())


def _alone(others: Mapping[Path, str]) -> bool:
    """No other run is at work. Raises SystemExit where a lock leaves that open."""
    if ALIVE in others.values():
        return False
    elsewhere = [path for path, where in others.items() if where == ELSEWHERE]
    if _locks() and elsewhere:
        raise SystemExit(_locked_from_elsewhere(elsewhere[0]))
    if _locks() and all(is_over(path) for path in others):
        raise SystemExit(
            "This directory is locked, and Isomill did not write down by whom: perhaps a run that is still alive on "
            f"another machine.\nIf you know that none is, type:  {commands.snakemake('--unlock')}\nand start again."
        )
    # Whoever held the lock and holds it no more is over, and so is, without a lock, who gives no signs of life.
    return not any("sign" in row and not row.get("locked") for row in map(read, elsewhere))


def _locked_from_elsewhere(path: Path) -> str:
    row = read(path)
    where = row["host"]
    if where == socket.gethostname():
        where += ", in another container or PID namespace"
    sign = ""
    if "sign" in row:
        minutes = records.SIGNS_MISSED * row["sign"] / 60
        silence = records.silence(path)
        sign = f"Its last sign of life is {silence:.0f} s old; after {minutes:.0f} minutes it counts as dead.\n"
    return (
        f"This directory is locked by a run on {where}, which this machine cannot see.\n{sign}"
        f"If it is over, type:  rm {path} && {commands.snakemake('--unlock')}\nand start again."
    )


def _locks() -> list[Path]:
    return sorted(LOCKS.glob("*")) if LOCKS.is_dir() else []


def _unlock() -> list[str]:
    """Remove the locks of the dead."""
    locks = _locks()
    for lock in locks:
        lock.unlink(missing_ok=True)
    return ["The last run here was killed; its lock is removed and its work is taken up again."] if locks else []


def own_run() -> Path | None:
    """The record of the run that this process is, or is a job of."""
    run = os.environ.get(RUN_VARIABLE)
    return Path(run) if run else None


def keep_alive(command: Command) -> None:
    """Give signs of life for this run from now on, and end it if another one has taken the directory over."""
    if command.executor == "slurm" and not command.hooks:
        print(
            "With --no-hooks Isomill cannot write down its Slurm jobs: if it is killed, cancel them.", file=sys.stderr
        )

    def taken_over() -> None:
        print("Another run has taken this directory over while this one was not heard of; it ends.", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGTERM)

    run = own_run()
    if run:
        atexit.register(records.give_signs(run, taken_over))


def note_jobs(own: Path, cluster: bool, locked: bool, jobs: Mapping[str, Any] | None) -> None:
    """Write down, before the first job, whether this run's jobs go to a cluster and by what name Slurm knows them.

    locked: the run holds Snakemake's lock. jobs: `name` and `clusters`, as `slurm.jobs_of` takes them.
    """
    records.add(own, cluster=cluster, locked=locked, slurm=jobs)


def leave_if_over() -> None:
    """For jobs, before anything is touched: raises SystemExit where another run has taken over from theirs."""
    run = own_run()
    if run and is_over(run):
        raise SystemExit("The run that submitted this job was killed, and another one works here now; it does it anew.")


def watch_run() -> None:
    """Write down this job, and stop it when the run that started it dies.

    On another machine a job goes on for as long as no other run has taken its run's place.
    """
    run = own_run()
    if not run or not run.parent.is_dir():
        return
    here = _seen_from_here(run)
    try:
        own = record(run.parent.parent / JOBS.name, run=run.name, slurm_job=os.environ.get("SLURM_JOB_ID"))
    except OSError as problem:
        LOG.warning("this job cannot be written down, so the next run would not know of it: %s", problem)
        return

    def look() -> None:
        while state(run) == ALIVE if here else not is_over(run):
            time.sleep(SECONDS_BETWEEN_LOOKS * (1 if here else LOOKS_LEFT_OUT_ELSEWHERE))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, daemon=True).start()
    atexit.register(own.unlink, missing_ok=True)
    atexit.register(records.give_signs(own, taken_over=lambda: None))  # ends first: atexit goes backwards


def _seen_from_here(run: Path) -> bool:
    row = read(run)
    if row:
        return state(run) != ELSEWHERE
    # The record's name tells the host even when the run is over and its record gone.
    return run.name.rsplit("-", 2)[0] == socket.gethostname()
