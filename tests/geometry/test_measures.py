import numpy as np
import pytest

from pipeline.arrays import Mesh
from pipeline.geometry import measures
from tests import solids


def test_area_and_volume_of_three_boxes_are_exact():
    assert measures.area(solids.three_boxes()) == pytest.approx(solids.three_boxes_area())
    assert measures.volume(solids.three_boxes()) == pytest.approx(solids.three_boxes_volume())


def test_area_and_volume_approach_those_of_the_round_solid():
    sphere, torus = solids.icosphere(0.4, (1, 2, 3), 5), solids.torus(0.35, 0.15, sections=(192, 96))
    assert measures.area(sphere) == pytest.approx(solids.sphere_area(0.4), rel=1e-3)
    assert measures.volume(sphere) == pytest.approx(solids.sphere_volume(0.4), rel=1e-3)
    assert measures.area(torus) == pytest.approx(solids.torus_area(0.35, 0.15), rel=1e-3)
    assert measures.volume(torus) == pytest.approx(solids.torus_volume(0.35, 0.15), rel=2e-3)


def test_volume_is_negative_inside_out_and_does_not_depend_on_the_place():
    mesh = solids.three_boxes()
    assert measures.volume(solids.flipped(mesh)) == pytest.approx(-measures.volume(mesh))
    assert measures.volume(solids.moved(mesh, (1e6, -2e6, 3e6))) == pytest.approx(measures.volume(mesh), rel=1e-6)


def test_normals_of_a_sphere_point_outward():
    mesh = solids.icosphere(2.0, (5, 0, 0))
    outward = mesh.triangles.mean(axis=1) - (5, 0, 0)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    np.testing.assert_allclose(measures.face_normals(mesh), outward, atol=0.02)


def test_normal_of_a_face_without_area_is_zero():
    mesh = Mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2], [0, 1, 1]])
    np.testing.assert_array_equal(measures.face_normals(mesh), [[0, 0, 1], [0, 0, 0]])
