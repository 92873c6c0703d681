"""Two meshes at hand: the numbers of the workflow, without it, under every profile."""

import numpy as np
import pytest
import trimesh

import pipeline.evaluation
from pipeline.arrays import Mesh
from pipeline.evaluation import evaluate_pair
from pipeline.evaluation.measure import Reference
from pipeline.evaluation.pair import evaluate_profiles
from pipeline.evaluation.profiles import PROFILES
from pipeline.evaluation.shape import EvaluationSettings, evaluate
from pipeline.geometry.sampling import points_on_surface
from pipeline.seeds import stream_seed
from tests import solids


def as_trimesh(mesh):
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def stored(mesh, inside, count=20_000):
    rng = np.random.default_rng(5)
    points, normals = points_on_surface(mesh, count, rng)
    queries = (rng.random((count, 3)) - 0.5) * 1.1
    return {"points": points, "normals": normals}, {"points": queries, "occupancies": inside(queries)}


def test_given_samples_make_it_the_row_of_the_workflow():
    predicted = solids.moved(solids.three_boxes(), (0.01, 0.02, -0.01))
    surface, volume = stored(solids.three_boxes(), solids.three_boxes_inside)
    row = evaluate_pair(as_trimesh(predicted), None, seed=7, reference_samples=surface, query_points=volume)
    reference, settings = (
        Reference(None, surface, volume),
        EvaluationSettings(mesh_distance_points=0, mesh_quality=False),
    )
    whole = evaluate(predicted, reference, {"onet": PROFILES["onet"]}, settings, stream_seed(7, "evaluate_pair"))[
        "onet"
    ]
    np.testing.assert_equal(row, whole)
    assert row["reference_samples"] == row["iou_points"] == 20_000


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
    assert pipeline.evaluation.manifoldness(solids.box())["watertight"] is True
    with pytest.raises(AttributeError, match="no attribute 'evaluate_pairs'"):
        _ = pipeline.evaluation.evaluate_pairs


BALL = solids.icosphere(0.4, subdivisions=4)
LARGER = solids.icosphere(0.41, subdivisions=4)
CAP = Mesh(BALL.vertices, BALL.faces[(BALL.triangles[:, :, 2] > 0).all(axis=1)])
KEYS = (
    *("iou", "chamfer_l1", "chamfer_l2", "accuracy", "completeness", "accuracy2", "completeness2"),
    *("normal_consistency", "f_0.005", "f_0.01", "f_0.015", "f_0.02", "status", "reason"),
)
QUICK = [name for name in PROFILES if name not in ("imnet", "neuralpull")]


@pytest.mark.parametrize("name", QUICK)
def test_concentric_spheres_give_the_goldens_of_every_profile(name):
    """evaluation.md 5: 100,000 samples a side; fewer add their own floor, 0.5 sqrt(A / n) and A / (pi n)."""
    row, volume = evaluate_pair(BALL, LARGER, profile=name), PROFILES[name].volume
    assert set(KEYS) <= row.keys() and row["status"] == "ok"
    floor2 = 2.06 / np.pi / row["predicted_samples"]  # on the mean of both areas
    assert row["chamfer_l2"] == pytest.approx(0.01**2 + floor2, rel=0.03)
    assert row["f_0.005"] == 0
    if volume is None:
        assert np.isnan(row["iou"])
    else:
        assert row["iou"] == pytest.approx((0.40 / 0.41) ** 3, abs=5 * 0.0013 * (100_000 / row["iou_points"]) ** 0.5)


@pytest.mark.parametrize("name", ["onet", "deepsdf", "nmf"])
def test_half_a_sphere_against_a_sphere_is_accurate_and_not_complete(name):
    half, whole = evaluate_pair(CAP, BALL, profile=name), evaluate_pair(BALL, CAP, profile=name)
    floor = 0.5 * np.sqrt(2.01 / half["reference_samples"])
    assert half["accuracy"] < 1.2 * floor and half["completeness"] > 0.08
    assert whole["completeness"] < 1.2 * floor and whole["accuracy"] > 0.08
    assert half["recall_0.02"] < 0.6 < 0.95 < half["precision_0.02"] or floor > 0.006


