"""What is current is decided by receipts: any change of settings, outputs or inputs is found, and nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipeline import files, freshness, ledger, receipts
from pipeline.freshness import Checked, Job, find_due
from pipeline.ledger import Ledger, Row

RESULTS = Path("results/study")
SOURCE, RAW, CLEAN = "members.jsonl", "results/study/data/raw.jsonl", "results/study/data/clean.jsonl"
JOBS = [Job("read", [RAW], [SOURCE], "a" * 40), Job("clean", [CLEAN], [RAW], "b" * 40)]
LIMITS = {"seconds": 60.0, "memory_mb": 4000}
OLD = 1_000_000_000  # a time long before the test: nothing may be believed because of a date


@pytest.fixture(autouse=True)
def study(tmp_path, monkeypatch):
    """Two jobs, one after the other, both done."""
    monkeypatch.chdir(tmp_path)
    Path(SOURCE).write_text('{"shape": "a"}\n')
    for job in JOBS:
        make(job)


def make(job: Job, rows: tuple[Row, ...] = ()) -> None:
    """What a job leaves: its ledger and its receipt."""
    found = receipts.digests_of(job.inputs)
    ledger.write(Path(job.outputs[0]), Ledger({"stage": job.rule}, {row.shape: row for row in rows}))
    receipts.write(RESULTS, job.fingerprint, found, job.outputs)


def due(jobs=JOBS, limits=LIMITS, memory: str = ".isomill/checked.json") -> dict[str, str]:
    """Rule → reason of everything that is due, looked at with a memory of digests that is kept."""
    checked = Checked(Path(memory))
    found = find_due(jobs, RESULTS, limits, checked)
    checked.save()
    return {rule: reason for reason, rules in found.reasons.items() for rule in rules}


def receipt_of(job: Job) -> Path:
    return receipts.path_of(RESULTS, job.outputs[0])


def age(path: Path | str) -> None:
    """An old date, as a restored backup or `cp -p` has it."""
    os.utime(path, (OLD, OLD))


def test_what_was_just_made_is_current():
    assert due() == {}
    assert due() == {}


def test_other_settings_make_their_own_job_due_and_going_back_makes_it_current():
    edited = [JOBS[0], Job("clean", [CLEAN], [RAW], "c" * 40)]
    assert due(edited) == {"clean": "its settings or its code have changed"}
    assert due() == {}


def test_what_was_never_made_is_left_to_snakemake():
    Path(CLEAN).unlink()
    receipt_of(JOBS[1]).unlink()
    assert due() == {}


def test_one_missing_output_of_several_is_due():
    job = Job("train", ["results/study/checkpoint.json", "results/study/weights.bin"], [RAW], "d" * 40)
    for path in job.outputs:
        Path(path).write_text("x")
    receipts.write(RESULTS, job.fingerprint, receipts.digests_of(job.inputs), job.outputs)
    assert due([job]) == {}
    Path(job.outputs[1]).unlink()
    assert due([job]) == {"train": "weights.bin is missing"}


def test_an_output_that_goes_missing_makes_its_readers_due():
    Path(RAW).unlink()
    assert due() == {"clean": "an input has changed since"}


def test_more_inputs_or_other_ones_are_due():
    Path("more.jsonl").write_text("{}\n")
    assert due([Job("read", [RAW], [SOURCE, "more.jsonl"], "a" * 40)]) == {"read": "it was made from other inputs"}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.rule)
@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "first"])
def test_every_flipped_bit_of_an_output_is_found_whatever_its_date(job, remembered):
    """Size and date stay as they were; the time of the change itself cannot."""
    path = Path(job.outputs[0])
    whole = path.read_bytes()
    for path_of_any in (SOURCE, RAW, CLEAN):
        age(path_of_any)
    if remembered:
        due()
    for bit in range(len(whole) * 8):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(content)
        age(path)
        assert due().get(job.rule) == "it is not as it was made (changed by hand, damaged or replaced)", bit
    path.write_bytes(whole)
    assert due() == {}


def test_every_flipped_bit_of_a_receipt_is_found():
    path = receipt_of(JOBS[0])
    whole = path.read_bytes()
    for bit in range(len(whole) * 8):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(content)
        assert due() == {"read": "its receipt is damaged"}, bit


@pytest.mark.parametrize("length", [0, 1, 40, -2, -1])
@pytest.mark.parametrize("victim", [RAW, str(receipts.path_of(RESULTS, RAW))], ids=["output", "receipt"])
def test_truncated_records_are_found(victim, length):
    content = Path(victim).read_bytes()
    Path(victim).write_bytes(content[:length])
    assert "read" in due()


def test_a_deleted_receipt_makes_its_job_due():
    receipt_of(JOBS[1]).unlink()
    assert due() == {"clean": "nothing says how it was made"}


def test_records_swapped_with_anothers_are_found():
    make(JOBS[1], (Row("a/b", "rejected", reason="no faces", stage="clean"),))
    for one, two in ((RAW, CLEAN), (receipt_of(JOBS[0]), receipt_of(JOBS[1]))):
        aside = Path("aside")
        shutil.move(one, aside)
        shutil.move(two, one)
        shutil.move(aside, two)
        assert set(due()) == {"read", "clean"}


def test_a_file_of_the_users_that_is_replaced_by_an_older_one_is_found():
    """cp -p and rsync -a keep dates, so the new file looks older than everything made from the one before."""
    due()
    Path("other.jsonl").write_text('{"shape": "b"}\n')
    age("other.jsonl")
    os.replace("other.jsonl", SOURCE)
    assert due() == {"read": "an input has changed since"}


def test_copies_and_restored_backups_are_current(tmp_path, monkeypatch):
    """Without the memory of digests, and with dates in any order."""
    shutil.copytree(tmp_path / "results", tmp_path / "copy" / "results", copy_function=shutil.copyfile)
    shutil.copyfile(SOURCE, tmp_path / "copy" / SOURCE)
    age(tmp_path / "copy" / CLEAN)
    monkeypatch.chdir(tmp_path / "copy")
    assert due() == {}


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"a": 1}\n{"digest": "0"}\n', b"[]\n"])
def test_a_damaged_memory_of_digests_is_no_memory(content):
    age(SOURCE)
    due()
    files.write_atomic(Path(".isomill/checked.json"), content)
    assert due() == {}


def test_only_files_that_changed_are_read_again(monkeypatch):
    for path in (SOURCE, RAW, CLEAN):
        age(path)
    # A file is remembered once its inode has not changed for a while: as if the clock had gone on.
    monkeypatch.setattr(freshness, "SECONDS_UNTIL_SETTLED", -60.0)
    due()
    read: list[str] = []
    digest_of_file = files.digest_of_file
    monkeypatch.setattr(files, "digest_of_file", lambda path: read.append(str(path)) or digest_of_file(path))
    assert due() == {}
    assert read == []
    Path(RAW).write_bytes(Path(RAW).read_bytes())
    assert due() == {}
    assert read == [RAW]


def test_a_file_that_changed_a_moment_ago_is_not_remembered():
    """Changed again within the same tick of the clock, it would look the same."""
    due()
    assert not Path(".isomill/checked.json").exists()


@pytest.mark.parametrize("raised", ["seconds", "memory_mb"])
def test_a_shape_that_ran_into_a_limit_is_due_once_that_limit_is_raised(raised):
    limits = [{"seconds": 60.0}, {"memory_mb": 4000}, {"seconds": 50.0}]
    rows = tuple(Row(f"a/{k}", "rejected", reason="too large", limit=hit) for k, hit in enumerate(limits))
    make(JOBS[1], rows)
    assert due(limits={"seconds": 50.0, "memory_mb": 4000}) == {}
    assert due(limits={"seconds": 10.0, "memory_mb": 1000}) == {}
    wider = {"seconds": 50.0, "memory_mb": 4000, raised: {"seconds": 51.0, "memory_mb": 4001}[raised]}
    assert due(limits=wider) == {"clean": f"limits.{raised} was raised, and a shape had run into it"}


def test_what_is_due_is_told_by_rule_and_reason_in_few_lines():
    jobs = [Job("clean", [f"results/study/data/{k}.jsonl"], [], "b" * 40) for k in range(30)]
    for job in jobs:
        make(job)
        receipt_of(job).unlink()
    found = find_due(jobs, RESULTS, LIMITS, Checked(Path("none")))
    assert found.lines() == ["Due: clean (results/study/data/0.jsonl and 29 more): nothing says how it was made"]


def test_a_ledger_tells_its_own_damage():
    row = Row("a/b", "ok", "k" * 40, f"clean/kk/{'k' * 40}-{'d' * 40}.off", "d" * 40, 3)
    make(JOBS[1], (row,))
    whole = Path(CLEAN).read_bytes()
    assert list(ledger.read(Path(CLEAN)).rows.values()) == [row]
    for bit in range(len(whole) * 8):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << (bit % 8)
        Path(CLEAN).write_bytes(content)
        with pytest.raises(files.DamagedRecord, match=r"clean\.jsonl is damaged"):
            ledger.read(Path(CLEAN))


def test_a_row_that_names_another_shapes_file_is_refused_even_in_a_whole_ledger():
    other = Row("a/b", "ok", "k" * 40, f"clean/ll/{'l' * 40}-{'d' * 40}.off", "d" * 40, 3)
    make(JOBS[1], (other,))
    with pytest.raises(files.DamagedRecord, match="a/b names another file"):
        ledger.read(Path(CLEAN))
