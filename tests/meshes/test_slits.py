"""Recesses behind mouths that the shell's grid closes."""

import numpy as np
import pytest

from pipeline.arrays import Mesh
from pipeline.geometry.closest import Scene, distance
from pipeline.geometry.measures import volume
from pipeline.geometry.quality import is_watertight, nonmanifold_vertices
from pipeline.geometry.solids import mesh_of, solid
from pipeline.meshes import pockets, slits
from pipeline.meshes.acceptance import Original
from pipeline.meshes.shell import offset_shell
from pipeline.meshes.watertight import AcceptanceSettings, WatertightSettings, make_watertight
from tests import solids

VOXEL = 1 / 64
BLOCK = (1.0, 0.6, 0.5)


def keyhole(mouth: float, width: float = 2.5, depth: float = 6.0) -> Mesh:
    """A block with a groove along its top: a slit of `mouth` voxels, 3 deep, over a channel; lengths in voxels."""
    top = BLOCK[2] / 2
    slit = solids.box((0.8, mouth * VOXEL, 8 * VOXEL), (0.013, 0.021, top))
    channel = solids.box((0.8, width * VOXEL, depth * VOXEL), (0.013, 0.021, top - (3 + depth / 2) * VOXEL))
    return mesh_of(solid(solids.box(BLOCK)) - solid(slit) - solid(channel))


def hollow_with_crack(crack: float) -> Mesh:
    """A box of sheets, its lid open along one edge by `crack` voxels."""
    mesh = solids.box((1.0, 0.7, 0.6))
    lid = (mesh.triangles[:, :, 2] == 0.3).all(axis=1)
    corners = mesh.triangles.copy()
    corners[lid, :, 1] = np.minimum(corners[lid, :, 1], 0.35 - crack * VOXEL)
    return Mesh(corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3))


def closed(mesh: Mesh, **changes):
    return make_watertight(mesh, WatertightSettings(chain=("shell",), resolution=64, **changes))


def channel_walls(count: int = 2000) -> np.ndarray:
    """Points on the floor and the sides of a keyhole's channel, away from its ends."""
    rng = np.random.default_rng(0)
    x, z = rng.uniform(-0.3, 0.3, count), rng.uniform(-8.5, -3.5, count) * VOXEL + BLOCK[2] / 2
    side = 0.021 + rng.choice([-1.25, 1.25], count) * VOXEL
    across, bottom = 0.021 + rng.uniform(-1.25, 1.25, count) * VOXEL, np.full(count, BLOCK[2] / 2 - 9 * VOXEL)
    floor = np.stack([x, across, bottom], axis=1)
    return np.concatenate([np.stack([x, side, z], axis=1), floor])


@pytest.mark.parametrize("mouth", [0.55, 0.7, 1.0])
def test_a_channel_behind_a_slit_narrower_than_a_voxel_is_followed(mouth):
    mesh = keyhole(mouth)
    product = closed(mesh, slits=(4,))
    assert is_watertight(product.value)
    assert nonmanifold_vertices(product.value) == 0
    assert product.figures["slits"] == 4
    assert product.figures["components"] == 1
    assert distance(product.value, channel_walls()).max() < VOXEL
    assert volume(product.value) == pytest.approx(volume(mesh), rel=0.04)  # a quarter of a voxel all round


def test_slits_stay_closed_where_that_is_asked_for():
    product = closed(keyhole(0.7), slits=())
    assert product.figures["slits"] == 0
    assert distance(product.value, channel_walls()).max() > 3 * VOXEL


def test_a_mouth_too_narrow_for_one_grid_is_opened_on_the_next():
    assert closed(keyhole(0.2), slits=(2,)).figures["slits"] == 0
    product = closed(keyhole(0.2), slits=(2, 8))
    assert product.figures["slits"] == 8
    assert distance(product.value, channel_walls()).max() < VOXEL


def test_no_two_faces_cross_where_that_is_forbidden():
    figures = closed(keyhole(0.7), slits=(4,), self_intersections="forbid").figures
    assert (figures["slits"], figures["self_intersections"]) == (4, 0)


