"""Evaluation of a mesh: right rows for good meshes, and a status with a reason for every kind of bad one."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.arrays import Mesh
from pipeline.evaluation.metrics import GENERAL
from pipeline.evaluation.profiles import PROFILES
from pipeline.evaluation.shape import EvaluationSettings, evaluate_mesh
from pipeline.geometry.sampling import points_on_surface
from pipeline.seeds import rng_for
from pipeline.settings import canonical_json, module_head
from tests import solids

FEW = EvaluationSettings(profiles=("onet",), samples=5_000, mesh_distance_points=500, mesh_quality=False)


def surface_of(mesh, count=5_000):
    points, normals = points_on_surface(mesh, count, np.random.default_rng(1))
    return {"points": points.astype(np.float32), "normals": normals.astype(np.float32)}


def volume_of(inside, count=20_000):
    points = ((np.random.default_rng(2).random((count, 3)) - 0.5) * 1.1).astype(np.float32)
    return {"points": points, "occupancies": inside(points)}


SURFACE, VOLUME = surface_of(solids.three_boxes()), volume_of(solids.three_boxes_inside)


def evaluated(mesh, surface=SURFACE, volume=VOLUME, settings=FEW, seed=0, reference=None, profile="onet"):
    product = evaluate_mesh(mesh, surface, settings, rng_for(seed, "test"), volume, reference)
    return product.value["profiles"][profile]


def test_the_onet_protocol_on_concentric_spheres_gives_the_goldens():
    surface = surface_of(solids.icosphere(0.41, subdivisions=5), 100_000)
    volume = volume_of(lambda points: solids.sphere_inside(points, 0.41), 100_000)
    settings = EvaluationSettings(mesh_quality=False)
    row = evaluated(solids.icosphere(0.4, subdivisions=5), surface, volume, settings)
    assert row["status"] == "ok" and row["reason"] == ""
    assert row["chamfer_l1"] == pytest.approx(0.01032, rel=0.02)
    assert row["chamfer_l2"] == pytest.approx(1.066e-4, rel=0.02)
    assert row["normal_consistency"] == pytest.approx(0.99998, abs=3e-4)
    assert row["iou"] == pytest.approx(0.92860, abs=0.005)
    assert row["f_0.015"] == 1 and row["f_0.005"] == 0
    assert row["predicted_samples"] == row["reference_samples"] == row["iou_points"] == 100_000


def test_the_right_mesh_scores_full_and_reports_what_it_is():
    row = evaluated(solids.three_boxes())
    assert row["iou"] == 1
    assert row["normal_consistency"] > 0.94  # samples beside an edge meet the other side's
    assert row["chamfer_l1"] < 0.01
    assert row["predicted_watertight"] is True
    assert row["predicted_faces"] == 36
    assert row["predicted_volume"] == pytest.approx(solids.three_boxes_volume())


def test_shifts_of_half_a_voxel_and_swapped_axes_show():
    boxes = solids.three_boxes()
    right = evaluated(boxes)
    shifted = evaluated(solids.moved(boxes, (1.1 / 128 / 2,) * 3))
    swapped = evaluated(Mesh(boxes.vertices[:, [1, 0, 2]], boxes.faces[:, ::-1]))
    assert shifted["iou"] < 0.93 and shifted["accuracy2"] > 1.05 * right["accuracy2"]
    assert swapped["iou"] < 0.3 and swapped["chamfer_l1"] > 0.05


def test_half_a_sphere_against_a_sphere_is_accurate_incomplete_and_open():
    ball = solids.icosphere(0.4, subdivisions=4)
    cap = Mesh(ball.vertices, ball.faces[(ball.triangles[:, :, 2] > 0).all(axis=1)])
    volume = volume_of(lambda points: solids.sphere_inside(points, 0.4))
    row = evaluated(cap, surface_of(ball), volume)
    assert row["accuracy"] < 0.012 < 0.08 < row["completeness"]
    assert row["status"] == "ok" and row["predicted_watertight"] is False
    assert row["reason"] == "the mesh is not watertight; IoU is by ray parity"
    assert row["iou"] == 0  # no point has the surface on both sides along z


def test_an_inside_out_mesh_is_measured_and_says_so():
    row, right = evaluated(solids.flipped(solids.three_boxes())), evaluated(solids.three_boxes())
    assert row["reason"] == "the mesh is inside out" and row["predicted_volume"] < 0
    assert row["iou"] == right["iou"]
    assert row["normal_consistency"] == pytest.approx(right["normal_consistency"], abs=0.01)


def test_parts_that_overlap_and_what_leaves_the_points_are_remarked_on():
    left, right = solids.box((0.6, 0.6, 0.6), (-0.1, 0, 0)), solids.box((0.6, 0.6, 0.6), (0.1, 0, 0))
    union = solids.box((0.8, 0.6, 0.6))
    volume = volume_of(lambda points: solids.box_inside(points, (0.8, 0.6, 0.6)))
    row = evaluated(solids.join(left, right), surface_of(union), volume)
    assert row["reason"].startswith("closed parts of the mesh overlap: ") and row["iou"] == pytest.approx(0.5, abs=0.03)
    far = evaluated(solids.moved(union, (0.3, 0, 0)), surface_of(union), volume)
    assert far["reason"].startswith("the mesh leaves the cube ±0.55 of the IoU, and what lies beyond counts nowhere")
    assert evaluated(union, surface_of(union), volume)["reason"] == ""


def with_vertex(mesh, index, position):
    vertices = mesh.vertices.copy()
    vertices[index] = position
    return Mesh(vertices, mesh.faces)


BAD = {
    "missing": (None, "missing", "there is no mesh"),
    "no faces": (Mesh(np.zeros((4, 3)), np.zeros((0, 3))), "empty", "4 vertices and no faces"),
    "no area": (Mesh(np.eye(3), [[0, 0, 1], [2, 2, 2]]), "empty", "all 2 faces have zero area"),
    "NaN vertex": (with_vertex(solids.three_boxes(), 3, np.nan), "invalid", "1 of 24 vertices are not finite"),
    "infinite vertex": (with_vertex(solids.box(), 0, np.inf), "invalid", "1 of 8 vertices are not finite"),
    "far vertex": (with_vertex(solids.box(), 0, 1e300), "invalid", "area is not finite"),
    "infinite square": (with_vertex(solids.box(), 0, 1e145), "invalid", "lie up to 1e+145 from the origin"),
    "bad face": (Mesh(np.eye(3), [[0, 1, 7]]), "invalid", "faces name vertices up to 7, the mesh has 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mesh_that_cannot_be_measured_has_a_status_a_reason_and_no_numbers(name):
    mesh, status, reason = BAD[name]
    row = evaluated(mesh)
    assert row["status"] == status
    assert reason in row["reason"]
    assert all(row[key] is None for key in (*GENERAL, "printed_chamfer_l1"))
    assert row.keys() == evaluated(solids.box()).keys()
    assert row["reference_has_volume"] is True


def test_vertices_that_no_face_uses_do_not_count():
    boxes = solids.three_boxes()
    padded = Mesh(np.concatenate([boxes.vertices, [[np.nan] * 3, [9, 9, 9]]]), boxes.faces)
    assert evaluated(padded) == evaluated(boxes)


def test_faces_that_do_not_share_vertices_can_still_be_watertight():
    boxes = solids.three_boxes()
    loose = Mesh(boxes.triangles.reshape(-1, 3), np.arange(108).reshape(-1, 3))
    assert evaluated(loose)["predicted_watertight"] is True


@pytest.mark.parametrize("volume", [None, {**VOLUME, "occupancies": np.zeros(20_000, bool)}])
def test_without_a_reference_volume_iou_is_undefined_and_the_rest_is_not(volume):
    row = evaluated(solids.three_boxes(), volume=volume)
    assert row["iou"] is None and row["reference_has_volume"] is False
    assert row["status"] == "ok" and row["chamfer_l1"] < 0.01
    assert row["reason"] == "the reference has no volume, so IoU is undefined"
    boxes = solids.three_boxes()
    open_mesh = evaluated(Mesh(boxes.vertices, boxes.faces[2:]), volume=volume)
    assert open_mesh["reason"] == "the mesh is not watertight; the reference has no volume, so IoU is undefined"


def test_a_row_is_json_and_depends_on_nothing_but_its_arguments():
    rows = [canonical_json(evaluated(solids.three_boxes(), seed=seed)) for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]
    assert json.loads(rows[0])["status"] == "ok"
    assert json.loads(canonical_json(evaluated(None)))["iou"] is None


def test_the_inputs_stay_as_they_are():
    surface, volume = ({k: v.copy() for k, v in arrays.items()} for arrays in (SURFACE, VOLUME))
    evaluated(solids.three_boxes(), surface, volume)
    for arrays, originals in ((surface, SURFACE), (volume, VOLUME)):
        assert all(np.array_equal(arrays[key], originals[key]) for key in originals)


def test_a_misspelt_profile_in_the_settings_is_refused():
    assert EvaluationSettings().profiles == ("onet", "convonet", "nmf")
    assert set(EvaluationSettings(profiles=tuple(PROFILES)).profiles) == set(PROFILES)
    with pytest.raises(ValidationError):
        EvaluationSettings(profiles=["onnet"])
    with pytest.raises(ValidationError):
        EvaluationSettings(profiles=[])


def test_settings_are_read_without_loading_a_library():
    head = module_head("pipeline.evaluation.shape")
    assert head.EvaluationSettings().model_dump() == EvaluationSettings().model_dump()
    assert not hasattr(head, "np")


def test_profiles_listed_together_give_what_each_gives_alone():
    """One study may name them all: what they share is measured once, and none changes another's values."""
    mesh = solids.moved(solids.three_boxes(), (0.01, 0.02, -0.01))
    names = ("onet", "convonet", "air-ifnet", "air-onet", "deepsdf", "nmf")

    def rows(*profiles):
        settings = EvaluationSettings(profiles=profiles, samples=3_000, mesh_distance_points=300)
        product = evaluate_mesh(mesh, SURFACE, settings, rng_for(0, "test"), VOLUME, solids.three_boxes())
        return product.value["profiles"]

    together = rows(*names)
    assert set(together) == set(names)
    for name in ("convonet", "air-ifnet", "nmf"):
        assert rows(name)[name] == together[name]
    assert together["onet"]["chamfer_l1"] == together["air-onet"]["chamfer_l1"] != together["air-ifnet"]["chamfer_l1"]
    assert together["onet"]["iou"] == together["air-onet"]["iou"] != together["air-ifnet"]["iou"]
    assert together["deepsdf"]["iou"] is None and together["deepsdf"]["reference_has_volume"] is None


