"""The mean shape against counts made by hand and a search over all levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.models.mean_shape import MeanShape, ModelSettings
from pipeline.training.data import ResidentData
from pipeline.training.loop import RuntimeSettings, TrainingSettings, train
from tests.models.shapes import lattice


def fitted(voxels: np.ndarray) -> MeanShape:
    model = MeanShape(ModelSettings(resolution=voxels.shape[1]))
    model.fit(ResidentData.from_shapes([{model.key: one} for one in voxels]))
    return model


def field(model: MeanShape, points: np.ndarray) -> np.ndarray:
    return model.field({}, torch.from_numpy(points.astype(np.float32))[None]).numpy()[0]


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    """Seven random solids on 8^3 cells, denser toward one corner: no axis is like another."""
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.add.outer(np.arange(8) * 3, np.arange(8) * 2), np.arange(8)) / 42
    return rng.random((7, 8, 8, 8)) < ramp


def test_field_at_cell_centres_is_the_mean_occupancy(voxels):
    values = field(fitted(voxels), lattice(8))
    np.testing.assert_allclose(values, voxels.mean(axis=0).ravel(), atol=1e-5)


def test_field_between_centres_is_trilinear(voxels):
    """The half-way point of two neighbours along each axis, and of all eight around a corner."""
    model, mean = fitted(voxels), voxels.mean(axis=0)
    centre = (np.array([2, 3, 5]) + 0.5) / 8 - 0.5
    halves = np.stack([centre + step / 16 for step in (*np.eye(3), np.ones(3))])
    expected = [
        (mean[2, 3, 5] + mean[3, 3, 5]) / 2,
        (mean[2, 3, 5] + mean[2, 4, 5]) / 2,
        (mean[2, 3, 5] + mean[2, 3, 6]) / 2,
        mean[2:4, 3:5, 5:7].mean(),
    ]
    np.testing.assert_allclose(field(model, halves), expected, atol=1e-5)


def test_field_falls_to_zero_within_a_cell_outside_the_lattice():
    model = fitted(np.ones((1, 8, 8, 8), bool))
    points = np.array([[0, 0, 0.4375], [0, 0, 0.5], [0, 0.5625, 0], [-0.7, 0, 0]])
    np.testing.assert_allclose(field(model, points), [1.0, 0.5, 0.0, 0.0], atol=1e-5)


def test_level_is_the_best_of_all(voxels):
    model, mean = fitted(voxels), voxels.mean(axis=0)

    def mean_iou(level: float) -> float:
        chosen = mean >= level
        return float(np.mean([(chosen & one).sum() / (chosen | one).sum() for one in voxels]))

    scores = {k: mean_iou((k - 0.5) / 7) for k in range(1, 8)}
    best = max(scores, key=scores.get)
    assert 1 < best < 7, "the fixture must not have its best level at an end"
    assert model.level == pytest.approx((best - 0.5) / 7)


def test_level_of_equal_shapes_gives_that_shape():
    shape = np.zeros((8, 8, 8), bool)
    shape[2:5, 1:7, 3:4] = True
    model = fitted(np.stack([shape] * 3))
    np.testing.assert_array_equal(field(model, lattice(8)) >= model.level, shape.ravel())


def test_the_loop_fits_it_without_steps(voxels, tmp_path):
    model = MeanShape(ModelSettings(resolution=8))
    data = ResidentData.for_model(model, [{model.key: one} for one in voxels])
    settings, runtime = TrainingSettings(), RuntimeSettings(device="cpu")
    result = train(model, data, [], settings, runtime, seed=0, state_dir=tmp_path, log_dir=None)
    assert result.steps_made == 0 and not any(tmp_path.iterdir())
    np.testing.assert_allclose(result.weights["network.values"], voxels.mean(axis=0), atol=1e-6)


def test_no_training_shapes_is_an_error():
    with pytest.raises(ValueError, match="at least one training shape"):
        MeanShape(ModelSettings(resolution=8)).fit(ResidentData({"voxels.8": torch.zeros((0, 8, 8, 8))}, []))
