"""Summaries: every mean with its coverage, failures dropped and penalised, macro and micro, by hand-made tables."""

import numpy as np
import pytest

from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.summary import (
    LABELS,
    by_category,
    by_method,
    long_table,
    missing_rows,
    printed,
    profile_rows,
    quick_means,
    quick_table,
    wide_table,
)


def row(method, category, name, status="ok", **values):
    labels = {"method": method, "profile": "onet", "category": category, "id": name, "split": "test"}
    return {**labels, "status": status, **values}


ROWS = [
    row("onet", "chair", "b", iou=0.8, chamfer_l1=0.01, predicted_watertight=True, predicted_volume=0.2),
    row("onet", "chair", "a", iou=0.6, chamfer_l1=0.03, predicted_watertight=False, predicted_volume=-0.1),
    row("onet", "chair", "c", status="empty", reason="no faces", iou=None, chamfer_l1=None),
    row("onet", "lamp", "d", iou=0.1, chamfer_l1=0.2, predicted_watertight=True, predicted_volume=-0.3),
    row("poisson", "chair", "a", iou=0.9, chamfer_l1=0.02),
    row("poisson", "chair", "b", iou=1.0, chamfer_l1=0.02),
    row("poisson", "chair", "c", iou=0.95, chamfer_l1=0.02),
    row("poisson", "lamp", "d", status="missing", reason="no mesh"),
]


def line(table, **labels):
    for column, value in labels.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_the_wide_table_is_sorted_complete_and_numeric():
    wide = wide_table(ROWS)
    assert list(wide.columns[: len(LABELS) + len(METRICS)]) == [*LABELS, *METRICS]
    assert list(wide["id"]) == ["a", "b", "c", "d"] * 2
    assert all(wide[metric].dtype == float for metric in METRICS)
    assert np.isnan(wide["iou"][2]) and wide["reason"][2] == "no faces" and wide["reason"][0] == ""


def test_a_shape_that_stands_twice_is_refused():
    with pytest.raises(ValueError, match="1 rows stand twice, first onet/onet/chair/a"):
        wide_table([*ROWS, ROWS[1]])


def test_means_over_shapes_and_categories_with_failures_dropped_and_penalised():
    iou = line(by_method(wide_table(ROWS)), method="onet", metric="iou")
    assert (iou["asked"], iou["scored"], iou["coverage"]) == (4, 3, 0.75)
    assert iou["micro_dropped"] == pytest.approx((0.8 + 0.6 + 0.1) / 3)
    assert iou["micro_penalised"] == pytest.approx((0.8 + 0.6 + 0.1 + 0) / 4)
    assert iou["macro_dropped"] == pytest.approx((0.7 + 0.1) / 2)
    assert iou["macro_penalised"] == pytest.approx((1.4 / 3 + 0.1) / 2)
    assert iou["median_dropped"] == 0.6
    assert iou["median_penalised"] == pytest.approx(0.35)
    chamfer = line(by_method(wide_table(ROWS)), method="onet", metric="chamfer_l1")
    assert chamfer["micro_penalised"] == pytest.approx((0.01 + 0.03 + 0.2 + 3**0.5) / 4)


def test_a_category_lost_whole_shows_in_its_coverage_and_in_the_penalised_mean():
    summary = line(by_method(wide_table(ROWS)), method="poisson", metric="iou")
    assert (summary["categories"], summary["categories_scored"]) == (2, 1)
    assert summary["macro_dropped"] == pytest.approx(0.95)
    assert summary["macro_penalised"] == pytest.approx(0.475)
    lamp = line(by_category(wide_table(ROWS)), method="poisson", category="lamp", metric="iou")
    assert (lamp["asked"], lamp["scored"], lamp["coverage"]) == (1, 0, 0)
    assert np.isnan(lamp["micro_dropped"]) and lamp["micro_penalised"] == 0


def test_every_method_and_category_has_its_own_row():
    table = by_category(wide_table(ROWS), ["iou"])
    assert [tuple(r) for r in table[["method", "category"]].values] == [
        ("onet", "chair"),
        ("onet", "lamp"),
        ("poisson", "chair"),
        ("poisson", "lamp"),
    ]
    assert line(table, method="onet", category="chair")["micro_dropped"] == pytest.approx(0.7)


def test_a_metric_that_the_reference_leaves_undefined_is_no_failure():
    rows = [
        row("onet", "chair", "a", iou=0.5, chamfer_l1=0.01, reference_has_volume=True),
        row("onet", "chair", "b", iou=None, chamfer_l1=0.03, reference_has_volume=False),
        row("onet", "chair", "c", status="missing", reference_has_volume=True),
        row("onet", "chair", "d", status="missing", reference_has_volume=False),
    ]
    summary = by_method(wide_table(rows))
    iou = line(summary, metric="iou")
    assert (iou["asked"], iou["scored"], iou["undefined"], iou["coverage"]) == (4, 1, 2, 0.5)
    assert (iou["micro_dropped"], iou["micro_penalised"]) == (0.5, 0.25)
    chamfer = line(summary, metric="chamfer_l1")
    assert (chamfer["scored"], chamfer["undefined"], chamfer["coverage"]) == (2, 0, 0.5)
    assert chamfer["micro_penalised"] == pytest.approx((0.04 + 2 * 3**0.5) / 4)


def test_values_of_failed_rows_are_not_believed():
    rows = [row("onet", "chair", "a", iou=0.5), row("onet", "chair", "b", status="invalid", iou=0.9)]
    iou = line(by_method(wide_table(rows), ["iou"]), metric="iou")
    assert (iou["scored"], iou["micro_dropped"], iou["micro_penalised"]) == (1, 0.5, 0.25)


