"""Who is alive, whose lock is stale, which jobs were left behind, and which command lines run jobs at all."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline import files, leftovers, processes, records, runs
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


def write_record(folder: Path, pid: int, start: str | None, host: str = HOST, **facts) -> Path:
    path = folder / f"{host}-{pid}-{start}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": host, "pid": pid, "start": start, "command": ["snakemake"], **facts}))
    return path


MACHINES_OWN = 0xEFFFFFFC  # the PID namespace of a machine itself
CONTAINERS = 4026532178


def elsewhere(folder: Path, host: str = "login-2", silent: float = 0.0, **facts) -> Path:
    """The record of a process that this machine cannot see, `silent` seconds after its last sign of life."""
    place = {"boot": "another", "pid_namespace": MACHINES_OWN, "machine": "another", "sign": 60.0}
    path = write_record(folder, 4711, "12345", host, **{**place, **facts})
    time_of_sign = time.time() - silent
    os.utime(path, (time_of_sign, time_of_sign))
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


def here(**facts) -> dict:
    """Where this process is, with some facts that differ."""
    return {**processes.identity(), **facts}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({}, "alive", id="this process"),
        pytest.param({"host": "renamed"}, "alive", id="the host has got another name"),
        pytest.param({"start": "1"}, "dead", id="the number was given away"),
        pytest.param({"pid_namespace": CONTAINERS}, "another host", id="a container with the same host name"),
        pytest.param({"pid_namespace": CONTAINERS, "start": "1"}, "another host", id="a container, any process"),
        pytest.param({"boot": "b", "pid_namespace": MACHINES_OWN}, "dead", id="the machine was started again"),
        pytest.param({"boot": "b", "machine": "m", "pid_namespace": MACHINES_OWN}, "another host", id="same name"),
        pytest.param({"boot": "b", "machine": None, "pid_namespace": MACHINES_OWN}, "another host", id="no machine-id"),
        pytest.param({"boot": "b", "pid_namespace": CONTAINERS}, "another host", id="containers share a machine-id"),
        pytest.param({"boot": "b", "host": "h", "pid_namespace": MACHINES_OWN}, "another host", id="a cloned disk"),
    ],
)
def test_a_process_is_looked_for_where_it_can_be_seen_only(monkeypatch, facts, expected):
    monkeypatch.setattr(processes, "pid_namespace", lambda: MACHINES_OWN)
    monkeypatch.setattr(processes, "machine_id", lambda: "this machine's")
    assert processes.state(here(**facts)) == expected


def test_inside_a_container_the_machines_own_processes_cannot_be_seen(monkeypatch):
    monkeypatch.setattr(processes, "pid_namespace", lambda: CONTAINERS)
    assert processes.state(here(pid_namespace=CONTAINERS)) == "alive"
    assert processes.state(here(pid_namespace=MACHINES_OWN)) == "another host"
    assert processes.state(here(boot="b", pid_namespace=MACHINES_OWN)) == "another host"


def test_what_stands_in_a_record_is_what_the_kernel_says():
    row = records.read(runs.record(RUNS))
    assert row["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert f"pid:[{row['pid_namespace']}]" == os.readlink("/proc/self/ns/pid")


@pytest.mark.parametrize(("silent", "expected"), [(0, "another host"), (500, "another host"), (700, "dead")])
def test_who_gives_no_sign_of_life_for_ten_minutes_is_dead(silent, expected):
    assert runs.state(elsewhere(RUNS, silent=silent)) == expected


def test_a_record_of_an_older_version_gives_no_signs_and_never_counts_as_dead(dead_pid):
    path = write_record(RUNS, dead_pid, "1", host="elsewhere")
    os.utime(path, (0, 0))
    assert runs.state(path) == "another host"


def test_silence_is_measured_by_the_clock_of_the_files_not_by_that_of_this_machine(monkeypatch):
    """File servers and machines disagree by minutes."""
    path = elsewhere(RUNS, silent=100)
    monkeypatch.setattr(time, "time", lambda: 1e10)
    assert runs.state(path) == "another host"


def test_signs_of_life_set_the_time_anew(monkeypatch):
    monkeypatch.setattr(records, "SECONDS_BETWEEN_SIGNS", 0.01)
    path = elsewhere(RUNS, silent=1000)
    gone = threading.Event()
    stop = records.give_signs(path, gone.set)
    while records.silence(path) > 100:
        time.sleep(0.005)
    path.unlink()
    assert gone.wait(timeout=10), "its owner must learn that it was taken over"
    stop()


def test_a_suspended_run_that_comes_back_finds_that_it_is_over(monkeypatch):
    monkeypatch.setattr(records, "SECONDS_BETWEEN_SIGNS", 0.01)
    path = runs.record(RUNS)
    records.add(path, cluster=True)
    records.retire(path)
    gone = threading.Event()
    records.give_signs(path, gone.set)
    assert gone.wait(timeout=10)


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


def test_the_lock_of_a_container_with_the_same_host_name_is_explained(folder):
    (folder / "Snakefile").touch()
    path = lock()
    record = elsewhere(RUNS, host=HOST, boot=processes.boot_id(), pid_namespace=CONTAINERS, silent=30)
    with pytest.raises(SystemExit) as refused:
        runs.begin()
    assert re.fullmatch(
        rf"This directory is locked by a run on {HOST}, in another container or PID namespace, which this machine "
        rf"cannot see.\nIts last sign of life is (29|3\d) s old; after 10 minutes it counts as dead.\n"
        rf"If it is over, type:  rm {record} && snakemake --unlock\nand start again.",
        refused.value.code,
    )
    assert path.exists() and record.exists()


def test_the_lock_of_a_run_elsewhere_that_fell_silent_is_removed():
    path, record = lock(), elsewhere(RUNS, silent=3600)
    assert runs.begin() == ["The last run here was killed; its lock is removed and its work is taken up again."]
    assert not path.exists() and not record.exists()


def test_a_run_elsewhere_that_is_still_planning_holds_no_lock_and_is_left_alone():
    record = elsewhere(RUNS)
    assert runs.begin() == []
    assert record.exists() and not runs.alone()


def test_a_run_elsewhere_that_has_held_the_lock_and_holds_it_no_more_is_over():
    record = elsewhere(RUNS, locked=True)
    assert runs.begin() == []
    assert not record.exists() and runs.alone()


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


def test_leftovers_below_results_are_swept_by_a_run_that_is_alone(start):
    results = Path("results/demo/data")
    results.mkdir(parents=True)
    living = files.temporary_name(results)
    dead = living.with_name(living.name.replace(f"-{os.getpid()}-", "-99999999-"))
    for path in (living, dead):
        path.write_bytes(b"half")
    run = start(RUN)
    runs.begin()
    assert dead.exists(), "another run is alive"
    run.kill()
    run.wait()
    runs.begin()
    assert living.exists() and not dead.exists()


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
    monkeypatch.setattr(leftovers, "SECONDS_TO_STOP", 0.3)
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


def job_records() -> list[dict]:
    return [files.read_json(path) for path in JOBS.glob("*.json")]


def test_a_job_on_another_machine_than_its_run_goes_on_and_is_written_down(start, dead_pid):
    """There its run cannot be seen, and may have ended after it handed out its jobs."""
    record = write_record(RUNS, dead_pid, "1", host="login-2").resolve()
    for path in (record, record.with_name("login-2-77-88.json")):
        job = start(WATCHED, **{RUN_VARIABLE: str(path), "SLURM_JOB_ID": "33"})
        time.sleep(0.3)
        assert job.poll() is None
        (row,) = [row for row in job_records() if row["pid"] == job.pid]
        assert row["run"] == path.name and row["slurm_job"] == "33" and row["sign"] == 60.0


def test_a_job_on_another_machine_leaves_when_its_run_is_over(start):
    record = elsewhere(RUNS, cluster=True).resolve()
    job = start(WATCHED, **{RUN_VARIABLE: str(record)})
    records.retire(record)
    assert job.wait(timeout=10) == -signal.SIGTERM


def test_a_job_in_a_container_of_the_same_host_name_does_not_take_its_run_for_dead(start, dead_pid):
    facts = {"boot": processes.boot_id(), "pid_namespace": CONTAINERS}
    record = write_record(RUNS, dead_pid, "12345", **facts).resolve()
    job = start(WATCHED, **{RUN_VARIABLE: str(record)})
    time.sleep(0.3)
    assert job.poll() is None


def test_a_job_that_comes_late_touches_nothing(monkeypatch):
    """The queue of a cluster may start it when another run has its place; Snakemake would delete outputs first."""
    record = elsewhere(RUNS, cluster=True)
    monkeypatch.setenv(RUN_VARIABLE, str(record))
    runs.leave_if_over()
    records.retire(record)
    with pytest.raises(SystemExit, match="another one works here now"):
        runs.leave_if_over()


def test_where_the_folder_of_the_run_is_not_shared_a_job_works_all_the_same(monkeypatch, folder):
    monkeypatch.setenv(RUN_VARIABLE, str(folder / "gone" / "runs" / "login-2-1-2.json"))
    runs.watch_run()
    runs.leave_if_over()
    assert not list(folder.iterdir())


def test_a_job_started_by_hand_is_not_watched():
    runs.watch_run()
    assert not JOBS.exists()


def test_a_job_that_ends_takes_its_record_away(start):
    record = runs.record(RUNS).resolve()
    job = start("runs.watch_run()\nprint('ready', flush=True)", **{RUN_VARIABLE: str(record)})
    assert job.wait(timeout=5) == 0
    assert list(JOBS.glob("*.json")) == []
