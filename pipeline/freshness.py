"""Which outputs are due: made under other settings or code, from other inputs, or no longer what they were.

One pass over all jobs of the workflow, when a run or a dry run starts. It reads receipts and compares digests; a file
is read again only where its size, times or inode differ from when it was last checked (`Checked`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import files, receipts
from pipeline.receipts import Receipt

# A file that changed again within one tick of the clock would look unchanged: only older ones are remembered.
SECONDS_UNTIL_SETTLED = 2.0
EXAMPLES = 6


@dataclass(frozen=True)
class Job:
    """One job of the workflow: its rule, what it makes, what it reads, and the fingerprint it would work under."""

    rule: str
    outputs: Sequence[str]
    inputs: Sequence[str]
    fingerprint: str


class Checked:
    """Content digests of files, remembered from run to run with the marks by which a file is known to be the same.

    path: the file of this memory, which may be missing or damaged: then every file is read once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = self._remembered()
        self._seen: dict[str, str | None] = {}
        self._marks: dict[str, list[int | str]] = {}
        self._started = time.time()

    def _remembered(self) -> dict[str, list[int | str]]:
        try:
            value = files.read_sealed(self._path)
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def digest(self, path: str) -> str | None:
        """The content digest of a file; None where there is none."""
        if path not in self._seen:
            self._seen[path] = self._look(path)
        return self._seen[path]

    def _look(self, path: str) -> str | None:
        try:
            about = os.stat(path)
        except OSError:
            return None
        marks = [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
        *known_marks, known_digest = self._known.get(path, [None])
        digest = str(known_digest) if known_marks == marks else files.digest_of_file(Path(path))
        if max(about.st_mtime, about.st_ctime) < self._started - SECONDS_UNTIL_SETTLED:
            self._marks[path] = [*marks, digest]
        return digest

    def save(self) -> None:
        """Remember what was looked at; files that were not are forgotten."""
        if self._marks != self._known:
            files.write_sealed(self._path, self._marks)


@dataclass
class Due:
    """outputs: of all jobs that are due. reasons: reason → rule → first outputs, in the order they were found."""

    outputs: list[str] = field(default_factory=list)
    reasons: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def add(self, job: Job, reason: str) -> None:
        self.outputs += job.outputs
        self.reasons.setdefault(reason, {}).setdefault(job.rule, []).append(job.outputs[0])

    def lines(self) -> list[str]:
        """What is made again and why, a line for each rule and reason."""
        lines = []
        for reason, rules in self.reasons.items():
            for rule, outputs in rules.items():
                more = f" and {len(outputs) - 1} more" if len(outputs) > 1 else ""
                lines.append(f"Due: {rule} ({outputs[0]}{more}): {reason}")
        if len(lines) > EXAMPLES:
            return [*lines[:EXAMPLES], f"… and {len(lines) - EXAMPLES} more reasons of this kind"]
        return lines


def find_due(jobs: Iterable[Job], results: Path, limits: Mapping[str, float], checked: Checked) -> Due:
    """The jobs whose outputs are there but not current.

    limits: those that shapes have now; shapes that ran into smaller ones are tried again.
    """
    due = Due()
    for job in jobs:
        there = [path for path in job.outputs if os.path.exists(path)]
        if there:  # what is not there at all Snakemake makes where it is needed
            reason = _reason(job, results, limits, checked)
            if reason is not None:
                due.add(job, reason)
    return due


def _reason(job: Job, results: Path, limits: Mapping[str, float], checked: Checked) -> str | None:
    """Why the outputs of a job are not current; None where they are."""
    missing = [path for path in job.outputs if not os.path.exists(path)]
    if missing:
        return f"{Path(missing[0]).name} is missing"
    try:
        receipt = receipts.read(receipts.path_of(results, job.outputs[0]))
    except OSError:
        return "nothing says how it was made"
    except ValueError:
        return "its receipt is damaged"
    if receipt.fingerprint != job.fingerprint:
        return "its settings or its code have changed"
    return _changed_files(job, receipt, checked) or _wider_limits(receipt, limits)


def _changed_files(job: Job, receipt: Receipt, checked: Checked) -> str | None:
    if set(receipt.made) != set(job.outputs):
        return "its receipt speaks of other files"
    if any(checked.digest(path) != digest for path, digest in receipt.made.items()):
        return "it is not as it was made (changed by hand, damaged or replaced)"
    if set(receipt.read) != set(job.inputs):
        return "it was made from other inputs"
    if any(checked.digest(path) != digest for path, digest in receipt.read.items()):
        return "an input has changed since"
    return None


def _wider_limits(receipt: Receipt, limits: Mapping[str, float]) -> str | None:
    for name, reached in receipt.limits.items():
        if limits.get(name, reached) > reached:
            return f"limits.{name} was raised, and a shape had run into it"
    return None
