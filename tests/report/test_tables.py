import pandas as pd
import pytest

from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.profiles import PROFILES
from pipeline.evaluation.summary import by_category, by_method
from pipeline.report import cells, tables
from tests.report import study

METHODS = ("net", "mean")


def onet_metrics():
    profile = PROFILES["onet"]
    return cells.metrics_of(profile.metrics, METRICS, profile.print_scale)


def comparison(failures):
    return tables.comparison_table(by_method(study.wide()), METHODS, onet_metrics(), failures)


def column(table, label, block=0):
    index = [column.label for column in table.columns].index(label)
    return [row[index] for row in table.blocks[block].rows]


def texts(cells_):
    return [cell.text for cell in cells_]


def test_penalised_means_equal_those_computed_by_hand():
    table = comparison("penalised")
    assert texts(column(table, "IoU ↑", block=0)) == ["0.483", "0.400"]  # ((.9 + .8 + 0) / 3 + .4) / 2
    assert texts(column(table, "IoU ↑", block=1)) == ["0.525", "0.350"]  # (.9 + .8 + 0 + .4) / 4
    # ((.01 + .02 + sqrt 3) / 3 + .06) / 2 and (.01 + .02 + sqrt 3 + .06) / 4, printed in tenths of the edge
    assert texts(column(table, "Chamfer-L1 ×10 ↓", block=0)) == ["3.2368", "0.5000"]
    assert texts(column(table, "Chamfer-L1 ×10 ↓", block=1)) == ["4.5551", "0.5000"]


def test_dropped_means_equal_those_computed_by_hand():
    table = comparison("dropped")
    assert texts(column(table, "IoU ↑", block=0)) == ["0.625", "0.400"]  # (.85 + .4) / 2
    assert texts(column(table, "IoU ↑", block=1)) == ["0.700", "0.350"]
    assert texts(column(table, "Chamfer-L1 ×10 ↓", block=1)) == ["0.3000", "0.5000"]


def test_every_mean_travels_with_its_coverage_and_raw_value():
    for failures in ("penalised", "dropped"):
        table = comparison(failures)
        assert texts(column(table, "Scored")) == ["3/4", "4/4"]
        assert all("scored 3/4" in row[2].note for block in table.blocks for row in block.rows[:1])
    assert column(comparison("dropped"), "Chamfer-L1 ×10 ↓", block=1)[0].note == "raw 0.03, scored 3/4"


def test_best_of_a_column_depends_on_its_direction_and_on_failures():
    def best(failures, label):
        return [cell.best for cell in column(comparison(failures), label, block=1)]

    assert best("penalised", "IoU ↑") == [True, False]
    assert best("penalised", "Chamfer-L1 ×10 ↓") == [False, True]
    assert best("dropped", "Chamfer-L1 ×10 ↓") == [True, False]


def test_values_that_print_alike_are_both_best_and_undefined_ones_never():
    printed = cells.compared([0.70004, 0.69996, float("nan")], cells.IOU)
    assert [(cell.text, cell.best) for cell in printed] == [("0.700", True), ("0.700", True), (cells.MISSING, False)]
    assert not any(cell.best for cell in cells.compared([float("nan")] * 2, cells.IOU))


def test_digits_follow_the_printed_scale():
    assert cells.Metric("chamfer_l1", "CD", False).print(0.0044) == "0.00440"
    assert cells.Metric("chamfer_l1", "CD", False, scale=10).print(0.0044) == "0.0440"
    assert cells.Metric("chamfer_l2", "CD2", False).print(2e-5) == "0.0000200"
    assert cells.Metric("chamfer_l2", "CD2", False, scale=1000).print(2e-5) == "0.0200"


def test_metric_table_holds_all_six_means():
    table = tables.metric_table(by_method(study.wide()), METHODS, cells.IOU)
    assert texts(table.rows[0]) == ["net", "3/4", "0.483", "0.525", "0.600", "0.625", "0.700", "0.800"]
    assert [(group.label, group.width) for group in table.groups[1:]] == [
        ("failures penalised", 3),
        ("failures dropped", 3),
    ]


