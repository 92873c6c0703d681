"""Who a process is, told so that another one can see later whether it is still alive.

Host name and process number do not say it: numbers come round, containers share host names, and a machine that was
started again keeps its name. Two processes can see each other where the start of the kernel (boot) and the PID
namespace agree, and are the same one where number and start time agree too.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BOOT = Path("/proc/sys/kernel/random/boot_id")
MACHINE = Path("/etc/machine-id")
# Linux gives the machine's own PID namespace this inode number (include/linux/proc_ns.h); containers have others.
OWN_NAMESPACE_OF_A_MACHINE = 0xEFFFFFFC
ALIVE, DEAD, ELSEWHERE = "alive", "dead", "another host"


def start_time(pid: int) -> str | None:
    """When a process that can be seen from here started, as the kernel counts it; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def boot_id() -> str | None:
    """The kernel's name for its present life: another one after each start of the machine."""
    return _line(BOOT)


def machine_id() -> str | None:
    """The name that an installed system keeps over its starts; None where there is none yet."""
    found = _line(MACHINE)
    return None if found in ("", "uninitialized") else found


def pid_namespace() -> int | None:
    """The number of the namespace in which this process sees others."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None


def _line(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def identity() -> dict[str, Any]:
    """What a record tells of the process that writes it."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "start": start_time(os.getpid()),
        "boot": boot_id(),
        "pid_namespace": pid_namespace(),
        "machine": machine_id(),
    }


def place() -> str:
    """Eight hex digits that the processes of one host name share which can see each other."""
    return hashlib.blake2b(f"{boot_id()} {pid_namespace()}".encode(), digest_size=4).hexdigest()


def state(row: Mapping[str, Any]) -> str:
    """Whether the process of an `identity` is ALIVE or DEAD, or ELSEWHERE: where this one cannot see it.

    Raises KeyError or TypeError for what is no identity.
    """
    pid, start = row["pid"], row["start"]
    if _seen_from_here(row):
        return ALIVE if start_time(pid) == start else DEAD
    return DEAD if _ended_with_its_machine(row) else ELSEWHERE


def _seen_from_here(row: Mapping[str, Any]) -> bool:
    there = (row.get("boot"), row.get("pid_namespace"))
    here = (boot_id(), pid_namespace())
    if None in there or None in here:
        return row["host"] == socket.gethostname()
    return there == here


def _ended_with_its_machine(row: Mapping[str, Any]) -> bool:
    """This machine was started again since. Containers share the machine-id of their image, so theirs says nothing."""
    namespaces = {row.get("pid_namespace"), pid_namespace()}
    if namespaces != {OWN_NAMESPACE_OF_A_MACHINE} or row["host"] != socket.gethostname():
        return False
    return row.get("boot") != boot_id() and machine_id() is not None and row.get("machine") == machine_id()
