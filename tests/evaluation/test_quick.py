"""Quick evaluation: IoU of a field on labelled points."""

import numpy as np
import pytest

from pipeline.evaluation.quick import evaluate_points, point_iou
from tests import solids


def labelled(count=30_000):
    points = (np.random.default_rng(0).random((count, 3)) - 0.5) * 1.1
    return {"points": points, "occupancies": solids.three_boxes_inside(points)}


@pytest.mark.parametrize("batch_points", [1_000, 65_536])
def test_the_exact_field_scores_one_and_an_offset_one_the_ratio_of_volumes(batch_points):
    exact = evaluate_points(solids.three_boxes_sdf, labelled(), "signed_distance", batch_points=batch_points)
    assert exact == {"iou": 1.0, "points": 30_000, "status": "ok", "reason": ""}
    thick = evaluate_points(solids.three_boxes_sdf, labelled(), "signed_distance", level=0.01)
    thin = evaluate_points(lambda p: -solids.three_boxes_sdf(p) / 0.01, labelled(), "occupancy_logit", 1 / (1 + np.e))
    assert thick["iou"] == thin["iou"] < 0.9  # a logit of -1 is a hundredth outside


def test_a_field_with_nan_is_invalid_and_has_no_iou():
    row = evaluate_points(lambda p: np.where(p[:, 0] > 0.5, np.nan, -1.0), labelled(1_000), "occupancy_logit")
    assert row["status"] == "invalid" and "points" in row["reason"] and np.isnan(row["iou"])


def test_a_batch_of_shapes_is_scored_row_by_row():
    values = np.array([[3.0, -1, 2, -2], [1, 1, -1, -1], [1, 1, 1, 1]])
    labels = np.array([[1, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]], np.uint8)
    np.testing.assert_array_equal(point_iou(values, labels), [1, 1 / 3, np.nan])
    assert point_iou(values[1], labels[1]) == 1 / 3
