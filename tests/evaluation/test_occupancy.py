"""Labels of many points: those of the inside test, made faster."""

import numpy as np
import pytest

from pipeline.arrays import Mesh
from pipeline.evaluation import occupancy
from pipeline.evaluation.inside import contains
from pipeline.evaluation.occupancy import inside_many, is_closed
from pipeline.geometry.clean import unwelded
from tests import solids


def points(count=60_000, box=1.1, seed=0):
    return (np.random.default_rng(seed).random((count, 3)) - 0.5) * box


@pytest.fixture(autouse=True)
def regions_for_few_points(monkeypatch):
    monkeypatch.setattr(occupancy, "FEWEST_POINTS", 2_000)


SPHERE = solids.icosphere(0.4, (0.03, -0.02, 0.01), 4)
HOLLOW = solids.join(SPHERE, solids.flipped(solids.icosphere(0.2, subdivisions=3)))
CLOSED = {
    "three boxes": solids.three_boxes(),
    "torus": solids.torus(),
    "hollow": HOLLOW,
    "overlapping": solids.join(SPHERE, solids.box((0.6, 0.5, 0.4), (0.2, 0, 0))),
    "inside out": solids.flipped(SPHERE),
    "soup": unwelded(SPHERE),
    "far away": solids.moved(SPHERE, (7.0, -3.0, 5.0)),
    "cube": solids.box((0.8, 0.8, 0.8)),
    "plate": solids.box((0.6, 0.4, 0.2)),
    "thin": solids.box((0.9, 0.8, 0.001)),
}


@pytest.mark.parametrize("method", ["parity", "waterproof"])
@pytest.mark.parametrize("name", CLOSED)
def test_closed_meshes_get_the_labels_of_the_inside_test(name, method):
    mesh = CLOSED[name]
    asked = points() + (np.array([7.0, -3.0, 5.0]) if name == "far away" else 0)
    labels = inside_many(mesh, asked, method)
    assert is_closed(mesh)
    assert labels.any() or name == "thin"
    assert (labels != contains(mesh, asked, method)).sum() <= 2  # rays through edges


def test_regions_that_the_surface_cuts_off_have_labels_of_their_own():
    asked = points(200_000)
    radius = np.linalg.norm(asked, axis=1)
    labels = inside_many(HOLLOW, asked, "parity")
    assert not labels[radius < 0.19].any() and labels[(radius > 0.21) & (radius < 0.35)].all()


@pytest.mark.parametrize("method", ["parity", "waterproof"])
def test_open_meshes_are_asked_point_by_point(method):
    cap = Mesh(SPHERE.vertices, SPHERE.faces[(SPHERE.triangles[:, :, 2] > -0.2).all(axis=1)])
    assert not is_closed(cap)
    asked = points(20_000)
    np.testing.assert_array_equal(inside_many(cap, asked, method), contains(cap, asked, method))


def test_few_points_and_odd_ones_are_answered():
    for asked in (np.zeros((0, 3)), np.array([[0.03, -0.02, 0.011]]), points(50)):
        np.testing.assert_array_equal(inside_many(SPHERE, asked, "parity"), contains(SPHERE, asked, "parity"))
    odd = np.concatenate([points(), [[np.nan, 0, 0], [np.inf, 0, 0], [9, 9, 9]]])
    assert not inside_many(SPHERE, odd, "parity")[-3:].any()
    assert not inside_many(Mesh(np.zeros((0, 3)), np.zeros((0, 3))), points(), "parity").any()
    assert not inside_many(solids.box((1, 1, 0)), points(), "parity").any()


@pytest.mark.parametrize("count", [3_000, 20_000, 64**3])
def test_the_lines_through_edges_do_not_mislabel_a_region(count):
    """The diagonals of a box's sides run through the centres of cells."""
    asked = points(count, seed=4)
    labels = inside_many(solids.box((0.6, 0.4, 0.2)), asked, "parity")
    np.testing.assert_array_equal(labels, solids.box_inside(asked, (0.6, 0.4, 0.2)))
