"""Who is alive, whose lock is stale, which jobs were left behind, and which command lines run jobs at all."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import runs
from pipeline.config import ROOT
from pipeline.runs import JOBS, LOCKS, NOT_A_RUN, RUN_VARIABLE, RUNS, command_line

HOST = socket.gethostname()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(RUN_VARIABLE, "")
    return tmp_path


# --- command lines


def switches() -> dict[str, list[str]]:
    """Switch → the words that give it, for all switches that run no job."""
    from snakemake.cli import get_argument_parser

    actions = {action.dest: action for action in get_argument_parser()._actions}
    assert set(NOT_A_RUN) <= set(actions), "a switch that this Snakemake does not know"
    words = {}
    for name in NOT_A_RUN:
        action = actions[name]
        value = [] if action.nargs in (0, "?") else ["code"] if name == "list_changes" else ["x"]
        words[name] = [action.option_strings[0], *value]
    return words


@pytest.mark.parametrize("name", NOT_A_RUN)
def test_a_switch_that_runs_no_job_is_no_real_run(name):
    command = command_line(["--cores", "2", *switches()[name], "--"])
    assert command.main and not command.real


# Of the groups of switches that print, check or repair, these alone go with a run.
GO_WITH_A_RUN = {"report_after_run", "report_stylesheet", "report_metadata", "notebook_listen"}
GO_WITH_A_RUN |= {"skip_script_cleanup", "keep_incomplete", "drop_metadata", "version"}


def test_no_switch_of_this_snakemake_is_forgotten():
    from snakemake.cli import get_argument_parser

    groups = {group.title: group._group_actions for group in get_argument_parser()._action_groups}
    known = {action.dest for title in ("UTILITIES", "NOTEBOOKS", "REPORTS") for action in groups[title]}
    assert len(known) > 20
    assert known - set(NOT_A_RUN) == GO_WITH_A_RUN


@pytest.mark.parametrize("word", ["-n", "--dry-run", "--dryrun", "-nq", "-S", "-D", "-t", "-l"])
def test_short_and_other_spellings_are_known(word):
    assert not command_line(["--cores", "2", word]).real


@pytest.mark.parametrize(
    "words",
    [
        ["--cores", "2"],
        ["-c1", "eval_all"],
        ["-F", "--cores", "1", "--rerun-incomplete"],
        ["--cores", "1", "--keep-going", "--quiet"],
        ["--cores", "1", "--configfile", "a.yaml", "b.yaml", "--", "eval_all"],
        ["--cores", "1", "--report", "report.html", "--report-after-run"],
        ["--cores", "1", "--reporter", "html", "--report-after-run"],
        ["--cores", "1", "--use-conda"],
        ["--executor", "slurm", "--jobs", "4"],
        ["--cores", "1", "--until", "list_shapes"],
    ],
)
def test_other_command_lines_are_real_runs(words):
    command = command_line(words)
    assert command.main and command.real


@pytest.mark.parametrize("mode", ["subprocess", "remote"])
def test_a_job_of_a_run_is_neither_main_nor_real(mode):
    command = command_line(["--mode", mode, "--cores", "1", "--target-jobs", "list_shapes:"])
    assert not command.main and not command.real and not command.gpus_unset


def test_a_command_line_that_snakemake_refuses_runs_nothing(capsys):
    assert command_line(["--no-such-switch"]) == runs.Command(False, False, False)


def profile(path: Path, text: str) -> None:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(text)


def test_a_profile_is_part_of_the_command_line(folder):
    profile(folder / "dry", "dry-run: true\ncores: 2\n")
    profile(folder / "wet", "cores: 2\n")
    assert not command_line(["--profile", "dry"]).real
    assert command_line(["--profile", "wet"]).real
    assert not command_line(["--profile", "wet", "-n"]).real


def test_the_default_profile_of_the_workflow_is_found(folder):
    (folder / "Snakefile").touch()
    profile(folder / "profiles" / "default", "dry-run: true\n")
    assert not command_line(["--cores", "1"]).real
    assert command_line(["--cores", "1", "--workflow-profile", "none"]).real


def test_gpus_are_counted_unless_somebody_said_how_many(folder):
    assert command_line(["--cores", "1"]).gpus_unset
    assert not command_line(["--cores", "1", "--resources", "gpu=1"]).gpus_unset
    assert not command_line(["--cores", "1", "--resources", "gpu=0", "mem_mb=100"]).gpus_unset
    assert command_line(["--cores", "1", "--resources", "mem_mb=100"]).gpus_unset
    assert not command_line(["--jobs", "4", "--executor", "slurm"]).gpus_unset
    profile(folder / "cards", "resources: [gpu=2]\ncores: 1\n")
    assert not command_line(["--profile", "cards"]).gpus_unset


# --- records


def write_record(folder: Path, pid: int, start: str | None, host: str = HOST) -> Path:
    path = folder / f"{host}-{pid}-{start}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": host, "pid": pid, "start": start, "command": ["snakemake"]}))
    return path


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def start():
    """Start Python programs that end with the test; each says "ready" when it may be looked at."""
    children = []

    def begin(program: str, **environment: str) -> subprocess.Popen:
        child = subprocess.Popen(
            [sys.executable, "-c", f"import time\nfrom pathlib import Path\nfrom pipeline import runs\n{program}"],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        assert child.stdout.readline() == "ready\n"
        return child

    yield begin
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


READY = "print('ready', flush=True)\ntime.sleep(60)"
RUN = f"runs.record(runs.RUNS)\n{READY}"
JOB = f"runs.record(runs.JOBS)\n{READY}"


def test_this_process_is_alive():
    assert runs.state(runs.record(RUNS)) == "alive"


def test_a_process_that_ended_is_dead(dead_pid):
    assert runs.state(write_record(RUNS, dead_pid, "12345")) == "dead"


def test_another_process_with_the_same_number_is_not_the_one_recorded():
    """Process numbers come round; the start time tells two of them apart."""
    own = runs.start_time(os.getpid())
    assert runs.state(write_record(RUNS, os.getpid(), str(int(own) - 1))) == "dead"
    assert runs.state(write_record(RUNS, os.getpid(), own)) == "alive"


def test_a_process_elsewhere_cannot_be_seen(dead_pid):
    assert runs.state(write_record(RUNS, dead_pid, "1", host="elsewhere")) == "another host"


@pytest.mark.parametrize("text", ["", '{"host": "x', "{}", "[]", "null", "7", '{"host": "x"}', "\x00\x00"])
def test_a_record_that_cannot_be_read_is_of_nobody_alive(text):
    RUNS.mkdir(parents=True)
    path = RUNS / "broken.json"
    path.write_text(text)
    assert runs.state(path) == "dead"
    assert runs.state(RUNS / "gone.json") == "dead"


def test_a_killed_process_that_nobody_waited_for_is_dead(start):
    child = start(RUN)
    (path,) = RUNS.glob("*.json")
    assert runs.state(path) == "alive"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    assert runs.start_time(child.pid) is None
    assert runs.state(path) == "dead"


def test_a_program_with_blanks_and_brackets_in_its_name_is_read(folder):
    program = folder / "a) b (c"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([program, "60"])
    try:
        assert runs.start_time(child.pid).isdigit()
        assert abs(int(runs.start_time(child.pid)) - int(runs.start_time(os.getpid()))) < 100 * 3600 * 24
    finally:
        child.kill()
        child.wait()


# --- locks


def lock() -> Path:
    LOCKS.mkdir(parents=True)
    path = LOCKS / "0.output.lock"
    path.write_text("results/demo/report/index.html\n")
    return path


def test_a_clean_directory_needs_nothing():
    assert runs.begin() == []
    (own,) = RUNS.glob("*.json")
    assert own.name == runs.own_name() and os.environ[RUN_VARIABLE] == str(own.resolve())
    assert runs.alone()


def test_the_lock_of_a_dead_run_is_removed_with_one_line(dead_pid):
    path, record = lock(), write_record(RUNS, dead_pid, "12345")
    lines = runs.begin()
    assert lines == ["The last run here was killed; its lock is removed and its work is taken up again."]
    assert not path.exists() and not record.exists()
    assert [p.name for p in RUNS.glob("*.json")] == [runs.own_name()]


def test_the_lock_of_a_run_whose_number_was_given_away_is_removed():
    path = lock()
    write_record(RUNS, os.getpid(), "1")
    assert len(runs.begin()) == 1
    assert not path.exists()


def test_the_lock_of_a_run_whose_record_is_garbage_is_removed():
    path = lock()
    RUNS.mkdir(parents=True)
    (RUNS / "broken.json").write_text('{"host"')
    assert len(runs.begin()) == 1
    assert not path.exists() and not (RUNS / "broken.json").exists()


def test_the_lock_of_a_live_run_is_left_alone(start, dead_pid):
    start(RUN)
    path, dead = lock(), write_record(RUNS, dead_pid, "12345")
    assert runs.begin() == []
    assert path.exists() and dead.exists()
    assert not runs.alone()


def test_a_lock_that_may_belong_to_another_machine_says_what_to_type(folder, dead_pid):
    (folder / "Snakefile").touch()
    path, record = lock(), write_record(RUNS, dead_pid, "12345", host="login-2")
    with pytest.raises(SystemExit) as refused:
        runs.begin()
    assert refused.value.code == (
        "This directory is locked by a run on login-2, which this machine cannot see.\n"
        f"If it is over, type:  rm {record} && snakemake --unlock\nand start again."
    )
    assert path.exists() and record.exists() and len(list(RUNS.glob("*.json"))) == 1


def test_after_the_command_that_was_told_the_run_starts(dead_pid):
    path, record = lock(), write_record(RUNS, dead_pid, "12345", host="login-2")
    with pytest.raises(SystemExit):
        runs.begin()
    record.unlink()
    path.unlink()
    assert runs.begin() == []
    assert runs.alone()


def test_a_lock_without_a_record_is_explained_and_kept():
    path = lock()
    with pytest.raises(SystemExit, match=r"did not write down by whom(.|\n)*snakemake --unlock"):
        runs.begin()
    assert path.exists() and not list(RUNS.glob("*.json"))


def test_a_run_elsewhere_that_holds_no_lock_is_over(dead_pid):
    """Containers have a new host name each time: what they leave must not stop the next one from working."""
    write_record(RUNS, dead_pid, "12345", host="container-1")
    assert runs.begin() == []
    assert runs.alone()
    path = lock()
    (RUNS / runs.own_name()).unlink()
    write_record(RUNS, dead_pid, "99999")
    assert len(runs.begin()) == 1
    assert not path.exists()


def test_a_run_that_ends_by_itself_leaves_no_record():
    program = "from pipeline import runs; runs.begin(); print(*[p.name for p in runs.RUNS.glob('*.json')])"
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert printed.startswith(f"{HOST}-")
    assert list(RUNS.glob("*.json")) == []


# --- jobs that were left behind


def test_jobs_of_a_dead_run_are_stopped(start, dead_pid):
    write_record(RUNS, dead_pid, "12345")
    job = start(JOB)
    assert runs.begin() == ["Stopped 1 jobs the last run left behind."]
    assert job.wait(timeout=5) == -signal.SIGTERM
    assert list(JOBS.glob("*.json")) == []


def test_a_job_that_does_not_listen_is_killed(start, dead_pid, monkeypatch):
    monkeypatch.setattr(runs, "SECONDS_TO_STOP", 0.3)
    write_record(RUNS, dead_pid, "12345")
    job = start(f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{JOB}")
    runs.begin()
    assert job.wait(timeout=5) == -signal.SIGKILL


def test_jobs_of_a_live_run_are_left_alone(start):
    start(RUN)
    job = start(JOB)
    assert runs.begin() == []
    time.sleep(0.2)
    assert job.poll() is None and len(list(JOBS.glob("*.json"))) == 1


def test_jobs_on_other_machines_and_numbers_given_away_are_not_touched(dead_pid):
    own = runs.start_time(os.getpid())
    elsewhere = write_record(JOBS, dead_pid, "1", host="node-7")
    reused = write_record(JOBS, os.getpid(), str(int(own) - 1))
    write_record(JOBS, dead_pid, "12345")
    assert runs.begin() == []
    assert elsewhere.exists() and not reused.exists()


WATCHED = f"runs.SECONDS_BETWEEN_LOOKS = 0.05\nruns.watch_run()\n{READY}"


def test_a_job_stops_when_its_run_dies(start, folder):
    run = start(RUN)
    (record,) = RUNS.glob("*.json")
    job = start(WATCHED, **{RUN_VARIABLE: str(record.resolve())})
    time.sleep(0.3)
    assert job.poll() is None and len(list(JOBS.glob("*.json"))) == 1
    run.kill()
    assert job.wait(timeout=5) == -signal.SIGTERM


def test_a_job_on_another_machine_than_its_run_goes_on(start, dead_pid):
    """There its run cannot be seen, and may have ended after it handed out its jobs."""
    record = write_record(RUNS, dead_pid, "1", host="login-2").resolve()
    for path in (record, record.with_name("login-2-77-88.json")):
        job = start(WATCHED, **{RUN_VARIABLE: str(path)})
        time.sleep(0.3)
        assert job.poll() is None and not JOBS.exists()


def test_a_job_started_by_hand_is_not_watched():
    runs.watch_run()
    assert not JOBS.exists()


def test_a_job_that_ends_takes_its_record_away(start):
    record = runs.record(RUNS).resolve()
    job = start("runs.watch_run()\nprint('ready', flush=True)", **{RUN_VARIABLE: str(record)})
    assert job.wait(timeout=5) == 0
    assert list(JOBS.glob("*.json")) == []
