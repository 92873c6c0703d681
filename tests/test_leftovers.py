"""Jobs that a dead run left in Slurm's queue or on other machines are ended before anything new starts."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import leftovers, records, runs, slurm
from pipeline.config import ROOT
from pipeline.jobs import start
from pipeline.records import JOBS, RUNS
from pipeline.runs import LOCKS, RUN_VARIABLE
from tests.test_runs import elsewhere, write_record

NAME = "4b1f6f0e-3c52-4a0e-9f0e-0123456789ab"
OTHER_NAME = "00000000-3c52-4a0e-9f0e-0123456789ab"

# One file a run's name holds its jobs. Cancelled jobs that ran stay for one more look, as Slurm's do.
SQUEUE = """\
echo "squeue $*" >> {queue}/calls
[ -e {queue}/broken ] && {{ echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; }}
for word; do case $word in --name=*) name=${{word#--name=}};; --user=*) user=${{word#--user=}};; esac; done
[ "$user" = {user} ] && [ -e {queue}/$name ] || exit 0
cat {queue}/$name
[ -e {queue}/stays ] || sed -i /COMPLETING/d {queue}/$name
"""
SCANCEL = """\
echo "scancel $*" >> {queue}/calls
for word; do case $word in --name=*) name=${{word#--name=}};; --user=*) user=${{word#--user=}};; esac; done
[ "$user" = {user} ] || exit 1
sed -i '/PENDING/d; s/RUNNING/COMPLETING/' {queue}/$name
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working directory, and no waiting between looks."""
    (tmp_path / "study").mkdir()
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.setenv(RUN_VARIABLE, "")
    monkeypatch.setattr(slurm, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(leftovers, "SECONDS_BETWEEN_LOOKS", 0.01)
    return tmp_path


@pytest.fixture
def queue(folder, monkeypatch) -> Path:
    """A Slurm whose queue is the files of this folder."""
    path = folder / "queue"
    programs = folder / "bin"
    for new in (path, programs):
        new.mkdir()
    for name, text in (("squeue", SQUEUE), ("scancel", SCANCEL)):
        (programs / name).write_text("#!/bin/sh\n" + text.format(queue=path, user=os.getuid()))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return path


def submit(queue: Path, name: str = NAME) -> Path:
    """Three jobs of one run: one at work, two that wait."""
    path = queue / name
    path.write_text(
        "12|RUNNING|rule_train_model_wildcards_onet\n"
        "13|PENDING|rule_voxelize_wildcards_64_03001627_0\n"
        "14_2|PENDING|rule_check_rejected\n"
    )
    return path


def killed_run(dead_pid: int, **facts) -> Path:
    """The record and the lock of a run that was killed with jobs in Slurm's queue."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    (LOCKS / "0.output.lock").touch()
    jobs = {"name": NAME, "clusters": []}
    return write_record(RUNS, dead_pid, "12345", **{"cluster": True, "locked": True, "slurm": jobs, **facts})


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_jobs_of_a_killed_run_are_cancelled_and_gone_before_the_next_begins(queue, dead_pid):
    record, own = killed_run(dead_pid), submit(queue)
    others = submit(queue, OTHER_NAME)
    assert runs.begin() == [
        "The last run here was killed; its lock is removed and its work is taken up again.",
        "Cancelled 3 Slurm jobs the last run left behind.",
    ]
    assert own.read_text() == "", "it waits until the queue shows none"
    assert len(others.read_text().splitlines()) == 3, "jobs of another run are another run's"
    row = records.read(record)
    assert row["over"] and not row["slurm"], "jobs that come late must find that their run is over"
    assert runs.alone()


def test_only_jobs_of_this_user_and_this_run_are_asked_for_and_cancelled(queue, dead_pid):
    killed_run(dead_pid, slurm={"name": NAME, "clusters": ["east", "west"]})
    submit(queue)
    runs.begin()
    calls = (queue / "calls").read_text().splitlines()
    assert len(calls) >= 3
    for call in calls:
        assert f"--user={os.getuid()} --name={NAME} --clusters=east,west" in call


def test_a_run_that_has_nothing_in_the_queue_any_more_is_asked_for_once(queue, dead_pid):
    killed_run(dead_pid)
    assert len(runs.begin()) == 1
    before = (queue / "calls").read_text()
    assert "scancel" not in before
    runs.begin()
    assert (queue / "calls").read_text() == before


def test_a_job_that_arrives_after_the_first_look_is_cancelled_too(queue, dead_pid):
    """sbatch may be on its way when its run is killed."""
    killed_run(dead_pid)
    own = submit(queue)
    (queue / "late").write_text("15|PENDING|rule_summarise\n")
    squeue = queue.parent / "bin" / "squeue"
    arrival = f"[ -e {queue}/late ] && grep -q scancel {queue}/calls && mv {queue}/late {own}\n"
    squeue.write_text(squeue.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{arrival}"))
    assert "Cancelled 4 Slurm jobs the last run left behind." in runs.begin()
    assert own.read_text() == ""


def test_jobs_that_stay_in_the_queue_stop_the_start_with_their_names(queue, dead_pid, monkeypatch):
    monkeypatch.setattr(slurm, "SECONDS_TO_CANCEL", 0.1)
    record = killed_run(dead_pid)
    submit(queue)
    (queue / "stays").touch()
    with pytest.raises(SystemExit) as refused:
        runs.begin()
    message = refused.value.code
    assert "12 (COMPLETING, train_model onet)" in message and "so nothing is started beside them" in message
    assert f"squeue --name={NAME}" in message
    assert [path.name for path in RUNS.glob("*.json")] == [record.name], "no run has begun"
    (queue / "stays").unlink()
    assert runs.begin() == []
    assert (queue / NAME).read_text() == "", "the next start asks and waits again"


def test_where_slurm_does_not_answer_nothing_starts_and_the_way_out_is_named(queue, dead_pid):
    record = killed_run(dead_pid)
    (queue / "broken").touch()
    with pytest.raises(SystemExit) as refused:
        runs.begin()
    assert "squeue fails: slurm_load_jobs error: Unable to contact slurm controller" in refused.value.code
    assert f"type:  rm {record}\n" in refused.value.code
    record.unlink()
    assert runs.begin() == []


def test_a_machine_without_slurm_cannot_take_over_from_a_run_that_had_it(folder, dead_pid, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    killed_run(dead_pid)
    with pytest.raises(SystemExit, match="there is no squeue on this machine"):
        runs.begin()


def test_a_run_on_another_machine_that_is_over_has_its_jobs_cancelled_too(queue):
    """Its lock is gone: somebody unlocked the directory."""
    elsewhere(RUNS, cluster=True, locked=True, slurm={"name": NAME, "clusters": []})
    own = submit(queue)
    assert runs.begin() == ["Cancelled 3 Slurm jobs the last run left behind."]
    assert own.read_text() == ""


def test_records_of_cancelled_jobs_go_with_them(queue, dead_pid):
    record = killed_run(dead_pid)
    job = elsewhere(JOBS, host="node-7", run=record.name)
    runs.begin()
    assert not job.exists()


def test_a_run_that_ends_by_an_error_with_jobs_in_the_queue_keeps_its_record(queue):
    runs.begin()
    own = runs.own_run()
    runs.note_jobs(own, cluster=True, locked=True, jobs={"name": NAME, "clusters": []})
    submit(queue)
    runs._end(own)
    assert own.exists()
    (queue / NAME).unlink()
    runs._end(own)
    assert not own.exists()


# --- other queues than Slurm's


def test_jobs_elsewhere_of_other_queues_are_waited_for(dead_pid, monkeypatch, capsys):
    record = killed_run(dead_pid, slurm=None)
    job = elsewhere(JOBS, host="node-7", run=record.name)

    def leave_while_the_run_waits(seconds: float) -> None:
        assert runs.is_over(record), "by this the job sees that it must leave"
        job.unlink()

    monkeypatch.setattr(leftovers, "time", SimpleNamespace(monotonic=time.monotonic, sleep=leave_while_the_run_waits))
    assert len(runs.begin()) == 1
    assert "1 jobs of the last run still work on node-7; waiting for them." in capsys.readouterr().err
    assert not job.exists()


def test_jobs_elsewhere_that_do_not_leave_stop_the_start(dead_pid, monkeypatch):
    monkeypatch.setattr(leftovers, "SECONDS_TO_LEAVE", 0.05)
    record = killed_run(dead_pid, slurm=None)
    job = elsewhere(JOBS, host="node-7", run=record.name)
    with pytest.raises(SystemExit, match=rf"still work on node-7(.|\n)*rm {job}"):
        runs.begin()
    os.utime(job, (0, 0))
    assert runs.begin() == []
    assert not job.exists(), "who is silent is dead"


def test_jobs_elsewhere_of_nobody_we_took_over_from_are_left_alone(dead_pid):
    killed_run(dead_pid, slurm=None)
    job = elsewhere(JOBS, host="node-7", run="of-another-1-2.json")
    runs.begin()
    assert job.exists()


def test_the_mark_of_a_run_goes_when_no_queue_can_hold_its_jobs_any_more(dead_pid):
    record = killed_run(dead_pid, slurm=None)
    runs.begin()
    assert records.is_over(record)
    two_months_ago = time.time() - 61 * 24 * 3600
    os.utime(record, (two_months_ago, two_months_ago))
    runs.begin()
    assert not record.exists()


# --- what a run writes down before its first job


def fake_workflow(**executor) -> SimpleNamespace:
    return SimpleNamespace(
        scheduler=SimpleNamespace(_executor=SimpleNamespace(**executor)),
        dag=SimpleNamespace(needrun_jobs=lambda: [fake_job("train_model"), fake_job("summarise")]),
        local_exec=not executor,
        execution_settings=SimpleNamespace(lock=True),
    )


def fake_job(rule: str) -> SimpleNamespace:
    resources = {"runtime": 2880 if rule == "train_model" else 30, "mem_mb": 16000, "_cores": 1}
    resources["slurm_cluster"] = "east"
    return SimpleNamespace(
        rule=SimpleNamespace(name=rule), resources=resources, is_local=rule == "summarise", is_group=lambda: False
    )


def test_the_name_of_a_runs_slurm_jobs_is_written_down_before_the_first(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    runs.begin()
    start.first_job(fake_workflow(run_uuid=NAME))
    row = records.read(runs.own_run())
    assert row["cluster"] and row["locked"] and row["pid"] == os.getpid()
    assert row["slurm"] == {"name": NAME, "clusters": ["east"]}


def test_a_run_on_this_machine_has_no_such_name():
    runs.begin()
    start.first_job(fake_workflow())
    row = records.read(runs.own_run())
    assert not row["cluster"] and row["locked"] and row["slurm"] is None


def test_what_would_never_start_is_refused_before_the_first_job(folder, monkeypatch):
    from snakemake.exceptions import WorkflowError

    from tests.test_partitions import put_fakes

    monkeypatch.setenv("PATH", f"{put_fakes(folder / 'programs')}:/usr/bin:/bin")
    runs.begin()
    with pytest.raises(WorkflowError, match=r"train_model asks for 2880 minutes \(48 h\), and partition cpu allows"):
        start.first_job(fake_workflow(run_uuid=NAME))


def test_the_plugin_still_names_its_jobs_as_we_look_for_them():
    plugin = importlib.util.find_spec("snakemake_executor_plugin_slurm")
    assert plugin, "it is in the lock"
    text = Path(plugin.origin).read_text()
    assert "self.run_uuid = " in text and '"run_uuid": self.run_uuid' in text
    assert "--job-name {safe_quote(params.run_uuid)}" in Path(plugin.origin).with_name("submit_string.py").read_text()


def test_real_runs_say_at_their_end_what_dry_runs_say_of_missing_metadata(capsys):
    reasons = {"old": SimpleNamespace(no_metadata=True, outdated_metadata=False)}
    reasons["due"] = SimpleNamespace(no_metadata=True, outdated_metadata=False)
    reasons["new"] = SimpleNamespace(no_metadata=False, outdated_metadata=False)
    jobs = [SimpleNamespace(rule=SimpleNamespace(name=name)) for name in reasons]
    dag = SimpleNamespace(
        jobs=jobs, reason=lambda job: reasons[job.rule.name], needrun=lambda job: job.rule.name == "due"
    )
    start.say_what_lacks_metadata(SimpleNamespace(dag=dag))
    assert capsys.readouterr().err == (
        "1 jobs have missing provenance/metadata so that it in part cannot be used to trigger re-runs.\n"
        "Rules with missing metadata: old\n"
    )


# --- the real one


SLURM = ROOT.parent / "shared" / "slurm"


@pytest.fixture
def real_slurm():
    """A Slurm of one node, started for this test unless it runs already."""
    missing = [name for name in ("slurmctld", "slurmd", "munged") if not shutil.which(name, path="/usr/sbin:/usr/bin")]
    if not (SLURM / "start-one-node.sh").is_file():
        pytest.skip(f"there is no {SLURM}/start-one-node.sh")
    if missing:
        pytest.skip(f"Slurm is not installed: no {', '.join(missing)}")
    if os.getuid():
        pytest.skip("only root can start it")
    runs_already = subprocess.run(["scontrol", "ping"], capture_output=True).returncode == 0
    if not runs_already:
        subprocess.run([SLURM / "start-one-node.sh"], check=True, capture_output=True, timeout=60)
    yield
    if not runs_already:
        subprocess.run([SLURM / "stop.sh"], check=True, capture_output=True, timeout=60)


def sbatch(name: str, *switches: str) -> str:
    command = ["sbatch", "--parsable", f"--job-name={name}", "--comment=rule_train_model", "--output=/dev/null"]
    command += ["--time=5", "--mem=100", *switches, "--wrap=sleep 200"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.workflow
def test_real_slurm_jobs_queued_and_running_are_cancelled_and_others_stay(real_slurm, dead_pid):
    name, other = str(uuid.uuid4()), str(uuid.uuid4())
    try:
        sbatch(name)
        sbatch(name, "--array=1-3")
        sbatch(other, "--hold")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and "RUNNING" not in {job.state for job in slurm.jobs_of(name)}:
            time.sleep(0.1)
        assert len(slurm.jobs_of(name)) == 4 and {job.comment for job in slurm.jobs_of(name)} == {"rule_train_model"}
        killed_run(dead_pid, slurm={"name": name, "clusters": []})
        assert "Cancelled 4 Slurm jobs the last run left behind." in runs.begin()
        assert slurm.jobs_of(name) == []
        assert [job.state for job in slurm.jobs_of(other)] == ["PENDING"]
    finally:
        for submitted in (name, other):
            subprocess.run(["scancel", f"--name={submitted}"], check=True)
