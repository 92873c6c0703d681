"""Kills, damage and bad shapes: nothing finished is lost, nothing wrong comes out, the same command is the repair."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline import files, ledger
from tests.workflow.runner import PROFILE, Workflow, added

KILLS = 10
WORKERS = 2


def kill_group(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_ten_kills_of_everything_and_the_same_command_end_as_if_undisturbed(finished, tmp_path):
    study, dice = Workflow.new(tmp_path / "study"), random.Random(11)
    for _ in range(KILLS):
        process = study.start()
        time.sleep(dice.uniform(1.0, 11.0))
        kill_group(process)
    study.run()
    assert study.digests() == finished.digests()
    again = added(finished.computed(), study.computed())
    batch = finished.computed()["meshes/onet"]
    assert sum(n for stage, n in again.items() if stage.split("/")[0] not in ("meshes", "train")) <= KILLS * WORKERS
    assert sum(n for stage, n in again.items() if stage.startswith("meshes/")) <= KILLS * batch
    assert "Nothing to be done" in study.dry_run()
    leftovers = [p for p in study.folder.rglob(".tmp-*") if "state" not in p.parts]
    assert not leftovers


def test_jobs_of_a_killed_snakemake_are_stopped_and_their_work_is_kept(finished, tmp_path):
    study = Workflow.new(tmp_path / "study")
    process = study.start_until("store/make_watertight/*/*")
    process.kill()
    process.wait()
    jobs = [files.read_json(path)["pid"] for path in (study.folder / ".isomill" / "jobs").glob("*.json")]
    text = study.run()
    assert "its lock is removed and its work is taken up again" in text
    assert not [pid for pid in jobs if _runs(pid)]
    assert study.digests() == finished.digests()


def _runs(pid: int) -> bool:
    try:
        return b"pipeline" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def test_a_second_run_in_the_same_directory_is_refused_and_harms_nothing(study):
    study.configure({"dataset": "again", "store": {"path": "another"}})
    first = study.start_until("another/extract_meshes/*/*", "prepare_all")
    second = subprocess.run(
        [*study.command, "prepare_all"], cwd=study.folder, env=study.environment, capture_output=True, text=True
    )
    assert second.returncode != 0 and "lock" in second.stderr.lower()
    assert first.wait(timeout=300) == 0
    assert study.computed()["scale_to_off"] == 22


def test_two_runs_on_one_store_at_once_agree(finished, tmp_path):
    overlay = {"demo": {**PROFILE["demo"], "shapes": 8}, "store": {"path": str(tmp_path / "store")}}
    studies = [Workflow.new(tmp_path / name, overlay) for name in ("one", "two")]
    targets = ("results/faults/data/sample_volume/03001627/0.jsonl", "results/faults/data/voxelize/64/03001627/0.jsonl")
    runs = [study.start(*targets, switches=("--cores", "1")) for study in studies]
    assert [run.wait(timeout=300) for run in runs] == [0, 0]
    one, two = (study.digests() for study in studies)
    expected = finished.digests()
    assert one == two == {key: expected[key] for key in one}
    assert len(one) > 40


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def row_of(study: Workflow, stage: str) -> ledger.Row:
    rows = ledger.read(study.results / "data" / stage / "03001627" / "0.jsonl").rows.values()
    return next(row for row in rows if row.accepted)


@pytest.mark.parametrize("damaged", [["sample_volume"], ["sample_volume", "scale_to_off", "make_watertight"]], ids=len)
def test_a_flipped_byte_is_found_on_use_logged_and_made_again(study, damaged):
    rows, digests = [row_of(study, stage) for stage in damaged], study.digests()
    for row in rows:
        flip_byte(study.folder / "store" / row.file)
    study.configure({"demo": {**PROFILE["demo"], "experiments": _with_more_queries()}})
    study.run()
    log = (study.folder / "logs/faults/train_model/onet.log").read_text()
    for row in rows:
        assert f"{row.file} is damaged" in log and f"{row.file} is whole again" in log
        assert files.digest_of((study.folder / "store" / row.file).read_bytes()) == row.digest
    kept = {key: value for key, value in study.digests().items() if key.startswith("data/")}
    assert kept == {key: digests[key] for key in kept}


def _with_more_queries() -> list[dict]:
    blocks = [dict(block) for block in PROFILE["demo"]["experiments"]]
    return [{**b, "model": {**b["model"], "queries": 65}} if b["name"] == "onet" else b for b in blocks]


def test_a_damaged_mesh_of_a_network_heals_by_the_same_command(study):
    """Only the network's own job can make it again, and so for a generator's shapes: that job becomes due."""
    meshes = {name: ledger.read(study.results / "meshes" / name / "0.jsonl") for name in ("onet", "deepsdf")}
    rows = [row for made in meshes.values() for row in made.rows.values() if row.accepted]
    stored = study.folder / "store" / rows[0].file
    whole = stored.read_bytes()
    flip_byte(stored)
    study.configure({"evaluation": {"samples": 1500}})
    text = study.run(fails=True)
    assert f"{rows[0].file} is damaged; type the same snakemake command again: it is made anew" in text
    study.run()
    assert stored.read_bytes() == whole
    assert {name: ledger.read(study.results / "meshes" / name / "0.jsonl") for name in meshes} == meshes


def test_too_many_rejected_shapes_stop_the_run_before_training_and_say_why(study):
    before = study.computed()
    study.configure({"limits": {"seconds": 60, "max_rejected": 0.05}})
    text = study.run(fails=True)
    assert "extract_meshes rejected 2 of 24 shapes, more than max_rejected = 0.05 allows:" in text
    assert re.search(r"1 x .+ \(for example 03001627/\w+\)", text)
    assert "raise limits.max_rejected" in text
    assert study.computed() == before
    study.configure({})
    study.run()
    assert study.computed() == before


def test_a_wrong_configuration_is_one_message_and_no_traceback(study):
    study.configure({"stages": {**PROFILE["stages"], "sample_volume": {"cuont": 5}}})
    text = study.run(fails=True)
    assert "stages.sample_volume.cuont: unknown key; did you mean 'count'?" in text
    assert "Traceback" not in text


def test_a_training_without_shapes_says_what_to_do(study):
    study.configure({"source": {"split": {"train": 0.0, "val": 0.0, "test": 1.0}}})
    text = study.run(fails=True)
    assert "experiment onet needs training shapes, but the split has no training shapes" in text
    assert (study.results / "meshes" / "poisson" / "0.jsonl").exists()


def test_sigterm_to_the_whole_group_keeps_what_is_finished(tmp_path, finished):
    study = Workflow.new(tmp_path / "study")
    process = study.start_until("store/make_watertight/*/*")
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=60)
    half = study.computed()
    study.run()
    assert study.digests() == finished.digests()
    again = added(half, study.computed())
    for stage in ("extract_meshes", "make_watertight"):
        assert half[stage] + again.get(stage, 0) <= finished.computed()[stage] + WORKERS
