"""Slurm's queue as this workflow needs it: which jobs a run has in it, and taking them out.

Snakemake's executor gives all jobs of one run the run's own random name (snakemake-executor-plugin-slurm, `run_uuid`)
and writes the rule into the comment, so that a name finds exactly one run's jobs.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

SECONDS_TO_ANSWER = 60.0
# Slurm waits KillWait (30 s) between SIGTERM and SIGKILL, and an epilog may follow.
SECONDS_TO_CANCEL = 300.0
SECONDS_BETWEEN_LOOKS = 1.0
COMPLETING = "COMPLETING"


class SlurmError(RuntimeError):
    """Slurm cannot be asked; the message says why."""


class JobsStay(RuntimeError):
    """Jobs are still in the queue long after they were cancelled; the message lists them."""


@dataclass(frozen=True)
class Job:
    """One line of the queue. number: Slurm's, "12" or "12_3". state: as Slurm spells it."""

    number: str
    state: str
    comment: str

    def __str__(self) -> str:
        work = self.comment.removeprefix("rule_").replace("_wildcards_", " ")
        return f"{self.number} ({self.state}, {work})"


def jobs_of(name: str, clusters: Sequence[str] = ()) -> list[Job]:
    """The jobs of this user that carry a run's name and are not over yet. Raises SlurmError where Slurm cannot say."""
    lines = ask("squeue", "--noheader", "--array", "--format=%i|%T|%k", *_which(name, clusters)).splitlines()
    rows = [line.split("|", 2) for line in lines]  # other lines name the cluster whose jobs follow
    return [Job(*(word.strip() for word in row)) for row in rows if len(row) == 3]


def cancel(name: str, clusters: Sequence[str] = ()) -> int:
    """Take a run's jobs out of the queue and wait until none is left; gives how many had to be cancelled.

    Raises SlurmError where Slurm cannot be asked, and JobsStay after SECONDS_TO_CANCEL.
    """
    left = jobs_of(name, clusters)
    cancelled: set[str] = set()
    refusal = ""
    deadline = time.monotonic() + SECONDS_TO_CANCEL
    while left:
        if time.monotonic() > deadline:
            raise JobsStay(", ".join(map(str, left)) + refusal)
        # Again at each look: the last submission of a run that was killed may arrive late.
        at_work = {job.number for job in left if job.state != COMPLETING}
        cancelled |= at_work
        if at_work:
            try:
                ask("scancel", *_which(name, clusters))
            except SlurmError as problem:  # as for a job that ended in between; what counts is the queue
                refusal = f"; {problem}"
        time.sleep(SECONDS_BETWEEN_LOOKS)
        left = jobs_of(name, clusters)
    return len(cancelled)


def _which(name: str, clusters: Sequence[str]) -> list[str]:
    """Switches of squeue and scancel that leave only one run's jobs."""
    found = [f"--user={os.getuid()}", f"--name={name}"]
    return [*found, f"--clusters={','.join(clusters)}"] if clusters else found


def ask(*command: str) -> str:
    """What a Slurm command prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER)
    except FileNotFoundError:
        raise SlurmError(f"there is no {command[0]} on this machine") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} has not answered for {SECONDS_TO_ANSWER:.0f} s") from None
    if done.returncode:
        raise SlurmError(f"{command[0]} fails: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout
