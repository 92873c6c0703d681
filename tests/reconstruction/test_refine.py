"""Refinement and what else may follow extraction: vertices nearer to the field, topology as it was."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.arrays import Mesh, Rejected
from pipeline.encoding import decode, encode
from pipeline.geometry.cubes import isosurface
from pipeline.geometry.measures import area, face_normals, volume
from pipeline.geometry.quality import euler_characteristic, is_watertight, nonmanifold_vertices
from pipeline.reconstruction import refine
from pipeline.reconstruction.coarse_to_fine import evaluate_coarse_to_fine
from pipeline.reconstruction.extract import ExtractionSettings, extract
from pipeline.reconstruction.finish import largest_component, simplified_to, smoothed
from pipeline.reconstruction.shapes import meshes
from pipeline.seeds import rng_for
from tests import solids

CENTRE = (0.02, -0.05, 0.1)


def steep_ball(points, radius=0.3, centre=(0.0, 0.0, 0.0)):
    """Probability by a sigmoid, 0.5 on the sphere."""
    return torch.sigmoid(50 * (radius - torch.linalg.norm(points - torch.tensor(centre), dim=-1)))


def curved(points):
    """An occupancy logit that is 0 on a sphere and anything but linear across it."""
    return 30 * (0.3**3 - torch.linalg.norm(points - torch.tensor(CENTRE), dim=-1) ** 3)


def batched(field):
    return lambda shapes, queries: field(torch.from_numpy(queries)).numpy()


def off_level(mesh):
    return np.abs(solids.sphere_sdf(mesh.vertices, 0.3, CENTRE))


COARSE = {"resolution_0": 16, "depth": 0}


def extracted(field=curved, quantity="occupancy_logit", **options):
    settings = ExtractionSettings(**{**COARSE, **options})
    (product,) = extract(batched(field), 1, quantity, settings, lambda shape, points: field(points), seeds=(7,))
    return product


def test_newton_puts_vertices_on_the_surface_and_keeps_the_faces():
    plain, refined = extracted().value, extracted(refinement="newton").value
    np.testing.assert_array_equal(plain.faces, refined.faces)
    assert off_level(plain).max() > 1e-3
    assert off_level(refined).max() < 1e-6
    one = extracted(refinement="newton", refinement_steps=1).value
    assert off_level(refined).mean() < off_level(one).mean() < off_level(plain).mean()


def test_newton_never_leaves_a_vertex_worse_than_it_was_nor_jumps_beyond_its_reach():
    mesh = Mesh([(0.0, 0, 0), (0.29, 0.01, 0), (0.0, 0.4, 0.1)], [(0, 1, 2)])

    def wild(points):  # nearly flat where the first vertex stands: the linear field's zero is far off
        return points[:, 0] ** 2 - 0.09 + 1e-4 * points[:, 1]

    refined = refine.newton(mesh, wild, 0.0, reach=0.02, batch=2)
    before = np.abs(wild(torch.from_numpy(mesh.vertices)).numpy())
    assert (np.abs(wild(torch.from_numpy(refined.vertices)).numpy()) <= before).all()
    assert np.linalg.norm(refined.vertices - mesh.vertices, axis=1).max() <= 3 * 0.02 + 1e-12


def ball_mesh():
    grid, _ = evaluate_coarse_to_fine(lambda p: (np.linalg.norm(p, axis=1) < 0.3).astype(float), 16, 2, 0.5, 1.0)
    half = 0.5 - 0.5 / 64
    return isosurface(grid, 0.5, -half, half, "above")


def test_imnets_search_comes_nearer_in_every_round_by_the_originals_figures():
    """Sheet imnet.md, section 8.8: a binary ball of 64^3, mean |f - 0.5| over the vertices."""
    mesh, means = ball_mesh(), []

    def values_at(points):
        return steep_ball(torch.from_numpy(points)).numpy()

    for rounds in (1, 2, 3):
        refined = refine.search(mesh, values_at, 0.5, 1 / 64, rounds)
        means.append(np.abs(values_at(refined.vertices) - 0.5).mean())
    assert np.abs(values_at(mesh.vertices) - 0.5).mean() == pytest.approx(0.0325, rel=0.02)
    assert means == pytest.approx([0.0055, 0.0014, 0.0005], rel=0.1)
    np.testing.assert_array_equal(refined.faces, mesh.faces)
    assert (
        np.linalg.norm(refined.vertices - mesh.vertices, axis=1).max() < 3**0.5 * (1 + 1 / 2 + 1 / 4) / (64 * 6) + 1e-9
    )


def test_imnets_search_asks_a_shapes_own_field_in_full_blocks():
    calls = []

    def field(shapes, queries):
        calls.append(queries.shape)
        return np.array([-solids.sphere_sdf(q, 0.3, (0.1 * s, 0, 0)) for s, q in zip(shapes, queries, strict=True)])

    settings = ExtractionSettings(resolution_0=8, depth=1, refinement="imnet", batch_points=4096)
    for shape, product in enumerate(extract(field, 2, "occupancy_logit", settings)):
        assert np.abs(solids.sphere_sdf(product.value.vertices, 0.3, (0.1 * shape, 0, 0))).mean() < 1e-3
    assert set(calls) <= {(1, 2048, 3), (2, 2048, 3)}


def test_occupancy_networks_refinement_lowers_its_loss_and_repeats():
    plain = extracted().value
    refined = extracted(refinement="onet", refinement_steps=20).value
    again = extracted(refinement="onet", refinement_steps=20).value
    np.testing.assert_array_equal(refined.vertices, again.vertices)
    np.testing.assert_array_equal(refined.faces, plain.faces)
    assert np.linalg.norm(refined.vertices - plain.vertices, axis=1).max() < 20 * 1e-3
    assert loss_of(refined) < 0.8 * loss_of(plain)


def loss_of(mesh):
    """Occupancy Networks' loss at many points of the faces: values and normals of a sphere."""
    weights = np.random.default_rng(3).dirichlet((0.5,) * 3, (20, len(mesh.faces)))
    points = np.einsum("sfi,fik->sfk", weights, mesh.triangles)
    values = torch.sigmoid(curved(torch.from_numpy(points))).numpy()
    outward = points - CENTRE
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
    return ((values - 0.5) ** 2).mean() + 0.01 * ((face_normals(mesh) - outward) ** 2).sum(axis=-1).mean()


