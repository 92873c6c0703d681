"""Surface samples: where they lie, how evenly, and which way their normals point."""

import numpy as np
import pytest

from pipeline.arrays import Mesh, Rejected
from pipeline.samples.surface import SurfaceSettings, draw_on_surface, sample_surface
from pipeline.seeds import rng_for
from pipeline.storage import encode
from pipeline.storage_settings import StorageSettings
from tests import solids

EXACT = StorageSettings(points="float32", normals="float32")
ONE_TRIANGLE = Mesh([(0.1, -0.2, 0.3), (0.5, 0.4, 0.1), (-0.4, 0.2, -0.5)], [(0, 1, 2)])


def stream(name="test"):
    return rng_for(0, "sample_surface", name)


def counts_per_box(points):
    distances = [solids.box_sdf(points, extents, centre) for extents, centre in solids.THREE_BOXES]
    return np.bincount(np.argmin(np.abs(distances), axis=0), minlength=3)


def area_shares():
    areas = np.array([solids.box_area(extents) for extents, _ in solids.THREE_BOXES])
    return areas / areas.sum()


@pytest.mark.parametrize(("kind", "error"), [("float32", 1e-7), ("uint16", 2e-5), ("float16", 3e-4)])
def test_points_lie_on_the_surface(kind, error):
    settings = SurfaceSettings(count=5000, storage=StorageSettings(points=kind))
    points = sample_surface(solids.three_boxes(), settings, stream()).value["points"]
    assert points.shape == (5000, 3)
    assert points.dtype == np.float32
    assert np.abs(solids.three_boxes_sdf(points)).max() < error


def test_each_part_gets_points_in_proportion_to_its_area():
    count = 40_000
    points = sample_surface(solids.three_boxes(), SurfaceSettings(count=count), stream()).value["points"]
    shares = area_shares()
    spread = np.sqrt(count * shares * (1 - shares))
    assert (np.abs(counts_per_box(points) - count * shares) < 4 * spread).all()


def test_stratified_points_meet_the_proportion_exactly():
    count = 40_000
    settings = SurfaceSettings(count=count, stratified=True)
    points = sample_surface(solids.three_boxes(), settings, stream()).value["points"]
    assert (np.abs(counts_per_box(points) - count * area_shares()) <= 1).all()


@pytest.mark.parametrize("stratified", [False, True])
def test_a_prefix_covers_the_surface_like_the_whole(stratified):
    settings = SurfaceSettings(count=40_000, stratified=stratified)
    prefix = sample_surface(solids.three_boxes(), settings, stream()).value["points"][:4000]
    shares = area_shares()
    spread = np.sqrt(4000 * shares * (1 - shares))
    assert (np.abs(counts_per_box(prefix) - 4000 * shares) < 4 * spread).all()


def test_fewer_points_are_the_first_of_many():
    few, many = (
        sample_surface(solids.three_boxes(), SurfaceSettings(count=count), stream()).value for count in (3, 4000)
    )
    for name in ("points", "normals"):
        np.testing.assert_array_equal(few[name], many[name][:3])


@pytest.mark.parametrize("stratified", [False, True])
def test_a_triangle_is_covered_evenly(stratified):
    count = 20_000
    points, _ = draw_on_surface(ONE_TRIANGLE, count, stream(), stratified)
    a, b, c = ONE_TRIANGLE.vertices
    weights = np.linalg.lstsq(np.stack([b - a, c - a], axis=1), (points - a).T, rcond=None)[0].T
    weights = np.column_stack([1 - weights.sum(axis=1), weights])  # barycentric, uniform on the simplex
    assert (weights > -1e-12).all()
    # At each corner and in the middle lies a quarter of the area.
    quarters = [*(weights > 0.5).mean(axis=0), (weights <= 0.5).all(axis=1).mean()]
    np.testing.assert_allclose(quarters, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / count))
    np.testing.assert_allclose(weights.mean(axis=0), 1 / 3, atol=4 * np.sqrt(1 / 18 / count))
    np.testing.assert_allclose(np.cov(weights.T)[0, 1], -1 / 36, atol=1e-3)


