"""Two meshes at hand: the numbers of the workflow, without it."""

import numpy as np
import pytest
import trimesh

import pipeline.evaluation
from pipeline.arrays import Mesh
from pipeline.evaluation import evaluate_pair
from pipeline.evaluation.shape import EvaluationSettings, evaluate_mesh
from pipeline.geometry.sampling import points_on_surface
from pipeline.seeds import rng_for
from tests import solids


def as_trimesh(mesh):
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def stored(mesh, inside, count=20_000):
    rng = np.random.default_rng(5)
    points, normals = points_on_surface(mesh, count, rng)
    queries = (rng.random((count, 3)) - 0.5) * 1.1
    return {"points": points, "normals": normals}, {"points": queries, "occupancies": inside(queries)}


def test_given_samples_make_it_the_row_of_evaluate_mesh():
    predicted = solids.moved(solids.three_boxes(), (0.01, 0.02, -0.01))
    surface, volume = stored(solids.three_boxes(), solids.three_boxes_inside)
    row = evaluate_pair(as_trimesh(predicted), None, seed=7, reference_samples=surface, query_points=volume)
    rng = rng_for(7, "evaluate_pair", "predicted")
    assert row == evaluate_mesh(predicted, surface, volume, EvaluationSettings(), rng).value


def test_fresh_samples_agree_with_stored_ones_within_sampling_noise():
    predicted = as_trimesh(solids.moved(solids.three_boxes(), (0.01, 0.02, -0.01)))
    reference = as_trimesh(solids.three_boxes())
    surface, volume = stored(solids.three_boxes(), solids.three_boxes_inside, 100_000)
    fresh = evaluate_pair(predicted, reference)
    given = evaluate_pair(predicted, reference, reference_samples=surface, query_points=volume)
    for key, tolerance in {"chamfer_l1": 0.02, "chamfer_l2": 0.04, "normal_consistency": 0.01, "f_0.01": 0.02}.items():
        assert fresh[key] == pytest.approx(given[key], rel=tolerance)
    assert fresh["iou"] == pytest.approx(given["iou"], abs=0.03)


def test_points_without_labels_are_labelled_by_the_reference():
    predicted, reference = (as_trimesh(solids.icosphere(radius, subdivisions=4)) for radius in (0.4, 0.41))
    surface, volume = stored(solids.icosphere(0.41, subdivisions=4), lambda p: solids.sphere_inside(p, 0.41))
    pairs = [("points", "normals"), ("points", "occupancies")]
    as_tuples = [tuple(arrays[name] for name in names) for arrays, names in zip((surface, volume), pairs, strict=True)]
    labelled = evaluate_pair(predicted, reference, reference_samples=as_tuples[0], query_points=as_tuples[1])
    unlabelled = evaluate_pair(predicted, reference, reference_samples=surface, query_points=volume["points"])
    assert labelled["chamfer_l1"] == unlabelled["chamfer_l1"]
    assert labelled["iou"] == pytest.approx(unlabelled["iou"], abs=0.01)
    assert unlabelled["iou"] == pytest.approx((0.4 / 0.41) ** 3, abs=0.01)


def test_a_seed_gives_the_same_numbers_and_another_seed_others():
    pair = as_trimesh(solids.box((1, 0.5, 0.3))), as_trimesh(solids.box((0.9, 0.5, 0.3)))
    given = {"reference_samples": stored(solids.box((0.9, 0.5, 0.3)), lambda p: p[:, 0] < 9, 2_000)[0]}
    given["query_points"] = np.array([[0.1, 0.11, 0.02]])
    first, again, other = (evaluate_pair(*pair, seed=seed, **given)["chamfer_l1"] for seed in (3, 3, 4))
    assert first == again != other


def test_failed_predictions_have_a_status_and_undefined_metrics():
    surface, volume = stored(solids.box(), lambda p: solids.box_inside(p, (1, 1, 1)), 100)
    given = {"reference_samples": surface, "query_points": volume}
    for predicted, status in [(None, "missing"), (Mesh(np.eye(3), np.zeros((0, 3))), "empty")]:
        row = evaluate_pair(predicted, solids.box(), **given)
        assert row["status"] == status
        assert np.isnan([row["iou"], row["chamfer_l1"], row["f_0.01"]]).all()


def test_a_reference_without_volume_has_no_iou():
    sheet = Mesh([[0, 0, 0], [0.5, 0, 0.1], [0, 0.5, 0.2]], [[0, 1, 2]])
    surface, _ = stored(sheet, lambda p: p[:, 0] > 9, 1_000)
    row = evaluate_pair(
        solids.box(), sheet, reference_samples=surface, query_points=np.linspace([-0.5] * 3, [0.5] * 3, 50)
    )
    assert np.isnan(row["iou"]) and row["status"] == "ok" and row["chamfer_l1"] > 0


def test_bad_references_profiles_and_samples_are_refused_with_a_message():
    with pytest.raises(ValueError, match="reference cannot be measured: the mesh has 3 vertices and no faces"):
        evaluate_pair(solids.box(), Mesh(np.eye(3), np.zeros((0, 3))))
    with pytest.raises(ValueError, match=r"no evaluation profile 'oent'.*did you mean 'onet'"):
        evaluate_pair(solids.box(), solids.box(), profile="oent")
    with pytest.raises(ValueError, match="expected points and normals of equal length"):
        evaluate_pair(solids.box(), solids.box(), reference_samples=(np.zeros((3, 3)), np.zeros((2, 3))))


def test_the_package_gives_the_function_by_name_only():
    assert pipeline.evaluation.evaluate_pair is evaluate_pair
    with pytest.raises(AttributeError, match="no attribute 'evaluate_pairs'"):
        _ = pipeline.evaluation.evaluate_pairs
