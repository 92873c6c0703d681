"""Dense evaluation: every lattice point once, both faces of the box included, whatever the chunks."""

import numpy as np
import pytest

from pipeline.arrays import Rejected
from pipeline.reconstruction.dense import evaluate_dense


def tilted(points):
    return points @ np.array([1.0, 10.0, 100.0])


@pytest.mark.parametrize("chunk", [1, 7, 100, 10_000])
def test_values_belong_to_their_points_whatever_the_chunk(chunk):
    axis = np.linspace(-1, 1, 6)
    expected = axis[:, None, None] + 10 * axis[None, :, None] + 100 * axis[None, None, :]
    np.testing.assert_allclose(evaluate_dense(tilted, 5, 2.0, chunk), expected, atol=1e-12)


def test_no_call_exceeds_the_chunk_and_no_point_is_asked_twice():
    asked = []
    evaluate_dense(lambda points: asked.append(points) or np.zeros(len(points)), 6, 1.1, chunk=50)
    points = np.concatenate(asked)
    assert max(len(part) for part in asked) == 50
    assert len(np.unique(points, axis=0)) == len(points) == 7**3
    np.testing.assert_array_equal([points.min(axis=0), points.max(axis=0)], [[-0.55] * 3, [0.55] * 3])


def test_values_that_are_not_finite_reject_the_shape():
    with pytest.raises(Rejected, match="not finite at 1 of 27 points"):
        evaluate_dense(lambda points: np.where(np.arange(len(points)) == 3, np.inf, 0.0), 2, 1.1)
