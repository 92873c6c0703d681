"""What a job may use of its machine, and how it tells what the machine refuses."""

from __future__ import annotations

import argparse
import errno
import mmap
import os
from pathlib import Path

import pytest

from pipeline import files
from pipeline.jobs import at_work, machine
from pipeline.jobs.context import run_job
from pipeline.jobs.machine import Memory, explained, memory_of_job
from pipeline.jobs.pool import divided
from pipeline.jobs.work import Limits
from pipeline.progress import LOG

MB = 2**20


@pytest.fixture(autouse=True)
def own_log(monkeypatch):
    """The log that a job starts ends with its test."""
    monkeypatch.setattr(LOG, "propagate", LOG.propagate)
    monkeypatch.setattr(LOG, "level", LOG.level)
    yield
    LOG.handlers.clear()


@pytest.fixture
def proc(tmp_path, monkeypatch) -> Path:
    """A machine of 16,000 MB without control groups."""
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "meminfo").write_text(f"MemTotal: {16000 * 1024} kB\nMemFree: 5 kB\n")
    monkeypatch.setattr(machine, "PROC", folder)
    return folder


def groups(proc: Path, mount: Path, group: str, kind: str, root: str = "/") -> None:
    controllers, options = ("", "rw") if kind == "cgroup2" else ("memory", "rw,memory")
    (proc / "self" / "cgroup").write_text(f"1:cpu:/elsewhere\n{0 if kind == 'cgroup2' else 7}:{controllers}:{group}\n")
    mounts = (
        "20 1 0:19 / /proc rw shared:5 - proc proc rw",
        f"30 1 0:26 {root} {mount} rw shared:9 - {kind} cgroup {options}",
    )
    (proc / "self" / "mountinfo").write_text("".join(f"{line}\n" for line in mounts))


def limit(folder: Path, name: str, value: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{value}\n")


def test_without_groups_the_machine_and_the_rule_decide(proc):
    assert memory_of_job() == Memory(16000, "all that this machine has")
    assert memory_of_job(8000) == Memory(8000, "the mem_mb of its rule")
    assert memory_of_job(99000).mb == 16000


def test_the_tightest_group_on_the_way_up_decides(proc, tmp_path):
    mount = tmp_path / "cgroup"
    groups(proc, mount, "/slurm/job_7/step_0", "cgroup2")
    limit(mount / "slurm/job_7/step_0", "memory.max", "max")
    limit(mount / "slurm/job_7", "memory.max", 3000 * MB)
    limit(mount / "slurm", "memory.max", 9000 * MB)
    assert memory_of_job(8000) == Memory(3000, "the limit of its control group (cgroup)")
    assert memory_of_job(2000).mb == 2000


def test_groups_of_version_1_say_that_there_is_no_limit_by_a_large_number(proc, tmp_path):
    mount = tmp_path / "memory"
    groups(proc, mount, "/docker/abc", "cgroup")
    limit(mount / "docker/abc", "memory.limit_in_bytes", 9223372036854771712)
    assert memory_of_job().mb == 16000
    limit(mount / "docker/abc", "memory.limit_in_bytes", 5000 * MB)
    assert memory_of_job().mb == 5000


@pytest.mark.parametrize("root", ["/docker/abc", "/"])
def test_a_container_sees_its_own_groups_only(proc, tmp_path, root):
    mount = tmp_path / "memory"
    groups(proc, mount, "/docker/abc", "cgroup", root)
    limit(mount, "memory.limit_in_bytes", 6000 * MB)
    assert memory_of_job().mb == 6000


def test_this_machine_has_memory():
    assert 100 < memory_of_job().mb < 2**27


@pytest.mark.parametrize(
    ("memory", "limit_mb", "threads", "expected"),
    [
        (16000, 4000, 4, (4, 4000)),  # what the rules ask for
        (24000, 4000, 4, (4, 4000)),
        (8000, 4000, 4, (4, 2000)),
        (6000, 4000, 4, (3, 2000)),
        (2000, 4000, 4, (1, 2000)),
        (16000, 16000, 4, (4, 4000)),
        (4000, 1000, 8, (4, 1000)),
        (100, 4000, 4, (1, 500)),
    ],
)
def test_as_many_workers_as_fit_each_with_its_share(memory, limit_mb, threads, expected):
    size, share = divided(Memory(memory, ""), Limits(1.0, limit_mb), threads)
    assert (size, share) == expected
    assert size * share <= max(memory, 500)


@pytest.mark.parametrize("gives", [True, False])
def test_the_machine_is_asked_whether_it_would_have_given_the_limit(monkeypatch, gives):
    class Refusing:
        def __init__(self, *_: object, **__: object) -> None:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    if not gives:
        monkeypatch.setattr(mmap, "mmap", Refusing)
    monkeypatch.setitem(at_work._WORKER, "limit", at_work._mapped() + 64 * MB)
    found = at_work._too_large(MemoryError("64 MB for an array"))
    assert found.granted == gives
    assert str(found) == "64 MB for an array"


WORDS = {
    errno.ENOSPC: "no space is left on its disk",
    errno.EDQUOT: "your quota on its disk is used up",
    errno.EROFS: "its file system is read-only",
    errno.EACCES: "permission denied",
    errno.EMFILE: "too many files are open",
    errno.EIO: "its disk or network gave an error",
}


@pytest.mark.parametrize("number", WORDS)
def test_what_the_machine_refuses_is_one_message_without_a_traceback(tmp_path, capfd, monkeypatch, number):
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    def body(_: argparse.Namespace) -> None:
        files.write_atomic(tmp_path / "store" / "voxels.bin", b"")

    monkeypatch.setattr(os, "fsync", full)
    assert run_job(argparse.Namespace(log=None), body) == 1
    told = capfd.readouterr().err
    assert f"{tmp_path / 'store' / 'voxels.bin'}" in told and WORDS[number] in told
    assert "type the same command again" in told
    assert "Traceback" not in told and "unexpected" not in told and "report" not in told
    assert list((tmp_path / "store").iterdir()) == []


def test_other_errors_of_the_system_stay_unexpected():
    assert explained(FileNotFoundError(errno.ENOENT, "No such file", "a")) is None


def test_a_log_that_cannot_be_written_is_told_as_well(tmp_path, capfd, monkeypatch):
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "logs"))

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert run_job(argparse.Namespace(log=tmp_path / "logs" / "job.log"), lambda _: None) == 1
    told = capfd.readouterr().err
    assert f"{tmp_path / 'logs'}: its file system is read-only" in told and "Traceback" not in told


def test_ctrl_c_in_a_job_is_one_line(capfd):
    def interrupted(_: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    assert run_job(argparse.Namespace(log=None), interrupted) == 130
    told = capfd.readouterr().err
    assert told == "stopped by Ctrl-C; what was finished is kept, and the same command goes on from here\n"
