"""What is decided by rays stays as it is however many of them slip through edges."""

import numpy as np
import pytest

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.closest import Scene
from pipeline.geometry.measures import face_normals
from pipeline.meshes.acceptance import outer_points
from pipeline.meshes.fusion import fused
from pipeline.meshes.interior import facing_out
from pipeline.meshes.keep import containment
from pipeline.meshes.slits import _clearances
from pipeline.meshes.views import hidden_points
from pipeline.meshes.watertight import FusionSettings, WatertightSettings, make_watertight
from pipeline.samples.views import ViewSettings, render_views
from tests import solids
from tests.leaks import SHARES, leaking

pytestmark = pytest.mark.parametrize("share", SHARES)

BOX = solids.box((1.0, 0.7, 0.5))
WALLED = solids.join(BOX, solids.box((0.8, 0.5, 0.3)), solids.icosphere(0.1, subdivisions=2))
RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-0.55, 0.55, (20_000, 3)).astype(np.float32)


def test_rays_do_slip_through(monkeypatch, share):
    """Otherwise the tests below could not fail."""
    leaking(monkeypatch, share)
    ways = np.broadcast_to(np.float32([0, 0, 1]), POINTS.shape)
    inside = solids.box_inside(POINTS, (1.0, 0.7, 0.5))
    missed = np.isinf(Scene(BOX).first_hits(POINTS, ways)[0])[inside].mean()
    assert (missed > 0) == (share > 0) and missed <= 3 * share


def test_inside_and_signs(monkeypatch, share):
    leaking(monkeypatch, share)
    scene, exact = Scene(solids.three_boxes()), solids.three_boxes_sdf(POINTS)
    most = 1e-4 if share == 0.01 else 0  # three rays in a row slip through once in a million points
    for inside in (scene.occupancy(POINTS), scene.signed_distance(POINTS) < 0):
        assert (inside != (exact < 0)).mean() <= most


def test_parts_that_hold_others(monkeypatch, share):
    leaking(monkeypatch, share)
    cells = [solids.moved(solids.box((0.1, 0.1, 0.1)), (x, y, 0.0)) for x in range(5) for y in range(5)]
    inner = [solids.moved(solids.box((0.05, 0.05, 0.05)), cell.vertices.mean(axis=0)) for cell in cells]
    pairs = containment([*cells, *inner])
    np.testing.assert_array_equal(pairs, np.stack([np.arange(25), np.arange(25) + 25], axis=1))


def test_outer_surface_and_hidden_points(monkeypatch, share):
    expected, _ = outer_points(WALLED, Scene(WALLED), 3000, 96)
    leaking(monkeypatch, share)
    found, _ = outer_points(WALLED, Scene(WALLED), 3000, 96)
    np.testing.assert_array_equal(found, expected)
    within = POINTS[:2000]
    clear = np.abs(solids.box_sdf(within, (1.0, 0.7, 0.5))) > 1e-3
    seen = hidden_points(Scene(BOX), within, 48)
    np.testing.assert_array_equal(seen[clear], solids.box_inside(within, (1.0, 0.7, 0.5))[clear])


def test_which_way_patches_face(monkeypatch, share):
    """Patches in the dark, which are as free on both sides, keep their windings."""
    leaking(monkeypatch, share)
    mesh = solids.join(solids.flipped(BOX), solids.box((0.8, 0.5, 0.3)), solids.flipped(solids.box((0.6, 0.3, 0.1))))
    expected = np.concatenate([face_normals(BOX), face_normals(BOX), -face_normals(BOX)])
    found = face_normals(facing_out(mesh, Scene(mesh)))
    turned = np.sign(np.einsum("ij,ij->i", found, expected))
    assert (turned == 1).all()


def test_walls_and_gaps(monkeypatch, share):
    leaking(monkeypatch, share)
    points = np.column_stack([RNG.uniform(-0.3, 0.3, (3000, 2)), np.full(3000, 0.25)])
    normals = np.broadcast_to((0.0, 0.0, 1.0), points.shape)
    before, behind = _clearances(Scene(BOX), points, normals)
    assert np.isinf(before).all()
    np.testing.assert_allclose(behind, 0.5, atol=1e-3)


@pytest.mark.parametrize("erosion", [1, 3])
def test_fused_images(monkeypatch, share, erosion):
    settings = FusionSettings(views=20, image=64, focal=64, resolution=24, truncation=2, erosion=erosion)
    expected = fused(WALLED, settings)
    leaking(monkeypatch, share)
    found = fused(WALLED, settings)
    np.testing.assert_array_equal(found.faces, expected.faces)
    np.testing.assert_allclose(found.vertices, expected.vertices, atol=0.1 / settings.resolution)


def test_depth_images(monkeypatch, share):
    settings = ViewSettings(views=2, resolution=32, depth=True)
    expected = render_views(BOX, settings, np.random.default_rng(0)).value["depths"]
    leaking(monkeypatch, share)
    found = render_views(BOX, settings, np.random.default_rng(0)).value["depths"]
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("chain", ["keep", "shell"])
def test_verdicts_on_closed_and_walled_shapes(monkeypatch, share, chain):
    mesh = solids.three_boxes() if chain == "keep" else Mesh(WALLED.vertices, WALLED.faces[1:])
    settings = WatertightSettings(chain=(chain,), resolution=32)
    expected = make_watertight(mesh, settings)
    leaking(monkeypatch, share)
    product = make_watertight(mesh, settings)
    assert product.figures["link"] == chain
    np.testing.assert_array_equal(product.value.vertices, expected.value.vertices)
    with pytest.raises(Rejected, match="open edges"):
        make_watertight(Mesh(BOX.vertices, BOX.faces[2:]), WatertightSettings(chain=("keep",)))
