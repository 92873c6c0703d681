"""Runs of the workflow in one working directory: who is alive, whose locks are stale, which jobs were left behind.

The same command is always the repair. A run that was killed leaves a lock and perhaps jobs that still work; the next
run sees from the records that nobody alive owns them, stops the jobs, removes the lock and goes on.
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
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import commands, files

FOLDER = Path(".isomill")
RUNS, JOBS, GUARD = FOLDER / "runs", FOLDER / "jobs", FOLDER / "guard"
LOCKS = Path(".snakemake") / "locks"
RUN_VARIABLE = "ISOMILL_RUN"
SECONDS_TO_STOP = 10.0
SECONDS_BETWEEN_LOOKS = 1.0
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
    machine and nobody said how many GPUs they may take. planned: it runs jobs or shows which it would run (-n). local:
    the jobs run on this machine. targets: what is asked for.
    """

    main: bool
    real: bool
    gpus_unset: bool
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
        planned=main and asked <= {"dryrun"},
        local=local,
        targets=tuple(arguments.targets or ()),
    )


def _given(value: Any) -> bool:
    return value not in (None, False, [], ())


def start_time(pid: int) -> str | None:
    """When a process of this machine started, as the kernel counts it; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def record(folder: Path, **facts: Any) -> Path:
    """Write down this process in `folder`; a pid alone may be another process later, so its start time goes along."""
    host, pid = socket.gethostname(), os.getpid()
    row = {"host": host, "pid": pid, "start": start_time(pid), "command": sys.argv, **facts}
    path = folder / f"{host}-{pid}-{row['start']}.json"
    files.write_json(path, row)
    return path


def state(path: Path) -> str:
    """Whether the process of a record is "alive", "dead" or on "another host"."""
    try:
        row = files.read_json(path)
        host, pid, start = row["host"], row["pid"], row["start"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "dead"
    if host != socket.gethostname():
        return "another host"
    return "alive" if start_time(pid) == start else "dead"


@contextmanager
def guard():
    """One process at a time looks at records and locks."""
    FOLDER.mkdir(exist_ok=True)
    with open(GUARD, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def begin() -> list[str]:
    """Take over what dead runs left, and write down this run. Returns the lines to print.

    Raises SystemExit where a lock may belong to somebody alive elsewhere, saying what to do.
    """
    lines: list[str] = []
    with guard():
        others = {path: state(path) for path in sorted(RUNS.glob("*.json")) if path.name != own_name()}
        if _alone(others, lines):
            lines += _stop_jobs_of_the_dead()
            for path in others:
                path.unlink(missing_ok=True)
        own = record(RUNS).resolve()
    # What ended by itself leaves no record: on another machine, later, nobody could tell that it is over.
    atexit.register(own.unlink, missing_ok=True)
    os.environ[RUN_VARIABLE] = str(own)
    return lines


def own_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{start_time(os.getpid())}.json"


def alone() -> bool:
    """No other run of this directory is alive, as far as this machine can see."""
    return all(state(path) == "dead" for path in RUNS.glob("*.json") if path.name != own_name())


def _alone(others: dict[Path, str], lines: list[str]) -> bool:
    """Remove a stale lock if nobody alive can own it. True if no other run is at work: without a lock, none is."""
    if "alive" in others.values():
        return False
    locks = sorted(LOCKS.glob("*")) if LOCKS.is_dir() else []
    elsewhere = [path for path, where in others.items() if where == "another host"]
    if locks and elsewhere:
        host = files.read_json(elsewhere[0])["host"]
        raise SystemExit(
            f"This directory is locked by a run on {host}, which this machine cannot see.\n"
            f"If it is over, type:  rm {elsewhere[0]} && {commands.snakemake('--unlock')}\nand start again."
        )
    if locks and not others:
        raise SystemExit(
            "This directory is locked, and Isomill did not write down by whom: perhaps a run that is still alive on "
            f"another machine.\nIf you know that none is, type:  {commands.snakemake('--unlock')}\nand start again."
        )
    for lock in locks:
        lock.unlink(missing_ok=True)
    if locks:
        lines.append("The last run here was killed; its lock is removed and its work is taken up again.")
    return True


def _stop_jobs_of_the_dead() -> list[str]:
    """Tell jobs whose run is dead to stop, and wait until they have."""
    left = [path for path in JOBS.glob("*.json") if state(path) != "another host"]
    alive = [files.read_json(path) for path in left if state(path) == "alive"]
    found = len(alive)
    for number, seconds in ((signal.SIGTERM, SECONDS_TO_STOP), (signal.SIGKILL, 1.0)):
        for row in alive:
            _signal(row["pid"], number)
        deadline = time.monotonic() + seconds
        while alive and time.monotonic() < deadline:
            time.sleep(0.05)
            alive = [row for row in alive if start_time(row["pid"]) == row["start"]]
    for path in left:
        path.unlink(missing_ok=True)
    return [f"Stopped {found} jobs the last run left behind."] if found else []


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def watch_run() -> None:
    """Write down this job, and stop it when the run that started it dies. Jobs on other machines go on."""
    run = os.environ.get(RUN_VARIABLE)
    # The host is read from the record's name, which tells it even when the run is over and its record gone.
    if not run or Path(run).name.rsplit("-", 2)[0] != socket.gethostname():
        return
    path = record(Path(run).parent.parent / JOBS.name)

    def look() -> None:
        while state(Path(run)) == "alive":
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, daemon=True).start()
    atexit.register(path.unlink, missing_ok=True)