def test_deepsdf_prints_the_sum_of_squares_in_the_frame_of_the_diagonal():
    row = evaluate_pair(BALL, LARGER, profile="deepsdf")
    diagonal = 0.82 * 3**0.5
    assert row["printed_cd"] == pytest.approx(1000 * (row["accuracy2"] + row["completeness2"]) / diagonal**2, rel=1e-3)
    assert row["printed_emd"] == pytest.approx(row["emd"] / diagonal, rel=1e-3)
    assert row["mesh_accuracy"] == pytest.approx(0.01, abs=3e-4)  # 90 % of the samples lie 0.01 off the other sphere
    assert row["printed_mesh_accuracy"] == pytest.approx(row["mesh_accuracy"] / diagonal, rel=1e-3)
    assert row["mesh_completion"] == 1  # 0.01 / diagonal is below 0.01
    assert row["mesh_cosine"] > 0.999 and evaluate_pair(solids.flipped(BALL), LARGER, "deepsdf")["mesh_cosine"] < -0.999


def test_deepsdf_sampling_floor_is_the_sheets():
    """deepsdf.md 8: two samplings of one sphere of radius 0.5, 30,000 points each, give 0.0667e-3."""
    ball = solids.icosphere(0.5, subdivisions=5)
    row = evaluate_pair(ball, ball, profile="deepsdf")
    assert row["accuracy2"] + row["completeness2"] == pytest.approx(0.0667e-3, rel=0.03)


def test_deepsdf_sees_what_half_a_mesh_lacks():
    half, whole = evaluate_pair(CAP, BALL, profile="deepsdf"), evaluate_pair(BALL, CAP, profile="deepsdf")
    assert half["mesh_accuracy"] < 1e-3 < 0.3 < whole["mesh_accuracy"]
    assert half["mesh_completion"] == pytest.approx(0.5, abs=0.05) and whole["mesh_completion"] == 1
    assert half["emd"] > 0.1


def test_imnet_counts_its_lattice_in_the_frame_of_the_diagonal():
    reference, predicted = solids.box((0.6, 0.4, 0.2)), solids.box((0.6, 0.4, 0.1), (0, 0, -0.05))
    row = evaluate_pair(predicted, reference, profile="imnet", seed=1)
    diagonal = float(np.linalg.norm([0.6, 0.4, 0.2]))
    assert row["iou"] == pytest.approx(0.5, abs=0.03) and row["iou_points"] == 64**3
    assert row["voxel_error"] == pytest.approx(0.6 * 0.4 * 0.1 / diagonal**3, rel=0.1)
    assert row["printed_cd"] == pytest.approx(2000 * row["chamfer_l2"] / diagonal**2)
    assert row["light_field_distance"] > 100
    assert row["accuracy2"] < row["completeness2"]


def test_neuralpull_counts_as_its_sheet_says():
    half = evaluate_pair(CAP, BALL, profile="neuralpull")
    assert half["predicted_samples"] == 1_000_000 and half["reference_samples"] == 100_000
    assert half["printed_chamfer_l2"] == pytest.approx(100 * half["chamfer_l2"])
    assert half["printed_normal_consistency"] > half["normal_consistency"]
    assert half["accuracy"] < 0.003 < 0.1 < half["completeness"]
    assert half["printed_f_0.002"] < half["printed_f_0.004"]


def test_nmf_forgives_a_shift_and_a_scale_in_what_it_prints_only():
    moved = solids.moved(Mesh(0.5 * BALL.vertices, BALL.faces), (0.1, 0.2, 0.3))
    row, same = evaluate_pair(moved, BALL, profile="nmf"), evaluate_pair(BALL, BALL, profile="nmf")
    assert row["printed_cd"] == pytest.approx(same["printed_cd"], rel=0.4) and row["chamfer_l1"] > 0.1
    # In a frame of radius 1: 10,000 samples a side on an area of 4 pi, and centres that are off by 1 / sqrt(10,000)
    assert 1000 * 2 * 4 / 10_000 < same["printed_cd"] < 2
    assert same["printed_normal_consistency"] > 0.99
    assert evaluate_pair(solids.flipped(BALL), BALL, profile="nmf")["printed_normal_consistency"] < -0.99
    assert evaluate_pair(solids.flipped(BALL), BALL, profile="nmf")["printed_abs_normal_consistency"] > 0.99


def test_nmf_counts_a_missing_face_as_non_manifold_edges():
    """nmf.md 6: an icosphere has none, one face less gives three, over three times the faces."""
    holed = Mesh(BALL.vertices, BALL.faces[1:])
    row = evaluate_pair(holed, BALL, profile="nmf")
    assert row["nme_published"] == pytest.approx(3 / (3 * len(holed.faces))) and row["nmv_published"] == 0
    assert row["nme_corrected"] == pytest.approx(2 * row["nme_published"], rel=0.01)