def test_batches_of_faces_change_rounding_only():
    mesh = extracted().value
    whole, parts = (
        refine.descend(mesh, lambda p: curved(p).sigmoid(), 0.5, -1.0, rng_for(7, "refine"), batch, 3)
        for batch in (100_000, 100)
    )
    np.testing.assert_allclose(whole.vertices, parts.vertices, atol=1e-5)


@pytest.mark.parametrize("quantity", ["occupancy_logit", "signed_distance"])
def test_normals_of_the_field_point_outward_and_travel_with_the_mesh(quantity):
    field = curved if quantity == "occupancy_logit" else lambda points: -curved(points)
    product = extracted(field, quantity, field_normals=True)
    mesh = product.value
    outward = mesh.vertices - CENTRE
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    np.testing.assert_allclose(mesh.normals, outward, atol=1e-5)
    assert volume(mesh) > 0
    read = decode(encode(product, "off"), "off")
    np.testing.assert_allclose(read.value.normals, mesh.normals, atol=1e-6)
    np.testing.assert_array_equal(read.value.faces, mesh.faces)
    assert encode(product, "off").startswith(b"NOFF\n")
    assert extracted(field, quantity).value.normals is None


def test_a_flat_field_has_no_normals():
    mesh = refine.with_field_normals(solids.box(), lambda points: 0 * points.sum(dim=1), -1.0, 100)
    assert not mesh.normals.any()


def test_codes_made_in_inference_mode_can_be_refined():
    with torch.inference_mode():
        radius = torch.full((1,), 0.3)

    def torch_field(shape, points):
        return radius[shape : shape + 1].clone() - torch.linalg.norm(points, dim=1)

    field = batched(lambda queries: 0.3 - torch.linalg.norm(queries, dim=-1))
    settings = ExtractionSettings(**COARSE, refinement="newton", field_normals=True)
    with torch.inference_mode():
        (product,) = extract(field, 1, "occupancy_logit", settings, torch_field)
    assert np.abs(solids.sphere_sdf(product.value.vertices, 0.3)).max() < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refinement": "newton"}, "refinement newton needs a field that torch can differentiate"),
        ({"field_normals": True}, "field_normals needs a field that torch can differentiate"),
    ],
)
def test_options_that_need_a_gradient_say_so(options, message):
    with pytest.raises(ValueError, match=message):
        extract(batched(curved), 1, "occupancy_logit", ExtractionSettings(**options))


