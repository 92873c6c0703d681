"""Jobs that a dead run left behind, here, on other machines or in Slurm's queue: they end before new ones start."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline import records, slurm
from pipeline.processes import ALIVE, ELSEWHERE, start_time
from pipeline.records import JOBS, read, state

SECONDS_TO_STOP = 10.0
# A job elsewhere looks every ten seconds, file servers show it old contents for up to a minute, and a shape may take
# a while to finish.
SECONDS_TO_LEAVE = 300.0
SECONDS_BETWEEN_LOOKS = 1.0


def end(runs: Sequence[Path]) -> list[str]:
    """End all jobs of dead runs, given by their records, and wait until they have; returns lines to print.

    The records go, or stay as marks for jobs that may still come. Raises SystemExit where a job does not end, or
    where nobody can tell.
    """
    rows = {path: read(path) for path in runs}
    for path in runs:
        records.retire(path)
    stopped = stop_here()
    lines = [f"Stopped {stopped} jobs the last run left behind."] if stopped else []
    cancelled = sum(cancel_in_slurm(path, row["slurm"]) for path, row in rows.items() if row.get("slurm"))
    if cancelled:
        lines.append(f"Cancelled {cancelled} Slurm jobs the last run left behind.")
    wait_for_those_elsewhere({path.name for path, row in rows.items() if row.get("cluster")})
    return lines


def stop_here() -> int:
    """Tell jobs of this machine to stop, and wait until they have; gives how many they were."""
    seen = [path for path in JOBS.glob("*.json") if state(path) != ELSEWHERE]
    alive = [read(path) for path in seen if state(path) == ALIVE]
    found = len(alive)
    for number, seconds in ((signal.SIGTERM, SECONDS_TO_STOP), (signal.SIGKILL, 1.0)):
        for row in alive:
            with suppress(ProcessLookupError):
                os.kill(row["pid"], number)
        deadline = time.monotonic() + seconds
        while alive and time.monotonic() < deadline:
            time.sleep(0.05)
            alive = [row for row in alive if start_time(row["pid"]) == row["start"]]
    for path in seen:
        path.unlink(missing_ok=True)
    return found


def cancel_in_slurm(run: Path, jobs: Mapping[str, Any]) -> int:
    """Take the jobs of a run out of Slurm's queue and wait until they are gone; gives how many they were."""
    try:
        found = slurm.cancel(**jobs)
    except slurm.JobsStay as left:
        raise SystemExit(
            f"Jobs of the last run here are still in Slurm's queue {slurm.SECONDS_TO_CANCEL:.0f} s after they were "
            f"cancelled: {left}.\nThey may still write into this folder, so nothing is started beside them. A job that "
            f"stays COMPLETING is on a node that does not answer; administrators can free it.\n"
            f"Look with:  squeue --name={jobs['name']}\nand start again when it shows none."
        ) from None
    except slurm.SlurmError as problem:
        raise SystemExit(
            f"The last run here gave jobs to Slurm, and nobody can say whether they still work: {problem}.\n"
            f"Start again on a machine that Slurm answers. If you know that none of them is left, type:  rm {run}\n"
            f"and start again."
        ) from None
    records.add(run, slurm=None)
    for path in jobs_of({run.name}):
        path.unlink(missing_ok=True)
    return found


def jobs_of(runs: Collection[str]) -> list[Path]:
    """Records of jobs elsewhere that belong to some runs, named by their records, and give signs of life."""
    return [path for path in sorted(JOBS.glob("*.json")) if read(path).get("run") in runs and state(path) == ELSEWHERE]


def wait_for_those_elsewhere(runs: Collection[str]) -> None:
    """Jobs on other machines leave when they find their run marked as over; other queues than Slurm are not asked."""
    left = jobs_of(runs)
    if left:
        print(f"{len(left)} jobs of the last run still work on {_hosts(left)}; waiting for them.", file=sys.stderr)
    deadline = time.monotonic() + SECONDS_TO_LEAVE
    while left:
        if time.monotonic() > deadline:
            raise SystemExit(
                f"{len(left)} jobs of the last run here still work on {_hosts(left)}, {SECONDS_TO_LEAVE:.0f} s after "
                f"they were told to leave.\nThey write into this folder, so nothing is started beside them. Cancel "
                f"them in your queue.\n"
                f"If you know that they are over, type:  rm {' '.join(map(str, left))}\nand start again."
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)
        left = jobs_of(runs)


def _hosts(paths: Sequence[Path]) -> str:
    return ", ".join(sorted({read(path).get("host", "another machine") for path in paths}))