def test_samples_are_made_once_for_all_profiles_that_share_them(monkeypatch):
    from pipeline.evaluation import measure

    drawn, draw = [], measure.points_on_surface
    monkeypatch.setattr(measure, "points_on_surface", lambda *a: drawn.append(a[1]) or draw(*a))
    settings = EvaluationSettings(
        profiles=("onet", "convonet", "air-onet", "ifnet", "air-ifnet"),
        samples=1_000,
        mesh_distance_points=0,
        mesh_quality=False,
    )
    evaluate_mesh(solids.box(), SURFACE, settings, rng_for(0, "test"), VOLUME, solids.box())
    assert drawn == [1_000, 1_000]  # once on the prediction, once afresh on the reference


def test_distances_to_the_meshes_have_no_floor_and_tell_both_directions():
    ball = solids.icosphere(0.4, subdivisions=4)
    cap = Mesh(ball.vertices, ball.faces[(ball.triangles[:, :, 2] > 0).all(axis=1)])
    row = evaluated(cap, surface_of(ball), reference=ball)
    assert row["accuracy_mesh"] < 1e-6 < 0.002 < row["accuracy"]
    assert row["completeness_mesh"] == pytest.approx(row["completeness"], abs=0.02) and row["completeness_mesh"] > 0.08
    assert evaluated(ball, surface_of(ball))["accuracy_mesh"] is None  # without a reference mesh


def test_mesh_quality_is_told_where_it_is_asked_for():
    settings = EvaluationSettings(profiles=("onet",), samples=500)
    crossed = solids.join(solids.box((0.6, 0.5, 0.4)), solids.box((0.5, 0.3, 0.6), (0.1, 0.03, 0.01)))
    row = evaluated(crossed, settings=settings)
    assert row["predicted_components"] == 2 and row["predicted_euler_characteristic"] == 4
    assert row["predicted_self_intersections"] > 0 and row["predicted_nonmanifold_edges"] == 0
    assert "predicted_components" not in evaluated(crossed)


def test_a_fresh_profile_asks_the_reference_mesh_whether_there_is_a_volume():
    sheet = Mesh([[0, 0, 0], [0.5, 0, 0.1], [0, 0.5, 0.2]], [[0, 1, 2]])
    settings = EvaluationSettings(profiles=("ifnet",), samples=3_000, mesh_distance_points=0, mesh_quality=False)
    for predicted in (solids.box(), None):
        row = evaluated(predicted, settings=settings, reference=sheet, profile="ifnet")
        assert row["iou"] is None and row["reference_has_volume"] is False
    assert evaluated(None, settings=settings, reference=solids.box(), profile="ifnet")["reference_has_volume"] is True
