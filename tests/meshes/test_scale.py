import numpy as np
import pytest

from pipeline.arrays import Mesh, Rejected
from pipeline.meshes.scale import ScaleSettings, scale_to_off
from tests import solids

SHIFT, SIZE = np.array([120.0, -40.0, 7.0]), 35.0
SOURCE = solids.moved(solids.three_boxes(), SHIFT, SIZE)


def test_the_box_is_centred_and_its_longest_edge_is_one():
    mesh = scale_to_off(SOURCE, SOURCE, ScaleSettings()).value
    low, high = mesh.bounds
    np.testing.assert_allclose(low + high, 0, atol=1e-7)
    assert (high - low).max() == pytest.approx(1, abs=1e-7)
    np.testing.assert_allclose(high - low, np.ptp(solids.three_boxes().vertices, axis=0) / 0.72, atol=1e-7)


def test_loc_and_scale_lead_back_to_the_source_vertex_by_vertex():
    product = scale_to_off(SOURCE, SOURCE, ScaleSettings())
    back = np.array(product.figures["loc"]) + product.figures["scale"] * product.value.vertices
    np.testing.assert_allclose(back, SOURCE.vertices, atol=2e-6)
    np.testing.assert_array_equal(product.value.faces, SOURCE.faces)


def test_vertices_are_float32_numbers():
    vertices = scale_to_off(SOURCE, SOURCE, ScaleSettings()).value.vertices
    np.testing.assert_array_equal(vertices, vertices.astype(np.float32))


def test_the_raw_box_frames_the_watertight_mesh_when_asked():
    thicker = solids.box(np.array([1.02, 0.62, 0.32]) * SIZE, SHIFT)
    raw = solids.box(np.array([1.0, 0.6, 0.3]) * SIZE, SHIFT)
    mesh = scale_to_off(thicker, raw, ScaleSettings(box="raw")).value
    np.testing.assert_allclose(mesh.bounds, [[-0.51, -0.31, -0.16], [0.51, 0.31, 0.16]], atol=1e-6)


@pytest.mark.parametrize(("shift", "size"), [(0, 1e30), (0, 1e-30), (1e7, 0.01), (0, 1e39)])
def test_size_and_place_do_not_matter(shift, size):
    mesh = scale_to_off(*[solids.moved(solids.icosphere(), (shift,) * 3, size)] * 2, ScaleSettings()).value
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 0.5, atol=0.03)
    np.testing.assert_allclose(mesh.bounds.sum(axis=0), 0, atol=1e-6)


@pytest.mark.parametrize(
    "mesh", [Mesh([[1, 1, 1]] * 3, [[0, 1, 2]]), Mesh(np.zeros((0, 3)), np.zeros((0, 3))), Mesh([[0, 0, 0]], [])]
)
def test_a_mesh_without_extent_or_faces_is_rejected(mesh):
    with pytest.raises(Rejected, match=r"extent|no surface"):
        scale_to_off(mesh, mesh, ScaleSettings())