def test_category_table_has_category_means_then_macro_and_micro():
    rows = study.wide()
    table = tables.category_table(by_category(rows), by_method(rows), METHODS, cells.IOU, {"a": "chair"})
    assert [texts(row) for row in table.rows] == [
        ["chair (a)", "3", "0.567", "0.300"],
        ["b", "1", "0.400", "0.500"],
        ["macro mean", "4", "0.483", "0.400"],
        ["micro mean", "4", "0.525", "0.350"],
    ]
    assert [cell.best for cell in table.rows[1][2:]] == [False, True]
    assert table.rows[0][2].note == "scored 2/3"


def test_rejected_shapes_are_counted_by_stage_and_reason_whatever_the_numbers_in_it():
    table = tables.rejected_counts(study.rejected())
    assert [texts(row) for row in table.rows] == [
        ["extract_meshes", "… coordinates are not finite", "2"],
        ["extract_meshes", "the file has no faces", "1"],
        ["make_watertight", "the surface is open", "1"],
        ["all", "", "4"],
    ]


def test_equal_reasons_keep_their_numbers():
    assert tables.grouped_reasons(["12 faces"] * 2 + ["open"]) == [("12 faces", 2), ("open", 1)]


def test_failed_reconstructions_are_counted_per_method():
    table = tables.failed_counts(study.wide(), METHODS)
    assert [texts(row) for row in table.rows] == [["net", "the mesh has 0 faces", "1"], ["all", "", "1"]]
    assert tables.remark_counts(study.wide(), METHODS).rows == ()


def test_a_failure_without_a_reason_is_named_by_its_status():
    rows = study.wide().assign(reason="")
    assert tables.failed_counts(rows, METHODS).rows[0][1].text == "empty"


def test_remarks_on_measured_meshes_are_no_failures():
    rows = study.wide()
    rows.loc[rows["status"] == "ok", "reason"] = "the mesh is not watertight"
    assert tables.failed_counts(rows, METHODS).rows[-1][2].text == "1"
    assert tables.remark_counts(rows, METHODS).rows[-1][2].text == "7"


def test_listing_is_cut_at_its_limit():
    frame = pd.concat([study.rejected()] * 300, ignore_index=True)
    assert len(tables.rejected_listing(frame).rows) == tables.LISTED < len(frame)


def test_cost_sums_seconds_and_takes_the_largest_memory():
    table = tables.cost_table(study.cost())
    assert [texts(row) for row in table.rows] == [
        ["make_watertight", "8", "10.0 s", "1.250", "300"],
        ["train_model", "0", "1 min 55 s", cells.MISSING, "900"],
        ["all", "", "2 min 05 s", "", "900"],
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (3599.6, "1 h 00 min"), (7620, "2 h 07 min")],
)
def test_durations_carry_over_at_the_minute_and_the_hour(seconds, text):
    assert tables.duration(seconds) == text


def test_gallery_takes_best_median_and_worst_by_mean_iou_with_failures_as_zero():
    # means over both methods: a/1 .60, a/2 .55, a/3 .15, b/1 .45
    chosen = tables.select_gallery(study.wide(), each=1)
    assert chosen == [("best", "a", "1"), ("median", "a", "2"), ("worst", "a", "3")]


def test_gallery_never_shows_a_shape_twice():
    shown = tables.select_gallery(study.wide(), each=3)
    assert sorted(shape[1:] for shape in shown) == sorted(study.SHAPES)


def test_shapes_whose_iou_is_undefined_are_not_in_the_gallery():
    rows = study.wide()
    rows.loc[rows["id"] == "2", "iou"] = float("nan")
    assert ("a", "2") not in [shape[1:] for shape in tables.select_gallery(rows, each=3)]
