import numpy as np
import pytest

from pipeline.arrays import Rejected
from pipeline.geometry.inside import occupancy
from pipeline.geometry.measures import volume
from pipeline.geometry.quality import component_count, is_watertight
from pipeline.meshes import fusion
from pipeline.meshes.fusion import fused, view_rotations
from pipeline.meshes.watertight import AcceptanceSettings, FusionSettings, WatertightSettings, make_watertight
from tests import solids

SMALL = FusionSettings(image=80, focal=80, resolution=40, truncation=4)
VOXEL = 1 / 40 / 0.9  # of the small grid, in longest edges
LOOSE = AcceptanceSettings(mean_distance=0.012, max_added=0.06, edge_change=0.06, more_parts=True)
SPHERE = solids.icosphere(0.5, subdivisions=3)


def test_the_defaults_are_those_of_occupancy_networks():
    """onet.md, section 3.2."""
    assert FusionSettings().model_dump() == {
        "views": 100,
        "image": 640,
        "focal": 640.0,
        "resolution": 256,
        "padding": 0.1,
        "thickening": 1.5,
        "erosion": 3,
        "truncation": 10.0,
    }


def test_views_are_rotations_that_bring_each_direction_of_the_spiral_before_the_camera():
    rotations = view_rotations(100)
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (100, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    # Written out for the first view: y = -0.99, phi = pi (3 - sqrt 5).
    turn, ring = np.pi * (3 - 5**0.5), np.sqrt(1 - 0.99**2)
    x, y, z = np.cos(turn) * ring, -0.99, np.sin(turn) * ring
    lon, lat = -np.arctan2(x, y), np.arctan2(z, np.hypot(x, y))
    about_y = [[np.cos(lon), 0, np.sin(lon)], [0, 1, 0], [-np.sin(lon), 0, np.cos(lon)]]
    about_x = [[1, 0, 0], [0, np.cos(lat), -np.sin(lat)], [0, np.sin(lat), np.cos(lat)]]
    np.testing.assert_allclose(rotations[0], np.array(about_y) @ np.array(about_x), atol=1e-12)
    axes = rotations[:, 2]  # where each camera looks, in the shape's frame
    everywhere = np.random.default_rng(0).normal(size=(500, 3))
    everywhere /= np.linalg.norm(everywhere, axis=1, keepdims=True)
    assert (everywhere @ axes.T).max(axis=1).min() > 0.85


def test_a_sphere_is_centred_and_grows_by_part_of_the_thickening():
    surface = fused(SPHERE, SMALL)
    growth = np.linalg.norm(surface.vertices, axis=1) - 0.5
    assert is_watertight(surface)
    assert 0 < growth.mean() < 1.5 * VOXEL
    assert growth.min() > -0.3 * VOXEL
    np.testing.assert_allclose(surface.bounds.mean(axis=0), 0, atol=0.6 * VOXEL)
    thicker = fused(SPHERE, SMALL.model_copy(update={"thickening": 3.0}))
    assert volume(thicker) > volume(surface) > solids.sphere_volume(0.5)


def test_an_asymmetric_shape_comes_out_where_it_is():
    surface = fused(solids.three_boxes(), SMALL)
    points = np.random.default_rng(3).uniform(-0.5, 0.5, (6000, 3))
    sdf = solids.three_boxes_sdf(points)
    clear = (sdf < -0.3 * VOXEL) | (sdf > 6 * VOXEL)
    np.testing.assert_array_equal(occupancy(surface, points)[clear], sdf[clear] < 0)


def test_what_no_view_sees_is_solid_and_a_sheet_becomes_a_plate():
    hollow = solids.join(SPHERE, solids.flipped(solids.icosphere(0.3, subdivisions=3)))
    assert occupancy(fused(hollow, SMALL), np.zeros((1, 3)))[0]
    sheet = solids.Mesh(solids.box((1, 1, 0.5)).vertices, solids.box((1, 1, 0.5)).faces[:2])
    plate = fused(sheet, SMALL)
    assert is_watertight(plate)
    assert 0 < volume(plate) < 6 * VOXEL


def test_corners_of_the_grid_that_no_image_sees_are_free(monkeypatch):
    few = SMALL.model_copy(update={"views": 12})
    surface = fused(solids.box((1.0, 0.9, 1.0)), few)
    assert np.abs(surface.vertices).max() < 0.5 + 5 * VOXEL
    monkeypatch.setattr(fusion, "_free_corners", lambda *_: None)
    ghosts = fused(solids.box((1.0, 0.9, 1.0)), few)
    assert component_count(ghosts) > component_count(surface), "otherwise this test could not fail"


def test_the_grid_does_not_have_to_be_a_multiple_of_a_block():
    surface = fused(SPHERE, SMALL.model_copy(update={"resolution": 35}))
    assert is_watertight(surface)
    np.testing.assert_allclose(surface.bounds.mean(axis=0), 0, atol=0.02)


def test_fusion_is_a_link_of_the_chain():
    settings = WatertightSettings(chain=("fusion",), fusion=SMALL, acceptance=LOOSE, resolution=40)
    product = make_watertight(solids.moved(SPHERE, (3, 1, 2), 10), settings)
    assert (product.figures["link"], product.status) == ("fusion", "repaired")
    np.testing.assert_allclose(product.value.bounds.mean(axis=0), (3, 1, 2), atol=0.1)


def test_fusion_has_no_solid_reading():
    with pytest.raises(Rejected, match="leaves open shells hollow"):
        make_watertight(SPHERE, WatertightSettings(chain=("fusion",), fusion=SMALL, interior="solid"))