def test_humans_are_printed_in_the_frame_of_one_smallest_and_one_largest_coordinate():
    scan, fit = (solids.moved(mesh, (0.1, 0.2, 0.3)) for mesh in (LARGER, BALL))
    row = evaluate_pair(fit, scan, profile="air-human")
    extent = 0.71 - (-0.31)
    assert row["printed_chamfer_l1"] == pytest.approx(row["chamfer_l1"] / extent, rel=1e-3)
    assert row["iou"] == pytest.approx((0.4 / 0.41) ** 3, abs=0.005)


def test_several_profiles_at_once_give_what_each_gives():
    rows = evaluate_profiles(CAP, BALL, ["deepsdf", "nmf"], seed=3)
    for name, row in rows.items():
        np.testing.assert_equal(row, evaluate_pair(CAP, BALL, profile=name, seed=3))


def test_details_add_quality_and_distances_to_the_meshes():
    row = evaluate_pair(CAP, BALL, details=True)
    assert row["accuracy_mesh"] < 1e-6 < 0.08 < row["completeness_mesh"]
    assert row["predicted_components"] == 1 and row["predicted_boundary_edges"] > 0
    assert row["predicted_watertight"] is False and "IoU is by ray parity" in row["reason"]


def test_waterproofing_sees_an_inside_where_parity_sees_none():
    lidless = Mesh(solids.box((0.8,) * 3).vertices, solids.box((0.8,) * 3).faces[2:])
    parity, waterproof = (evaluate_pair(lidless, solids.box((0.8,) * 3), profile=p) for p in ("onet", "air-onet"))
    assert waterproof["iou"] > 0.99 or parity["iou"] > 0.99  # the hole is seen along one axis only
    assert "implicit waterproofing" in waterproof["reason"]


def test_a_reference_without_volume_has_no_iou_whatever_the_prediction_holds():
    sheet = Mesh([[-0.4, -0.4, 0], [0.4, -0.4, 0.1], [0, 0.4, 0.2]], [[0, 1, 2]])
    for name in ("onet", "air-onet"):
        few = points_on_surface(sheet, 500, np.random.default_rng(0))
        row = evaluate_pair(solids.box((0.5, 0.5, 0.5)), sheet, profile=name, reference_samples=few)
        assert np.isnan(row["iou"]) and row["reference_has_volume"] is False and row["status"] == "ok"


@pytest.fixture
def few(monkeypatch):
    """Fewer samples, for what does not depend on their number."""
    settings = EvaluationSettings(mesh_distance_points=0, mesh_quality=False, samples=8_000)
    monkeypatch.setattr("pipeline.evaluation.pair.QUICK", settings)


def scaled(mesh, factor):
    return Mesh(factor * mesh.vertices, mesh.faces)


BRICK, SMALLER = solids.box((0.8, 0.6, 0.4)), solids.box((0.64, 0.48, 0.32))


@pytest.mark.parametrize(
    "reference",
    [scaled(BRICK, 500), scaled(BRICK, 2), solids.moved(BRICK, (5, 0, 0)), solids.moved(BRICK, (0.2, 0, 0))],
    ids=["millimetres", "twice as large", "beside the cube", "partly beside it"],
)
def test_a_reference_that_leaves_the_cube_is_refused_with_its_box_and_the_way_out(reference, few):
    for name, cube in (("onet", "±0.55"), ("convonet", "±0.55"), ("ifnet", "±0.5"), ("air-onet", "±0.55")):
        with pytest.raises(ValueError, match=f"leaves the cube {cube} in which the {name} profile") as raised:
            evaluate_pair(SMALLER, reference, profile=name)
        assert f"{reference.bounds[1][0]:.4g}" in str(raised.value)
        assert "longest edge is 1, as isomill eval does" in str(raised.value)


def test_each_profile_has_its_own_cube(few):
    reference = solids.box((1.04, 0.6, 0.4))  # as where the raw mesh's box was scaled to 1
    assert evaluate_pair(BRICK, reference, profile="onet")["iou"] == pytest.approx(0.192 / 0.2496, abs=0.05)
    with pytest.raises(ValueError, match=r"leaves the cube ±0\.5 in which the ifnet profile"):
        evaluate_pair(BRICK, reference, profile="ifnet")
    assert evaluate_pair(BRICK, solids.box((1.0004, 0.6, 0.4)), profile="ifnet")["reason"] == ""


