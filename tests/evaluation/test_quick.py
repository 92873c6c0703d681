"""Quick evaluation: what a field says at labelled points and on the lattice."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.evaluation.quick import (
    evaluate_field,
    evaluate_fields,
    evaluate_points,
    lattice,
    point_iou,
    reconstruction_loss,
)
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


def test_the_lattice_is_the_originals():
    """evaluation.md 1: -0.484375 ... 0.484375, step 0.03125."""
    points = lattice()
    assert points.shape == (32**3, 3)
    np.testing.assert_allclose(
        points[[0, 1, 32, -1]],
        [
            [-0.484375, -0.484375, -0.484375],
            [-0.484375, -0.484375, -0.453125],
            [-0.484375, -0.453125, -0.484375],
            [0.484375, 0.484375, 0.484375],
        ],
    )


def test_the_loss_is_the_negative_log_likelihood_of_the_labels():
    labels = np.array([1, 0, 1, 0])
    assert reconstruction_loss(np.zeros(4), labels, "occupancy_logit") == pytest.approx(4 * np.log(2))
    logits = np.array([2.0, -1.0, -3.0, 50.0])
    chances = 1 / (1 + np.exp(-logits))
    byhand = -np.log([chances[0], 1 - chances[1], chances[2]]).sum() + 50
    assert reconstruction_loss(logits, labels, "occupancy_logit") == pytest.approx(byhand)
    assert reconstruction_loss(chances[:3], labels[:3], "occupancy") == pytest.approx(byhand - 50)
    assert np.isfinite(reconstruction_loss(np.array([0.0, 1.0]), np.array([1, 0]), "occupancy"))
    assert np.isnan(reconstruction_loss(logits, labels, "signed_distance"))


def test_a_field_is_scored_on_points_and_voxels():
    voxels = solids.three_boxes_inside(lattice()).reshape(32, 32, 32)

    def field(points):
        return np.where(solids.three_boxes_inside(points), 3.0, -3.0)

    row = evaluate_field(field, labelled(), voxels, "occupancy_logit", np.random.default_rng(0), kl=1.5)
    assert row["iou"] == row["iou_voxels"] == 1 and row["kl"] == 1.5 and row["points"] == 30_000
    assert row["reconstruction_loss"] == pytest.approx(2048 * np.log1p(np.exp(-3.0)))
    assert row["loss"] == row["reconstruction_loss"] + 1.5
    swapped = evaluate_field(
        lambda p: field(p[:, [1, 0, 2]]), labelled(), voxels, "occupancy_logit", np.random.default_rng(0)
    )
    assert swapped["iou_voxels"] < 0.5 and swapped["loss"] > row["loss"]


def test_shapes_are_encoded_together_and_scored_each_by_its_own_code():
    import torch

    class Spheres:
        device, level = torch.device("cpu"), 0.5
        declaration = SimpleNamespace(quantity="occupancy_logit")

        def encode(self, observations, seeds):
            return {"radius": observations["radius"], "kl": torch.tensor(seeds, dtype=torch.float32)}

        def field(self, code, queries):
            return 100 * (code["radius"][:, None] - queries.norm(dim=-1))

    radii = [0.3, 0.4]
    points = labelled(5_000)["points"]
    volumes = [{"points": points, "occupancies": solids.sphere_inside(points, 0.4)}] * 2
    grids = [solids.sphere_inside(lattice(), 0.4).reshape(32, 32, 32)] * 2
    observations = [{"radius": np.float32(radius)} for radius in radii]
    rngs = [np.random.default_rng(0) for _ in radii]
    rows = evaluate_fields(Spheres(), observations, [0, 2], volumes, grids, rngs)
    assert rows[1]["iou"] == 1 and rows[1]["kl"] == 2 and rows[0]["kl"] == 0
    for key in ("iou", "iou_voxels"):
        assert rows[0][key] == pytest.approx((0.3 / 0.4) ** 3, abs=0.05)
