"""The last verdict: a report that compares nothing is a failure unless it is allowed, and says why."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from pipeline import files, ledger
from pipeline.config import load_study
from pipeline.jobs import check_tested
from pipeline.jobs.check_tested import nothing_compared
from pipeline.ledger import Ledger, Row
from pipeline.plan import Plan
from pipeline.progress import LOG

OUTPUT = Path("results/demo/evaluation/tested.json")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = LOG.propagate, LOG.level
    LOG.propagate = True
    yield tmp_path
    LOG.propagate, LOG.level = before


def ok(number: int) -> Row:
    key, digest = "ab" * 20, "d" * 40
    return Row(f"chair/{number}", "ok", key, f"evaluate_meshes/ab/{key}-{digest}.json", digest, 3)


def rejected(number: int, stage: str, reason: str) -> Row:
    return Row(f"chair/{number}", "rejected", reason=reason, stage=stage)


def measured(**methods: list[Row]) -> list[Path]:
    """The ledgers of the evaluation, one shard of each method."""
    paths = [Path(f"results/demo/evaluation/raw/{name}/0.jsonl") for name in methods]
    for path, rows in zip(paths, methods.values(), strict=True):
        ledger.write(path, Ledger({"stage": "evaluate_meshes"}, {row.shape: row for row in rows}))
    return paths


OPEN = [rejected(1, "make_watertight", "it has holes"), rejected(2, "extract_meshes", "it has no faces")]
NO_MESH = [rejected(1, "generate_meshes", "it is empty"), rejected(2, "generate_meshes", "it is empty")]


def test_no_test_shapes_at_all():
    assert nothing_compared(measured(a=[], b=[])).startswith("There are no test shapes, so nothing is compared.")


def test_all_test_shapes_rejected_as_data_are_told_with_the_reasons():
    assert nothing_compared(measured(a=OPEN, b=OPEN)) == (
        "All 2 test shapes were rejected, so nothing is compared: 1 x it has holes (for example chair/1); 1 x it has "
        "no faces (for example chair/2)."
    )


def test_no_mesh_of_any_method_is_told_apart_from_rejected_shapes():
    assert nothing_compared(measured(a=NO_MESH, b=NO_MESH)) == (
        "No method gave a mesh that could be measured for any of 2 test shapes: 4 x it is empty (for example chair/1)."
    )


def test_one_measured_mesh_is_a_comparison():
    assert nothing_compared(measured(a=NO_MESH, b=[ok(1), OPEN[1]])) == ""


def judge(paths: list[Path], allow_empty: bool) -> dict:
    """Run the job; gives the verdict that it wrote."""
    plan = Plan(*load_study({"allow_empty": allow_empty}))
    settings = Path(plan.settings_file("check_tested"))
    files.write_json(settings, plan.work("check_tested"))
    files.write_json(settings.parent / "runtime.json", plan.runtime())
    check_tested.run(argparse.Namespace(settings=settings, raw=paths, report=Path("report/index.html"), output=OUTPUT))
    return files.read_json(OUTPUT)


def test_a_report_that_compares_nothing_is_a_failure_that_says_where_it_is():
    with pytest.raises(SystemExit) as end:
        judge(measured(a=OPEN), allow_empty=False)
    assert end.value.code.startswith("All 2 test shapes were rejected")
    assert end.value.code.endswith("The report is at report/index.html. If this is meant, write allow_empty: true.")
    assert not OUTPUT.exists()


def test_it_may_be_allowed_and_is_said_all_the_same(caplog):
    assert judge(measured(a=OPEN), allow_empty=True)["fault"].startswith("All 2 test shapes were rejected")
    assert "All 2 test shapes were rejected" in caplog.text
    assert judge(measured(a=[ok(1)]), allow_empty=False)["fault"] == ""
