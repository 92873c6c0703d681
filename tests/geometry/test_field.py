"""Fields: one level, one side, one IoU for training, extraction and evaluation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry.field import occupied, point_iou, raw_level


def test_levels_in_each_quantity():
    assert raw_level("occupancy_logit", 0.2) == pytest.approx(-1.386294, abs=1e-6)
    assert raw_level("occupancy_logit") == 0
    assert raw_level("occupancy", 0.2) == 0.2
    assert raw_level("occupancy") == 0.5
    assert raw_level("signed_distance", -0.01) == -0.01
    assert raw_level("signed_distance") == 0


@given(st.floats(0.01, 0.99), st.floats(-4, 4))
def test_a_logit_is_inside_exactly_when_its_probability_is(level, logit):
    probability = 1 / (1 + np.exp(-logit))
    if abs(probability - level) > 1e-9:
        assert occupied(logit, "occupancy_logit", level) == occupied(probability, "occupancy", level)


def test_negative_distances_are_inside():
    np.testing.assert_array_equal(occupied([-0.1, 0.0, 0.1], "signed_distance"), [True, True, False])
    np.testing.assert_array_equal(occupied([-0.1, 0.0, 0.1], "occupancy_logit"), [False, True, True])


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5])
def test_probabilities_are_above_zero_and_below_one(level):
    with pytest.raises(ValueError, match="probability above 0 and below 1"):
        raw_level("occupancy", level)


def test_a_quantity_without_a_level_is_refused():
    with pytest.raises(ValueError, match="'surface' has no level"):
        raw_level("surface")


def test_iou_is_undefined_for_labels_without_volume_and_values_that_are_nan():
    assert np.isnan(point_iou([1.0, -1.0], [0, 0]))
    assert np.isnan(point_iou([np.nan, 1.0], [1, 1]))
    assert point_iou([-1.0, -1.0], [0, 1]) == 0
