"""Records of runs and jobs in one working directory: who they are, whether they live, whether they were taken over.

A record lies in `.isomill/runs` or `.isomill/jobs`. Its owner removes it at its end and sets its time anew every
minute until then, so that those who cannot see the process (on another machine, in another container) can tell
whether it is still there: after ten minutes without a sign of life it counts as dead. The time is compared with that
of a file written just now in the same folder, since the clocks of machines and file servers differ.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline import files, processes
from pipeline.processes import DEAD, ELSEWHERE

FOLDER = Path(".isomill")
RUNS, JOBS = FOLDER / "runs", FOLDER / "jobs"
SECONDS_BETWEEN_SIGNS = 60.0
SIGNS_MISSED = 10
# A queue of another kind than Slurm may start a job of a run that is over weeks later; it must find that out.
SECONDS_A_RUN_IS_REMEMBERED = 60 * 24 * 3600.0


def own_name() -> str:
    return f"{processes.identity()['host']}-{os.getpid()}-{processes.start_time(os.getpid())}.json"


def record(folder: Path, **facts: Any) -> Path:
    """Write down this process in `folder`."""
    path = folder / own_name()
    files.write_json(path, {**processes.identity(), "command": sys.argv, "sign": SECONDS_BETWEEN_SIGNS, **facts})
    return path


def read(path: Path) -> dict[str, Any]:
    """The facts of a record; none where it is gone or damaged."""
    try:
        row = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return row if isinstance(row, dict) else {}


def add(path: Path, **facts: Any) -> None:
    """Write more facts into a record."""
    files.write_json(path, {**read(path), **facts})


def state(path: Path) -> str:
    """Whether the process of a record is ALIVE, DEAD, or ELSEWHERE: on another machine or in another container."""
    row = read(path)
    try:
        found = processes.state(row)
        if row.get("over") or (found == ELSEWHERE and silent(path, row)):
            return DEAD
        return found
    except (KeyError, TypeError, FileNotFoundError):
        return DEAD


def silent(path: Path, row: Mapping[str, Any]) -> bool:
    """The owner of a record has given no sign of life for so long that it must be dead."""
    return "sign" in row and silence(path) > SIGNS_MISSED * row["sign"]


def silence(path: Path) -> float:
    """Seconds since the last sign of life."""
    return files.clock_of(path.parent) - path.stat().st_mtime


def is_over(path: Path) -> bool:
    """Another run has taken the directory over from the run of this record."""
    return bool(read(path).get("over"))


def retire(path: Path) -> None:
    """A run is over. Where others may still start jobs of it, its record stays to tell them so."""
    row = read(path)
    if not row.get("cluster"):
        path.unlink(missing_ok=True)
    elif not row.get("over"):
        add(path, over=True)
    elif silence(path) > SECONDS_A_RUN_IS_REMEMBERED:
        path.unlink(missing_ok=True)


def give_signs(path: Path, taken_over: Callable[[], None]) -> Callable[[], None]:
    """Set a record's time anew every minute from now on; returns the function that ends this.

    taken_over: called once if the record is found gone or marked as over.
    """
    ended = threading.Event()

    def sign() -> None:
        while not ended.wait(SECONDS_BETWEEN_SIGNS):
            gone = False
            try:
                os.utime(path)
            except FileNotFoundError:
                gone = True
            except OSError:
                continue  # a file server that is away for a while
            if (gone or is_over(path)) and not ended.is_set():
                taken_over()
                return

    threading.Thread(target=sign, daemon=True).start()
    return ended.set