@pytest.mark.parametrize("name", ["imnet", "air-human", "deepsdf", "nmf"])
def test_profiles_that_measure_in_a_frame_of_the_reference_take_it_anywhere(name, few):
    here = evaluate_pair(SMALLER, BRICK, profile=name)
    there = evaluate_pair(scaled(SMALLER, 500), scaled(BRICK, 500), profile=name)
    for key in (f"printed_{key}" for key in PROFILES[name].printed):
        assert there[key] == pytest.approx(here[key], rel=1e-3), key
    np.testing.assert_equal(there["iou"], here["iou"])
    assert "the reference's longest edge is 400, and 1 in the frame that F-scores are meant for" in there["reason"]


def test_given_points_of_the_iou_are_taken_wherever_they_lie(few):
    points = (np.random.default_rng(0).random((20_000, 3)) - 0.5) * 500
    row = evaluate_pair(scaled(SMALLER, 500), scaled(BRICK, 500), query_points=points)
    assert row["iou"] == pytest.approx(0.512, abs=0.02) and "no volume" not in row["reason"]


@pytest.mark.parametrize("name", ["onet", "air-onet"])
def test_a_prediction_that_leaves_the_cube_is_scored_and_says_so(name, few):
    row = evaluate_pair(scaled(BRICK, 2), BRICK, profile=name)
    assert "the mesh leaves the cube ±0.55 of the IoU" in row["reason"] and "(-0.8, -0.6, -0.4)" in row["reason"]
    # In the cube the prediction fills 1.1 x 1.1 x 0.8.
    assert row["iou"] == pytest.approx(0.192 / 0.968, abs=0.03) and row["status"] == "ok"
    assert evaluate_pair(SMALLER, BRICK, profile=name)["reason"] == ""


def test_a_prediction_in_another_unit_is_asked_about(few):
    assert "500 times the reference's; are both in one frame?" in evaluate_pair(scaled(BRICK, 500), BRICK)["reason"]
    assert "0.01 times the reference's; are both in one frame?" in evaluate_pair(scaled(BRICK, 0.01), BRICK)["reason"]


def test_a_reference_between_all_points_has_no_iou_and_says_why(few):
    row = evaluate_pair(scaled(BRICK, 1e-3), scaled(BRICK, 1e-3))
    assert (
        np.isnan(row["iou"]) and "no point of the IoU lies inside the reference, so IoU is undefined" in row["reason"]
    )
    assert "the reference's longest edge is 0.0008" in row["reason"]


def test_several_profiles_refuse_nothing_and_leave_undefined_what_has_no_meaning(few):
    rows = evaluate_profiles(scaled(SMALLER, 500), scaled(BRICK, 500), ["onet", "ifnet", "deepsdf"])
    for name in ("onet", "ifnet"):
        assert np.isnan(rows[name]["iou"]) and rows[name]["reference_has_volume"] is False
        assert "the reference leaves the cube ±0.5" in rows[name]["reason"]
        assert rows[name]["chamfer_l1"] > 10
    assert np.isnan(rows["deepsdf"]["iou"]) and rows["deepsdf"]["printed_cd"] > 0
    missing = evaluate_profiles(None, scaled(BRICK, 500), ["onet"])["onet"]
    assert missing["status"] == "missing" and missing["reference_has_volume"] is False
    within = evaluate_profiles(BRICK, solids.box((1.04, 0.6, 0.4)), ["ifnet"])["ifnet"]
    assert within["iou"] == pytest.approx(0.192 / 0.24, abs=0.05)  # of what lies in ±0.5
    assert "the reference leaves the cube ±0.5 of the IoU" in within["reason"]


def test_parts_that_overlap_are_remarked_on_for_either_side(few):
    left, right = solids.box((0.6, 0.6, 0.6), (-0.1, 0, 0)), solids.box((0.6, 0.6, 0.6), (0.1, 0, 0))
    union, both = solids.box((0.8, 0.6, 0.6)), solids.join(left, right)
    for name, test in (("onet", "ray parity"), ("air-onet", "implicit waterproofing")):
        row = evaluate_pair(both, union, profile=name)
        share = float(row["reason"].partition("overlap: ")[2].partition("%")[0])
        assert share == pytest.approx(50, abs=5) and f"which {test} counts as outside" in row["reason"]
        assert row["iou"] == pytest.approx(0.5, abs=0.05)  # the overlap is half of the union
        turned = evaluate_pair(union, both, profile=name)["reason"]
        assert "closed parts of the reference overlap" in turned and "the mesh" not in turned
    assert "overlap" not in evaluate_pair(both, union, profile="deepsdf")["reason"]  # it asks for no inside
