"""What the machine gives a job, and the words for what it refuses: memory, disks, permissions, processes."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
UNLIMITED_MB = 2**40  # version 1 of cgroups says "no limit" by a number of bytes near 2**63


@dataclass(frozen=True)
class Memory:
    """What a job may use in all. source: who says so, as the end of "… MB, …"."""

    mb: float
    source: str

    def __str__(self) -> str:
        return f"{self.mb:,.0f} MB, {self.source}"


def memory_of_job(asked_mb: float | None = None) -> Memory:
    """The least of what the job's rule asked for, what its control groups allow and what the machine has.

    asked_mb: `mem_mb` of the rule, None where the job was not started by one.
    """
    limits = [Memory(_machine_mb(), "all that this machine has")]
    limits += [Memory(mb, "the limit of its control group (cgroup)") for mb in _cgroup_limits_mb()]
    if asked_mb:
        limits.append(Memory(asked_mb, "the mem_mb of its rule"))
    return min(limits, key=lambda limit: limit.mb)


def _machine_mb() -> float:
    lines = (PROC / "meminfo").read_text().splitlines()
    total = next(line for line in lines if line.startswith("MemTotal:"))
    return int(total.split()[1]) / 1024


def _cgroup_limits_mb() -> Iterator[float]:
    """The memory limits of this process's control groups and of those round them, of both versions."""
    for file in _limit_files():
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < UNLIMITED_MB * 2**20:
            yield int(text) / 2**20


def _limit_files() -> Iterator[Path]:
    """Where the limits may stand: in the group's folder and in every one above, up to where the groups are mounted."""
    groups = _memory_groups()
    for version, root, mount in _memory_mounts():
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        yield mount / name
        group = groups.get(version)
        if group is None:
            continue
        # In a container the mount may show only the container's own part of the groups, named by `root`.
        inside = group.relative_to(root) if group.is_relative_to(root) else group.relative_to("/")
        for folder in (inside, *inside.parents):
            yield mount / folder / name


def _memory_groups() -> dict[int, Path]:
    """Version of the control groups → this process's group for memory (/proc/self/cgroup)."""
    groups: dict[int, Path] = {}
    for line in _lines(PROC / "self" / "cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            groups[2] = Path(path)
        elif "memory" in controllers.split(","):
            groups[1] = Path(path)
    return groups


def _memory_mounts() -> Iterator[tuple[int, Path, Path]]:
    """(version, which part of the groups, where it is mounted), as /proc/self/mountinfo tells."""
    for line in _lines(PROC / "self" / "mountinfo"):
        about, _, system = line.partition(" - ")
        kind, _, options = system.split(" ", 2)
        root, mount = about.split(" ")[3:5]
        if kind == "cgroup2":
            yield 2, Path(root), Path(mount)
        elif kind == "cgroup" and "memory" in options.split(" ")[-1].split(","):
            yield 1, Path(root), Path(mount)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


SAME_COMMAND = "What is finished is kept; then type the same command again."


def explained(problem: OSError) -> str | None:
    """What the machine refused and what to do, or None where it is another kind of failure."""
    where = problem.filename or "a file"
    match problem.errno:
        case errno.ENOSPC:
            return (
                f"{where} could not be written: no space is left on its disk{_space_left(problem.filename)}.\n"
                f"Make room there, or move the folder to another disk and put a link in its place. {SAME_COMMAND}"
            )
        case errno.EDQUOT:
            return (
                f"{where} could not be written: your quota on its disk is used up.\n"
                f"Make room there, or ask for more. {SAME_COMMAND}"
            )
        case errno.EROFS | errno.EACCES | errno.EPERM:
            why = "its file system is read-only" if problem.errno == errno.EROFS else "permission denied"
            return (
                f"{where}: {why}.\nThe store (store.path), results/, logs/ and .isomill/ are written to; a store that "
                f"is only to be read from is named in store.shared instead. {SAME_COMMAND}"
            )
        case errno.EMFILE | errno.ENFILE:
            return f"{where} could not be opened: too many files are open (see `ulimit -n`). {SAME_COMMAND}"
        case errno.EIO | errno.ESTALE | errno.ENOTCONN | errno.EREMOTEIO:
            return f"{where}: its disk or network gave an error ({problem.strerror}). {SAME_COMMAND}"
        case errno.EAGAIN | errno.ENOMEM:
            return f"the machine refused a process or its memory ({problem.strerror}). {SAME_COMMAND}"
    return None


def _space_left(path: str | None) -> str:
    """How much is left of a disk, as words to put behind it."""
    folder = Path(path or os.curdir).absolute()
    try:
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        usage = shutil.disk_usage(existing)
    except OSError:
        return ""
    return f" ({usage.free / 2**20:,.0f} of {usage.total / 2**20:,.0f} MB are free)"