def test_the_long_table_has_a_row_per_profile_metric_and_holds_raw_values():
    both = [*ROWS, *({**one, "profile": "convonet"} for one in ROWS)]
    table = long_table(wide_table(both), ["onet", "convonet"])
    assert [*table.columns[:4]] == ["method", "category", "id", "split"]
    assert [*table.columns[4:]] == ["profile", "metric", "value", "status", "reason"]
    assert len(table) == 8 * (6 + 3 + 6 + 1)  # what each reports and what it prints scaled
    assert line(table, method="onet", id="b", profile="onet", metric="chamfer_l1")["value"] == 0.01
    assert set(table[table["profile"] == "convonet"]["metric"]) >= {"f_0.01", "f_0.015", "f_0.02"}
    assert line(table, method="onet", id="c", profile="onet", metric="iou")["status"] == "empty"


def test_the_printed_layout_scales_lengths_by_ten_and_ends_with_mean_and_coverage():
    table = printed(wide_table(ROWS), "onet")
    assert list(table.index) == ["chair", "lamp", "mean (macro)", "coverage"]
    assert table.loc["chair", ("Chamfer-L1 x10", "onet")] == pytest.approx(0.2)
    assert table.loc["mean (macro)", ("Chamfer-L1 x10", "onet")] == pytest.approx((0.2 + 2) / 2)
    assert table.loc["mean (macro)", ("IoU", "onet")] == pytest.approx(0.4)
    assert table.loc["coverage", ("IoU", "onet")] == table.loc["coverage", ("Chamfer-L1 x10", "onet")] == 0.75
    assert [method for _, method in table.columns[:2]] == ["onet", "poisson"]
    penalised = printed(wide_table(ROWS), "onet", failures="penalised", mean="micro")
    assert penalised.loc["mean (micro)", ("IoU", "onet")] == pytest.approx(0.375)
    assert "Chamfer-L1 x10" not in by_method(wide_table(ROWS))["metric"].values


def test_values_taken_in_different_ways_never_meet_in_one_mean():
    rows = [
        row("onet", "chair", "a", iou=0.5),
        {**row("onet", "chair", "a", iou=0.9), "profile": "ifnet"},
        {**row("onet", "chair", "a", iou=None, emd=0.1, printed_cd=3.0), "profile": "deepsdf"},
    ]
    table = by_method(wide_table(rows))
    assert line(table, profile="onet", metric="iou")["micro_dropped"] == 0.5
    assert line(table, profile="ifnet", metric="iou")["asked"] == 1
    assert "iou" not in set(table[table["profile"] == "deepsdf"]["metric"])
    assert line(table, profile="deepsdf", metric="printed_cd")["micro_dropped"] == 3.0
    assert list(by_category(wide_table(rows)).columns[:4]) == ["method", "profile", "category", "metric"]


def test_what_a_paper_prints_is_penalised_in_its_own_scale():
    rows = [
        {**row("net", "chair", "a", printed_cd=3.0, emd=0.1), "profile": "deepsdf"},
        {**row("net", "chair", "b", status="empty"), "profile": "deepsdf"},
    ]
    table = by_method(wide_table(rows))
    assert line(table, metric="printed_cd")["micro_penalised"] == pytest.approx((3.0 + 2000 * 3) / 2)
    assert line(table, metric="emd")["micro_penalised"] == pytest.approx((0.1 + 3**0.5) / 2)
    shown = printed(wide_table(rows), "deepsdf", mean="micro")
    assert shown.loc["mean (micro)", ("Chamfer distance (sum of squares) x1000", "net")] == 3.0


def test_the_rows_of_one_shape_come_one_per_profile():
    labels = {"method": "net", "category": "chair", "id": "a", "split": "test"}
    rows = profile_rows(labels, {"profiles": {"onet": {"status": "ok", "iou": 0.5}, "nmf": {"status": "ok"}}})
    assert [one["profile"] for one in rows] == ["onet", "nmf"] and rows[0]["iou"] == 0.5
    gone = missing_rows({**labels, "id": "b"}, ["onet", "nmf"], "no mesh")
    assert {one["status"] for one in gone} == {"missing"}
    wide = wide_table([*rows, *gone])
    assert line(by_method(wide, ["iou"]), profile="onet")["micro_penalised"] == 0.25


def test_quick_tables_hold_shapes_and_means_per_category():
    rows = [
        {"shape": "chair/b", "iou": 0.5, "loss": 2.0, "status": "ok"},
        {"shape": "chair/a/x", "iou": 0.7, "loss": 4.0, "status": "ok"},
        {"shape": "lamp/c", "iou": 0.2, "loss": 6.0, "status": "ok"},
        {"shape": "lamp/d", "status": "invalid", "reason": "nothing to see"},
    ]
    table = quick_table("net", rows)
    assert list(table["id"]) == ["a/x", "b", "c", "d"] and list(table.columns[:4]) == [
        "method",
        "category",
        "id",
        "iou",
    ]
    means = quick_means(table).set_index("category")
    assert means.loc["lamp", ["asked", "scored"]].tolist() == [2, 1]
    assert means.loc["macro mean", "iou"] == pytest.approx((0.6 + 0.2) / 2)
    assert means.loc["micro mean", "loss"] == pytest.approx(4.0)
    assert means.loc["micro mean", ["asked", "scored"]].tolist() == [4, 3]
    assert quick_means(quick_table("net", [])).loc[0, "asked"] == 0
