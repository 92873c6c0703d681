"""The solid reading: volumes of open shells against the closed bodies', in closed form."""

import numpy as np
import pytest

from pipeline.arrays import Mesh
from pipeline.geometry.closest import Scene
from pipeline.geometry.inside import occupancy
from pipeline.geometry.measures import face_normals, volume
from pipeline.geometry.quality import is_watertight, nonmanifold_vertices
from pipeline.meshes.interior import Enclosure, facing_out
from pipeline.meshes.watertight import WatertightSettings, make_watertight
from tests import solids

RESOLUTION = 64


def read(mesh: Mesh, interior: str, **changes):
    product = make_watertight(mesh, WatertightSettings(resolution=RESOLUTION, interior=interior, **changes))
    assert is_watertight(product.value)
    assert nonmanifold_vertices(product.value) == 0
    return product


def without(mesh: Mesh, gone: np.ndarray) -> Mesh:
    return Mesh(mesh.vertices, mesh.faces[~gone])


def soup(mesh: Mesh, seed: int = 0) -> Mesh:
    """Three vertices for every face, a third of the faces turned."""
    triangles = mesh.triangles.copy()
    turned = np.random.default_rng(seed).random(len(triangles)) < 0.3
    triangles[turned] = triangles[turned, ::-1]
    return Mesh(triangles.reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3))


def quartered(mesh: Mesh, times: int) -> Mesh:
    triangles = mesh.triangles
    for _ in range(times):
        a, b, c = triangles.transpose(1, 0, 2)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        triangles = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    return Mesh(triangles.reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3))


def tub() -> tuple[Mesh, float]:
    """A box of sheets without its top."""
    box = solids.box((1.0, 0.7, 0.5))
    return without(box, face_normals(box)[:, 2] > 0.5), 0.35


def teapot() -> tuple[Mesh, float]:
    """A ball with an opening on top and a spout, a tube that is open at both ends; without a lid."""
    height, radius = 0.35, 0.5
    ball = solids.icosphere(radius, subdivisions=3)
    cap = np.pi * (radius - height) ** 2 * (2 * radius + height) / 3
    around = np.linspace(0, 2 * np.pi, 25)[:-1]
    ring = np.stack([np.zeros(24), 0.05 * np.cos(around), 0.05 * np.sin(around)], axis=1)
    start, end = np.array([0.45, 0, 0]), np.array([0.7, 0, 0.15])
    near, far = np.arange(24), np.arange(24) + 24
    ahead = (near + 1) % 24
    faces = np.concatenate([np.stack([near, ahead, far], 1), np.stack([ahead, ahead + 24, far], 1)])
    spout = Mesh(np.concatenate([ring + start, ring + end]), faces)
    opened = without(ball, ball.triangles.mean(axis=1)[:, 2] > height)
    return solids.join(opened, spout), solids.sphere_volume(radius) - cap


def car() -> tuple[Mesh, float]:
    """A body and a cabin of sheets: no floor, two side windows without glass, four closed wheels beside."""
    body, cabin = quartered(solids.box((1, 0.4, 0.2)), 3), quartered(solids.box((0.5, 0.36, 0.15), (0, 0, 0.175)), 3)
    at = body.triangles.mean(axis=1)
    under_cabin = (at[:, 2] > 0.0999) & (np.abs(at[:, 0]) < 0.25) & (np.abs(at[:, 1]) < 0.18)
    body = without(body, (at[:, 2] < -0.0999) | under_cabin)
    at = cabin.triangles.mean(axis=1)
    window = (np.abs(np.abs(at[:, 1]) - 0.18) < 1e-6) & (np.abs(at[:, 2] - 0.175) < 0.04) & (np.abs(at[:, 0]) < 0.15)
    cabin = without(cabin, (at[:, 2] < 0.1001) | window)
    wheels = [solids.icosphere(0.07, (x, 1.3 * y, -0.1), 2) for x in (-0.3, 0.3) for y in (-0.22, 0.22)]
    return solids.join(body, cabin, *wheels), 0.08 + 0.5 * 0.36 * 0.15 + 4 * solids.sphere_volume(0.07)


@pytest.mark.parametrize("shape", [tub, teapot, car])
@pytest.mark.parametrize("spoil", [lambda mesh: mesh, soup], ids=["as it is", "soup"])
def test_open_shells_are_thin_when_hollow_and_full_when_solid(shape, spoil):
    mesh, closed_volume = shape()
    hollow, solid = read(spoil(mesh), "hollow"), read(spoil(mesh), "solid")
    assert volume(hollow.value) < 0.25 * closed_volume
    assert volume(solid.value) == pytest.approx(closed_volume, rel=0.08)
    # The solid reading adds to the hollow one and takes nothing of it.
    low, high = hollow.value.bounds
    points = np.random.default_rng(0).uniform(low, high, (4000, 3))
    lost = occupancy(hollow.value, points) & ~occupancy(solid.value, points)
    assert lost.mean() < 2e-3


def test_the_lid_of_a_flat_rim_is_flat():
    mesh, _ = tub()
    solid = read(mesh, "solid").value
    line = np.stack([np.zeros(200), np.zeros(200), np.linspace(-0.3, 0.35, 200)], axis=1)
    top = line[occupancy(solid, line), 2].max()
    assert top == pytest.approx(0.25, abs=1.5 / RESOLUTION)


def test_concave_outer_shapes_are_not_filled():
    legs = [solids.box((0.05, 0.05, 0.5), (x, y, -0.25)) for x in (-0.4, 0.4) for y in (-0.4, 0.4)]
    table = solids.join(solids.box((1, 1, 0.1), (0, 0, 0.05)), *legs)
    solid = read(without(table, np.arange(60) == 3), "solid").value
    assert volume(solid) == pytest.approx(0.1 + 4 * 0.05**2 * 0.5, rel=0.12)
    assert not occupancy(solid, np.array([[0, 0, -0.1], [0.3, 0.3, -0.3]])).any()


def test_walls_of_their_own_thickness_stay_hollow_and_cavities_go():
    box = solids.box((1.0, 0.7, 0.5))
    cavity = solids.join(box, solids.flipped(solids.box((0.5, 0.4, 0.3))))
    assert read(cavity, "hollow").figures["volume"] == pytest.approx(0.35 - 0.06)
    assert read(cavity, "solid").figures["volume"] == pytest.approx(0.35)


def test_patches_face_the_side_with_the_freer_view():
    mesh = soup(solids.torus())
    patches = Mesh(mesh.vertices, mesh.faces)
    outward = facing_out(patches, Scene(patches))
    expected = face_normals(solids.torus())
    np.testing.assert_allclose(np.einsum("ij,ij->i", face_normals(outward), expected), 1, atol=1e-9)


def test_the_winding_number_is_one_inside_a_closed_mesh_and_a_half_in_the_rim_of_an_open_one():
    box = soup(solids.box((1.0, 0.7, 0.5)))
    assert Enclosure(box, Scene(box)).winding(np.array([[0.1, 0.1, 0.1], [0.9, 0, 0]])) == pytest.approx(
        [1, 0], abs=5e-3
    )
    open_box = tub()[0]
    rim = Enclosure(open_box, Scene(open_box)).winding(np.array([[0.1, 0.1, 0.25]]))
    assert rim == pytest.approx([0.5], abs=5e-3)
