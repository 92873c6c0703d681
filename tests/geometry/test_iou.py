import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry.iou import iou


def test_two_of_three_places_shared_is_two_thirds():
    assert iou(np.array([True, True, False, False]), np.array([True, True, True, False])) == pytest.approx(2 / 3)


def test_two_empty_occupancies_have_no_iou():
    assert math.isnan(iou(np.zeros(5, bool), np.zeros(5, bool)))


def test_one_empty_occupancy_gives_zero():
    assert iou(np.zeros(5, bool), np.ones(5, bool)) == 0


def test_voxels_and_numbers_are_taken_as_occupancies():
    grid = np.zeros((2, 2, 2), int)
    grid[0] = 1
    assert iou(grid, np.ones((2, 2, 2))) == 0.5


def test_occupancies_of_other_shapes_are_not_broadcast():
    with pytest.raises(ValueError, match=r"\(4, 1\).*\(4,\)"):
        iou(np.ones((4, 1), bool), np.ones(4, bool))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_iou_is_symmetric_and_one_only_for_equal_sets(pairs):
    a, b = np.array(pairs).T
    value = iou(a, b)
    assert value == iou(b, a) or math.isnan(value)
    assert (value == 1) == (np.array_equal(a, b) and a.any())