def test_occupancy_networks_refinement_needs_seeds():
    settings = ExtractionSettings(refinement="onet")
    with pytest.raises(ValueError, match="needs a seed per shape"):
        extract(batched(curved), 1, "occupancy_logit", settings, lambda shape, points: curved(points))


def test_all_options_are_off_by_default():
    default = ExtractionSettings()
    assert (default.refinement, default.field_normals, default.largest_component) == ("none", False, False)
    assert (default.simplify_to, default.smoothing_steps) == (None, 0)


def bumpy():
    mesh = solids.icosphere(0.4, subdivisions=4)
    noise = np.random.default_rng(0).normal(0, 0.004, mesh.vertices.shape)
    return Mesh(mesh.vertices + noise, mesh.faces)


def test_smoothing_takes_noise_away_and_keeps_the_size():
    rough, smooth = bumpy(), smoothed(bumpy(), 10)
    assert np.std(np.linalg.norm(smooth.vertices, axis=1)) < 0.4 * np.std(np.linalg.norm(rough.vertices, axis=1))
    assert volume(smooth) == pytest.approx(volume(rough), rel=0.01)
    np.testing.assert_array_equal(smooth.faces, rough.faces)


@pytest.mark.parametrize("faces", [2000, 300])
def test_simplification_reaches_its_number_and_stays_closed_and_manifold(faces):
    product = extracted(resolution_0=32, simplify_to=faces)
    mesh = product.value
    assert faces - 2 <= len(mesh.faces) == product.figures["faces"] <= faces
    assert is_watertight(mesh) and nonmanifold_vertices(mesh) == 0 and euler_characteristic(mesh) == 2
    assert volume(mesh) == pytest.approx(solids.sphere_volume(0.3), rel=30 / faces)
    assert area(mesh) == pytest.approx(solids.sphere_area(0.3), rel=30 / faces)


def test_meshes_small_enough_are_left_alone():
    cube = solids.box()
    assert simplified_to(cube, 12) is cube


def test_simplification_that_breaks_the_surface_is_rejected(monkeypatch):
    import open3d as o3d

    def hole(mesh, faces):
        return o3d.geometry.TriangleMesh(mesh.vertices, o3d.utility.Vector3iVector(np.asarray(mesh.triangles)[:faces]))

    sphere = solids.icosphere(0.4, subdivisions=2)
    monkeypatch.setattr(o3d.geometry.TriangleMesh, "simplify_quadric_decimation", hole)
    with pytest.raises(Rejected, match="from 320 to 100 faces breaks the surface"):
        simplified_to(sphere, 100)


def test_refinement_follows_simplification():
    both = extracted(resolution_0=32, simplify_to=500, refinement="newton").value
    assert len(both.faces) <= 500 and off_level(both).max() < 1e-6


def test_the_largest_part_is_the_one_of_largest_area():
    parts = solids.join(solids.icosphere(0.1, (0.3, 0, 0), 4), solids.box((0.4, 0.3, 0.2), (-0.2, 0, 0)))
    assert len(largest_component(parts).faces) == 12


class Balls(torch.nn.Module):
    """A model whose code is a radius; its weight makes gradients pass through the network too."""

    declaration = SimpleNamespace(quantity="occupancy_logit")
    level, device = 0.5, torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.steepness = torch.nn.Parameter(torch.tensor(20.0))

    def figures(self, code):
        return [{"radius": float(radius)} for radius in code["radius"]]

    def field(self, code, queries):
        return self.steepness * (code["radius"] ** 3 - torch.linalg.norm(queries, dim=-1) ** 3)


@pytest.mark.parametrize("refinement", ["newton", "imnet", "onet"])
def test_each_shape_is_refined_on_its_own_field_from_a_code_made_in_inference_mode(refinement):
    model, radii = Balls(), (0.25, 0.4)
    with torch.inference_mode():
        code = {"radius": torch.tensor(radii)[:, None]}
    settings = ExtractionSettings(**COARSE, refinement=refinement, field_normals=True)
    for radius, product in zip(radii, meshes(model, code, [1, 2], settings), strict=True):
        distance = np.abs(solids.sphere_sdf(product.value.vertices, radius))
        assert distance.mean() < {"newton": 1e-6, "imnet": 2e-3, "onet": 3e-3}[refinement]
        outward = product.value.vertices / np.linalg.norm(product.value.vertices, axis=1, keepdims=True)
        np.testing.assert_allclose(product.value.normals, outward, atol=1e-4)
        assert product.figures["radius"] == pytest.approx(radius)
    assert model.steepness.grad is None