def test_sphere_normals_point_away_from_the_centre():
    centre = np.array((0.1, -0.2, 0.05))
    mesh = solids.icosphere(0.3, centre, subdivisions=5)
    value = sample_surface(mesh, SurfaceSettings(count=2000, storage=EXACT), stream()).value
    outward = (value["points"] - centre) / 0.3
    assert ((value["normals"] * outward).sum(axis=1) > 0.999).all()


def test_normals_are_those_of_the_face_the_point_lies_on():
    value = sample_surface(solids.three_boxes(), SurfaceSettings(count=3000, storage=EXACT), stream()).value
    step = 1e-4
    rise = solids.three_boxes_sdf(value["points"] + step * value["normals"])
    np.testing.assert_allclose(rise, step, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(value["normals"], axis=1), 1, atol=1e-6)


def test_default_normals_are_within_a_degree_and_of_unit_length():
    mesh = solids.torus()
    exact, stored = (
        sample_surface(mesh, SurfaceSettings(count=3000, storage=storage), stream()).value["normals"].astype(float)
        for storage in (EXACT, StorageSettings())
    )
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-6)
    assert ((stored * exact).sum(axis=1) > np.cos(np.radians(1))).all()


def test_a_face_without_area_is_never_hit():
    boxes = solids.three_boxes()
    lost = len(boxes.vertices)
    vertices = np.concatenate([boxes.vertices, [(5, 5, 5), (6, 6, 6)]])
    faces = np.concatenate([[(lost, lost, lost + 1)], boxes.faces, [(lost, lost + 1, lost)]])
    settings = SurfaceSettings(count=5000, stratified=True, storage=EXACT)
    product = sample_surface(Mesh(vertices, faces), settings, stream())
    assert np.abs(product.value["points"]).max() < 0.5
    assert np.isfinite(product.value["normals"]).all()


def test_a_draw_that_rounds_up_to_the_whole_area_falls_on_the_last_face():
    class Highest:
        def random(self, shape):
            return np.full(shape, np.nextafter(1, 0))

        def permutation(self, count):
            return np.arange(count)

    points, normals = draw_on_surface(solids.three_boxes(), 64, Highest(), stratified=True)
    assert points.shape == normals.shape == (64, 3)
    assert np.abs(solids.three_boxes_sdf(points)).max() < 1e-9


def test_the_area_is_in_the_figures():
    product = sample_surface(solids.three_boxes(), SurfaceSettings(count=10), stream())
    assert product.figures == {"area": pytest.approx(solids.three_boxes_area(), rel=1e-5)}


def test_the_stream_decides_every_byte():
    mesh, settings = solids.three_boxes(), SurfaceSettings(count=500)

    def stored(name):
        product = sample_surface(mesh, settings, stream(name))
        return [encode(product.value[key], product.encoding[key]).tobytes() for key in ("points", "normals")]

    assert stored("a") == stored("a")
    assert stored("a") != stored("b")


@pytest.mark.parametrize(
    "mesh",
    [
        Mesh(np.empty((0, 3)), np.empty((0, 3))),
        Mesh([(0, 0, 0), (1, 1, 1), (2, 2, 2)], [(0, 1, 2), (0, 0, 1)]),
        Mesh([(0, 0, 0), (1, 0, 0), (0, np.nan, 0)], [(0, 1, 2)]),
    ],
    ids=["no faces", "faces on a line", "a vertex that is no number"],
)
def test_a_mesh_without_area_is_rejected(mesh):
    with pytest.raises(Rejected, match="total area"):
        sample_surface(mesh, SurfaceSettings(count=10), stream())


def test_more_points_than_memory_holds_are_refused_before_they_are_drawn(monkeypatch):
    limit = 400 * 2**20
    monkeypatch.setattr("pipeline.geometry.memory.resource.getrlimit", lambda kind: (limit, limit))
    with pytest.raises(MemoryError, match="100,000,000 points needs 21,935 MB"):
        sample_surface(solids.three_boxes(), SurfaceSettings(count=100_000_000), stream())
