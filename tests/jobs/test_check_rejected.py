"""The verdict on a stage: how many of the shapes that came to it it rejected, and why."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import files, ledger
from pipeline.config import load_study
from pipeline.jobs import check_rejected
from pipeline.ledger import Ledger, Row
from pipeline.plan import Plan
from pipeline.progress import LOG

STAGE = "make_watertight"
OUTPUT = Path("results/demo/checks/make_watertight.json")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = LOG.propagate, LOG.level
    LOG.propagate = True
    yield tmp_path
    LOG.propagate, LOG.level = before


def ok(number: int) -> Row:
    key, digest = "ab" * 20, "d" * 40
    return Row(f"chair/{number:03}", "ok", key, f"{STAGE}/ab/{key}-{digest}.off", digest, 3)


def rejected(number: int, reason: str = "it has holes", stage: str = STAGE) -> Row:
    return Row(f"chair/{number:03}", "rejected", reason=reason, stage=stage)


def judge(*shards: list[Row], limit: float | None = 0.2, instance: str = STAGE) -> dict:
    """Run the job on the ledgers of a stage's shards; gives the verdict it wrote."""
    plan = Plan(*load_study({"limits": {"max_rejected": limit}}))
    settings = Path(plan.settings_file("check_rejected"))
    files.write_json(settings, plan.work("check_rejected"))
    files.write_json(settings.parent / "runtime.json", plan.runtime())
    paths = [Path(f"{number}.jsonl") for number in range(len(shards))]
    for path, rows in zip(paths, shards, strict=True):
        ledger.write(path, Ledger({"stage": instance}, {row.shape: row for row in rows}))
    check_rejected.run(argparse.Namespace(settings=settings, instance=instance, receipt_from=paths, output=OUTPUT))
    return files.read_json(OUTPUT)


def refusal(*shards: list[Row], **keys) -> list[str]:
    """The lines of the message with which the job ends."""
    with pytest.raises(SystemExit) as end:
        judge(*shards, **keys)
    assert not OUTPUT.exists()
    return end.value.code.split("\n")


def test_a_stage_that_accepts_everything_passes():
    verdict = judge([ok(0), ok(1)], [ok(2)])
    assert (verdict["stage"], verdict["entered"], verdict["rejected"], verdict["reasons"]) == (STAGE, 3, 0, {})


def test_all_shards_of_a_stage_are_judged_together():
    """Each shard alone would pass or fail differently."""
    verdict = judge([rejected(0), rejected(1)], [ok(n) for n in range(2, 10)])
    assert (verdict["entered"], verdict["rejected"]) == (10, 2)
    assert verdict["reasons"] == {"it has holes": 2}


def test_the_limit_itself_is_allowed_and_one_shape_more_is_not():
    assert judge([rejected(0), ok(1), ok(2), ok(3)], limit=0.25)["rejected"] == 1
    OUTPUT.unlink()
    assert refusal([rejected(0), rejected(1), ok(2), ok(3)], limit=0.25)


def test_shapes_rejected_before_a_stage_are_none_of_its_business():
    before = [rejected(n, "it has no faces", "extract_meshes") for n in range(5)]
    verdict = judge([*before, rejected(5), *(ok(n) for n in range(6, 11))])
    assert (verdict["entered"], verdict["rejected"]) == (6, 1)
    assert verdict["reasons"] == {"it has holes": 1}


def test_a_variant_of_a_stage_is_judged_by_its_own_rejections():
    """Ledgers name the instance, so sample_boundary/0.1 does not answer for sample_boundary/0.01."""
    rows = [rejected(0, "too thin", "sample_boundary/0.1"), rejected(1, "too thin", "sample_boundary/0.01"), ok(2)]
    assert judge(rows, instance="sample_boundary/0.1", limit=0.5)["rejected"] == 1


def test_an_empty_stage_passes():
    assert judge([], [])["entered"] == 0
    assert judge([rejected(0, "it has no faces", "extract_meshes")], limit=0.0)["entered"] == 0


def test_the_message_tells_the_worst_reasons_with_an_example_each_and_what_to_do():
    rows = [rejected(n, "it has holes") for n in (7, 3, 5)] + [rejected(n, "it is flat") for n in (1, 2)] + [ok(9)]
    assert refusal(rows) == [
        "make_watertight rejected 5 of 6 shapes, more than max_rejected = 0.2 allows:",
        "  3 x it has holes  (for example chair/003)",
        "  2 x it is flat  (for example chair/001)",
        "Look at these shapes or the stage's settings; or raise limits.max_rejected if they may be left out.",
    ]


def test_of_many_reasons_the_five_most_frequent_are_told_and_the_rest_counted():
    rows = [rejected(10 * kind + n, f"reason {kind}") for kind in range(8) for n in range(kind + 1)]
    lines = refusal(rows)
    assert [line.split()[0] for line in lines[1:6]] == ["8", "7", "6", "5", "4"]
    assert lines[6] == "  … and 3 more reasons"


def test_a_directory_of_meshes_may_lose_every_shape_but_says_so_loudly(caplog):
    judge([rejected(0), rejected(1, "it is flat"), rejected(2)], limit=1.0)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        "make_watertight rejected 3 of 3 shapes:",
        "  2 x it has holes",
        "  1 x it is flat",
    ]


def test_a_job_tried_again_gives_the_same_verdict_and_a_changed_ledger_another():
    """What stands on a stage is told of a change in any of its shards by this file alone."""
    first = judge([ok(0)], [ok(1)])
    assert judge([ok(0)], [ok(1)]) == first
    other = replace(ok(1), key="cd" * 20, file=f"{STAGE}/cd/{'cd' * 20}-{'d' * 40}.off")
    changed = judge([ok(0)], [other])
    assert changed != first and changed["entered"] == first["entered"]
