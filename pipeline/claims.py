"""One job at a time writes a state: claims that hold between processes and machines, on network file systems too.

A claim is a file that names its owner as `pipeline.runs` records a process. It appears whole or not at all, by a hard
link, which fails where the name is taken (no locks of the operating system, which network file systems may not keep).
The owner touches it every few seconds. The claim of a dead owner is taken over: at once where this machine sees that
the process is gone, else when it has not been touched for minutes, by the file system's own clock. An owner that was
taken for dead, because it was suspended, finds out before it writes again.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline import files, runs

SECONDS_BETWEEN_SIGNS = 20.0
SECONDS_UNTIL_STALE = 300.0


class Claim:
    """The claim of this process on what it says. `check` is called before anything claimed is written."""

    def __init__(self, path: Path, what: str, content: bytes) -> None:
        self._path, self._what, self._content = path, what, content
        self._over = threading.Event()

    def check(self) -> None:
        """Raises SystemExit where this process no longer owns the claim."""
        found = _content(self._path)
        if found == self._content:
            return
        if found is None:
            raise SystemExit(
                f"{self._path} is gone, which said that this job works on {self._what}: somebody removed it. The job "
                f"stops, since another may have begun; the same command goes on from the last saved state."
            )
        raise SystemExit(
            f"another job, {_owner(_named(self._path))}, works on {self._what} now: this one was held up "
            f"for so long (suspended, perhaps) that it was taken for dead. It stops, having written nothing since."
        )

    def sign(self) -> None:
        """Show that the owner is alive."""
        with suppress(OSError):  # the next sign may succeed; what counts is the check before a write
            if _content(self._path) == self._content:
                os.utime(self._path)

    def keep_signing(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN_SIGNS):
            self.sign()

    def release(self) -> None:
        self._over.set()
        if _content(self._path) == self._content:
            self._path.unlink(missing_ok=True)


@contextmanager
def held(path: Path, what: str) -> Iterator[Claim]:
    """Own the claim at `path` for a while. what: is claimed, for messages, such as "the training of onet".

    Raises SystemExit where another process that may be alive owns it, saying who and what to do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = files.temporary_name(path.parent)
    try:
        record = runs.record(scratch)
        _take(path, record, what)
        claim = Claim(path, what, record.read_bytes())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    threading.Thread(target=claim.keep_signing, daemon=True).start()
    try:
        yield claim
    finally:
        claim.release()


def _take(path: Path, record: Path, what: str) -> None:
    """Make `path` the claim of the process that `record` names. Raises SystemExit where it may be a living other's."""
    while not _linked(record, path):
        found = _content(path)
        if found is None:
            continue  # released this moment
        _require_dead(path, record, what)
        # Of several that see the same dead claim one may replace it: who owns the claim on that. It is moved into the
        # dead one's place, so that the two disappear together.
        right = path.with_name(f"{path.name}.next")
        _take(right, record, what)
        if _content(path) == found:
            os.replace(right, path)
            return
        right.unlink()


def _linked(record: Path, path: Path) -> bool:
    """Give the record the name `path` as well; False where the name is taken."""
    try:
        os.link(record, path)
    except FileExistsError:
        # A network file system may say so of a link that it has just made.
        return _same_file(record, path)
    except OSError:
        return _created(path, record.read_bytes())  # no hard links here
    return True


def _same_file(record: Path, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samefile(record, path)
    return False


def _created(path: Path, content: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    with open(descriptor, "wb") as stream:
        stream.write(content)
    return True


def _require_dead(path: Path, record: Path, what: str) -> None:
    """Raises SystemExit unless the owner of a claim is dead."""
    row = _named(path)
    where = runs.state(path) if row else "another host"  # of whom nothing is known, signs of life decide
    if where == "dead":
        return
    if where == "alive":
        raise SystemExit(
            f"{_owner(row)} works on {what} at this moment; two jobs would spoil each other's state.\n"
            f"Wait until it has ended, or end it (kill {row['pid']}); then the same command goes on."
        )
    try:
        age = record.stat().st_mtime - path.stat().st_mtime  # both by the file system's clock
    except FileNotFoundError:
        return  # released this moment
    if age >= SECONDS_UNTIL_STALE:
        return
    minutes = math.ceil((SECONDS_UNTIL_STALE - age) / 60)
    raise SystemExit(
        f"{_owner(row)} works on {what}: its last sign of life is {max(age, 0):.0f} s old, and this machine cannot see "
        f"whether it still runs.\nWait until it has ended; should it be dead, the same command takes over in {minutes} "
        f"minutes.\nIf you know that it is over, type:  rm {shlex.quote(str(path))}\nand start again."
    )


def _owner(row: dict | None) -> str:
    return f"process {row['pid']} of {row['host']}" if row else "a process whose record cannot be read"


def _named(path: Path) -> dict | None:
    """The record in a claim; None where it cannot be read, being damaged or written this moment."""
    try:
        row = files.read_json(path)
        return row if {"host", "pid"} <= row.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