def test_a_crack_does_not_make_a_box_hollow():
    full = volume(closed(hollow_with_crack(0.0)).value)
    assert volume(closed(hollow_with_crack(0.8)).value) > 0.8 * full


def test_a_recess_that_does_not_end_in_the_bricks_allowed_stays_closed(monkeypatch):
    monkeypatch.setattr(pockets, "MOST_BRICKS", 6)
    assert closed(keyhole(0.7)).figures["slits"] == 0


def test_walls_that_face_each_other_are_followed_where_many_are_lost(monkeypatch):
    halves = [solids.box((0.5, 0.25, 0.25), (side * (0.25 + 0.4 * VOXEL), 0.0, 0.0)) for side in (-1, 1)]
    mesh = solids.join(*halves)  # 0.8 voxels apart
    product = closed(mesh)
    assert (product.figures["slits"], product.figures["components"]) == (4, 2)
    assert volume(product.value) == pytest.approx(volume(mesh), rel=0.08)  # a quarter of a voxel all round
    monkeypatch.setattr(slits, "MANY", 0.5)
    figures = closed(mesh).figures
    assert (figures["slits"], figures["components"]) == (0, 1)


def test_a_point_not_worth_it_leads_to_those_nearby_that_are(monkeypatch):
    block, floor = solids.box(BLOCK), BLOCK[2] / 2 - 5 * VOXEL
    mesh = mesh_of(solid(block) - solid(solids.box((0.8, 1.5 * VOXEL, 10 * VOXEL), (0, 0, BLOCK[2] / 2))))
    original = Original(mesh, Scene(mesh), AcceptanceSettings(), 64)
    on_wall, on_top = [0.02, 0.75 * VOXEL, floor + 0.5 * VOXEL], [0.02, 0.1, BLOCK[2] / 2]  # the slit is 1.5 wide
    original.outer = np.array([on_wall, *([on_top] * 999)])
    original.normals = np.array([[0, -1, 0], *([[0, 0, 1]] * 999)], float)
    points, normals = slits.lost_points(original, block, original.lost(block), 64)
    np.testing.assert_array_equal(points[0], original.outer[0])
    assert len(points) == len(normals) > 3
    np.testing.assert_allclose(points[1:, 2], floor, atol=1e-6)
    np.testing.assert_allclose(normals[1:], np.broadcast_to([0, 0, 1], normals[1:].shape), atol=1e-6)
    monkeypatch.setattr(slits, "NEARBY", 0)
    assert len(slits.lost_points(original, block, original.lost(block), 64)[0]) == 0


def test_the_solid_reading_opens_nothing():
    assert closed(keyhole(0.7), interior="solid").figures["slits"] == 0


def test_the_same_mesh_gives_the_same_bytes():
    first, second = (closed(keyhole(0.7)).value for _ in range(2))
    assert first.vertices.tobytes() == second.vertices.tobytes()
    assert first.faces.tobytes() == second.faces.tobytes()


def test_pockets_are_closed_across_bricks_and_lie_in_the_channel():
    mesh = keyhole(0.7)
    shell = offset_shell(mesh, 64, 4, 0.55)
    along = np.linspace(-0.2, 0.2, 5)
    down = np.arange(0, 9) * VOXEL
    lines = np.array([(x, 0.021, BLOCK[2] / 2 - z) for x in along for z in down])
    surface = pockets.pockets(shell, mesh, lines, 4, 0.55)
    assert is_watertight(surface)
    assert nonmanifold_vertices(surface) == 0
    assert volume(surface) > 0.8 * 0.8 * 2.5 * 6 * VOXEL**2
    inner = surface.vertices[surface.vertices[:, 2] < BLOCK[2] / 2 - 4 * VOXEL]
    away = distance(mesh, inner)
    assert np.median(away) == pytest.approx(0.55 * VOXEL / 4, rel=0.01)
    assert away.max() < 0.2 * VOXEL  # in the corners


def test_points_beyond_the_grid_are_outside_the_shell():
    shell = offset_shell(solids.box(BLOCK), 64, 4, 0.55)
    points = np.array([[0, 0, 0], [0, 0, 0.2], [0, 0, 0.3], [3, 0, 0], [0, -9, 0]])
    assert shell.is_outside(points).tolist() == [False, False, True, True, True]
