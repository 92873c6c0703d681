"""Neural Mesh Flow: the sheet's counts and goldens, flows that can be undone, meshes that stay closed spheres."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.config import ROOT
from pipeline.evaluation.manifold import manifoldness
from pipeline.geometry import quality
from pipeline.models.nmf import (
    SCALE,
    InferenceSettings,
    MeshFlow,
    ModelSettings,
    PointEncoder,
    chamfer,
    points_on_mesh,
)
from pipeline.models.sphere import icosphere
from pipeline.overlays import read_yaml
from pipeline.training.data import ResidentData
from pipeline.training.loop import RuntimeSettings, TrainingSettings, train
from pipeline.training.schedule import learning_rate_factor
from tests.models.shapes import block_arrays, tiny_model

NARROW = {"code": 32, "encoder": (16, 32), "hidden": 32, "norm_hidden": 16, "subdivision": 1, "targets": 100}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def sphere(subdivision: int) -> torch.Tensor:
    return torch.from_numpy(icosphere(subdivision)[0]).float()[None]


def volume(mesh) -> float:
    return float(np.linalg.det(mesh.triangles).sum() / 6)


@pytest.fixture(scope="module")
def paper() -> MeshFlow:
    """The paper's network with its initial weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MeshFlow(ModelSettings()).eval()


# --- the network (sheet nmf.md, sections 2 and 10)


def test_parameters_are_as_many_as_the_sheets(paper):
    assert count(paper) == 8_005_566
    assert count(paper.encoder) == 728_992
    assert count(paper.flows) == 6_248_466
    assert count(paper.flows[0][0]) == 1_041_411
    assert count(paper.norms[0]) == 257_027


@pytest.mark.parametrize(
    ("subdivision", "vertices", "faces", "volume"), [(3, 642, 1280, 4.1527), (4, 2562, 5120, 4.1797)]
)
def test_template_spheres_have_the_sheets_counts(subdivision, vertices, faces, volume):
    points, triangles = icosphere(subdivision)
    assert (points.shape, triangles.shape) == ((vertices, 3), (faces, 3))
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-12)
    assert np.linalg.det(points[triangles]).sum() / 6 == pytest.approx(volume, abs=5e-5)
    edges = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    unique, uses = np.unique(edges, axis=0, return_counts=True)
    assert len(unique) == 3 * faces // 2 and (uses == 2).all()


def test_flows_can_be_undone_at_the_initial_weights(paper):
    code = torch.randn((1, 1000), generator=torch.Generator().manual_seed(1))
    template = sphere(2)
    with torch.no_grad():
        flow = paper.flows[0][0]
        moved = flow(template, code)
        back = flow.inverse(moved, code)
    assert 1e-3 < float((moved - template).abs().max()) < 0.2  # speeds are below 1, for a time of 0.2
    assert float((back - template).abs().max()) <= 4e-5
    assert float(paper.inverse_error(sphere(1), code).max()) <= 1e-4


def test_the_adaptive_solver_takes_the_sheets_number_of_evaluations(paper):
    flow, calls = paper.flows[1][0], []
    hook = flow.dynamics.fc_4.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        flow(sphere(1), torch.zeros(1, 1000))
    hook.remove()
    assert len(calls) == 14


def test_untrained_outputs_shrink_by_half_with_every_normalisation(paper):
    with torch.no_grad():
        cloud = torch.rand((1, 500, 3), generator=torch.Generator().manual_seed(0)) - 0.5
        stages = paper(sphere(1), cloud)
    for vertices, largest in zip(stages, (0.26, 0.13, 0.066), strict=True):
        assert float(vertices.abs().max()) == pytest.approx(largest, rel=0.08)
        assert float(vertices.mean(dim=1).abs().max()) < 1e-6


def test_a_normalisation_without_weights_halves_all_axes(paper):
    norm = MeshFlow(ModelSettings(**NARROW)).norms[0]
    nn.init.zeros_(norm.fc_2.weight)
    nn.init.zeros_(norm.fc_2.bias)
    points = torch.tensor([[[1.0, 2.0, 3.0], [3.0, 6.0, -1.0]]])
    expected = torch.tensor([[[-0.5, -1.0, 1.0], [0.5, 1.0, -1.0]]])
    torch.testing.assert_close(norm(points, torch.ones(1, 32)), expected, rtol=0, atol=0)


def test_velocities_are_those_of_the_formula():
    """The sheet's six lines, by hand."""
    flow = MeshFlow(ModelSettings(**NARROW)).flows[2][1].dynamics.double()
    generator = torch.Generator().manual_seed(0)
    x, z = torch.randn((7, 3), generator=generator).double(), torch.randn(32, generator=generator).double()

    def linear(layer: nn.Linear, values: torch.Tensor) -> torch.Tensor:
        return values @ layer.weight.T + layer.bias

    a = linear(flow.fc_1, x).clamp(min=0)
    h = a * torch.tanh(linear(flow.fc_code, z))
    h = linear(flow.fc_2, h).clamp(min=0) + h
    h = linear(flow.fc_3, h).clamp(min=0) + h
    expected = torch.tanh(linear(flow.fc_4, h))
    torch.testing.assert_close(flow(x[None], flow.gate(z[None]))[0], expected)


def test_the_code_ignores_the_order_of_points_but_not_their_place():
    torch.manual_seed(0)
    encoder = PointEncoder(16, 8, 8).eval()
    points = torch.rand(1, 50, 3)
    torch.testing.assert_close(encoder(points), encoder(points.flip(1)))
    assert not torch.allclose(encoder(points), encoder(points + 0.5), atol=1e-3)


def test_points_without_rectification_before_the_maximum_keep_their_signs():
    torch.manual_seed(0)
    encoder = PointEncoder(16, 8, 8).eval()
    nn.init.zeros_(encoder.convs[3].weight)
    nn.init.constant_(encoder.convs[3].bias, -1.0)
    heard = []
    encoder.fcs[0].register_forward_hook(lambda module, given, result: heard.append(given[0]))
    encoder(torch.rand(1, 5, 3))
    torch.testing.assert_close(heard[0], torch.full((1, 16), -1.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("solver", ["dopri5", "rk4"])
def test_the_adjoint_gives_the_gradients_of_the_steps(solver):
    """Of the dynamics, and through the code of the encoder too."""
    gradients = []
    for adjoint in (True, False):
        torch.manual_seed(0)
        network = MeshFlow(ModelSettings(**NARROW, solver=solver, adjoint=adjoint, tolerance=1e-9)).double().eval()
        cloud = torch.rand((2, 40, 3), generator=torch.Generator().manual_seed(1)).double()
        network(sphere(1).expand(2, -1, -1).double(), cloud)[-1].square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    for name, gradient in gradients[0].items():
        assert float(gradient.abs().max()) > 0, name
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-2, atol=1e-4)


def test_a_bad_integrator_shows_in_the_inverse_error_alone():
    """A stiff field leaves the topology as it is; folds and the inverse error tell (sheet, section 10)."""
    coarse, fine = (tiny_model("nmf", solver="rk4", solver_steps=steps, duration=1.0).eval() for steps in (1, 40))
    for model in (coarse, fine):
        for block in model.network.flows:
            for flow in block:
                with torch.no_grad():
                    flow.dynamics.fc_4.weight.mul_(10)
    code = {"code": torch.ones(1, 16), "centre": torch.zeros(1, 1, 3)}
    meshes = [model.surface(code)[0] for model in (coarse, fine)]
    errors = [model.figures(code)[0]["inverse_error"] for model in (coarse, fine)]
    assert [quality.euler_characteristic(mesh) for mesh in meshes] == [2, 2]
    assert errors[0] > 0.01
    assert errors[1] < 1e-4


# --- the loss


def test_chamfer_sums_both_mean_squares():
    a = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0]]])
    b = torch.tensor([[[0.0, 0, 0], [0.0, 2.0, 0], [1.0, 0, 1.0]]])
    assert float(chamfer(a, b)) == pytest.approx((0 + 1) / 2 + (0 + 4 + 1) / 3)


def test_chamfer_in_parts_is_chamfer(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand((5, 30, 3), generator=generator), torch.rand((5, 20, 3), generator=generator)
    apart = torch.cdist(a.double(), b.double()).square()
    whole = chamfer(a, b)
    assert float(whole) == pytest.approx(float(apart.amin(2).mean() + apart.amin(1).mean()), rel=1e-5)
    monkeypatch.setattr("pipeline.models.nmf.MOST_PAIRS", 1300)
    assert float(chamfer(a, b)) == float(whole)


@pytest.mark.parametrize(("parts", "total"), [((1, 1, 1), 1.0), ((1, 0, 0), 0.1), ((0, 1, 0), 0.2), ((0, 0, 1), 0.7)])
def test_deformations_weigh_one_two_and_seven_tenths(parts, total, monkeypatch):
    values = iter(parts)
    monkeypatch.setattr("pipeline.models.nmf.chamfer", lambda a, b: torch.tensor(float(next(values))))
    model = tiny_model("nmf", 2)
    data = ResidentData.for_model(model, [block_arrays(), block_arrays(seed=1)])
    batch = model.draw(data, torch.tensor([0, 1]), torch.Generator().manual_seed(0))
    assert float(model.loss(batch)["loss"]) == pytest.approx(total)


def test_points_on_a_mesh_are_even_by_area_and_lie_on_it():
    vertices = torch.tensor([[[0.0, 0, 0], [3, 0, 0], [3, 1, 0], [0, 1, 0], [0, 0, 3], [0, 1, 3]]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 5], [0, 5, 4]])  # two rectangles of area 3
    uniform = torch.rand((1, 20_000, 3), generator=torch.Generator().manual_seed(0))
    points = points_on_mesh(vertices.clone().requires_grad_(), faces, uniform)
    assert points.requires_grad
    points = points.detach()[0]
    floor = points[:, 2] == 0
    assert float(floor.float().mean()) == pytest.approx(0.5, abs=0.02)
    assert (points[~floor, 0].abs() < 1e-6).all()
    torch.testing.assert_close(points[floor].mean(0), torch.tensor([1.5, 0.5, 0.0]), atol=0.04, rtol=0)
    last = points_on_mesh(vertices, faces, torch.ones(1, 1, 3))  # the upper end of the unit interval stays on the mesh
    torch.testing.assert_close(last[0, 0], torch.tensor([0.0, 0.0, 3.0]))


def test_a_cloud_is_compared_with_itself_where_nothing_else_is_asked():
    model = tiny_model("nmf", 2, observation={"points": 80, "noise": 0.0}, targets=80)
    data = ResidentData.for_model(model, [block_arrays(), block_arrays(seed=1)])
    batch = model.draw(data, torch.tensor([1, 0]), torch.Generator().manual_seed(0))
    torch.testing.assert_close(batch["points"], batch["targets"], rtol=0, atol=0)
    noisy = tiny_model("nmf", 2, observation={"points": 90, "noise": 0.1}, targets=80)
    batch = noisy.draw(data, torch.tensor([1, 0]), torch.Generator().manual_seed(0))
    moved = batch["points"][:, :80] - batch["targets"]
    assert (batch["points"].shape, batch["targets"].shape) == ((2, 90, 3), (2, 80, 3))
    assert float(moved.std()) == pytest.approx(0.1, rel=0.2)


def test_a_single_shape_cannot_be_trained_on():
    model = tiny_model("nmf", 1)
    data = ResidentData.for_model(model, [block_arrays()])
    with pytest.raises(ValueError, match=r"two shapes at once.*training\.batch_shapes"):
        model.loss(model.draw(data, torch.tensor([0]), torch.Generator().manual_seed(0)))


# --- meshes


@pytest.mark.parametrize("solver", ["dopri5", "rk4"])
def test_every_mesh_is_a_closed_sphere_wound_as_the_template(solver):
    model = tiny_model("nmf", inference={"subdivision": 3}, solver=solver).eval()
    code = {
        "code": torch.randn((3, 16), generator=torch.Generator().manual_seed(0)) * 3,
        "centre": torch.zeros(3, 1, 3),
    }
    for mesh in model.surface(code):
        found = manifoldness(mesh, self_intersections=False)
        np.testing.assert_array_equal(mesh.faces, icosphere(3)[1])
        assert (found["euler_characteristic"], found["components"], found["watertight"]) == (2, 1, True)
        assert found["nmv_corrected"] == found["nme_corrected"] == 0
        assert volume(mesh) > 0


def test_meshes_lie_where_the_points_do():
    arrays = block_arrays()
    moved = {**arrays, "surface.points": arrays["surface.points"] + np.float32([0.2, 0, -0.1])}
    centred, fixed = (tiny_model("nmf", centred=flag).eval() for flag in (True, False))
    for model, shift in ((centred, [0.2, 0, -0.1]), (fixed, [0, 0, 0])):
        here, there = (
            model.surface(model.encode({"points": torch.from_numpy(a["surface.points"])[None]}, [0]))[0]
            for a in (arrays, moved)
        )
        np.testing.assert_allclose(there.vertices.mean(0) - here.vertices.mean(0), shift, atol=1e-5)
    mean = arrays["surface.points"].mean(axis=0)
    code = centred.encode({"points": torch.from_numpy(arrays["surface.points"])[None]}, [0])
    np.testing.assert_allclose(centred.surface(code)[0].vertices.mean(0), mean, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 2), (1, 0, 3)])
def test_clouds_of_another_form_are_refused(shape):
    with pytest.raises(ValueError, match=r"observed clouds are \(B, M, 3\)"):
        tiny_model("nmf").eval().encode({"points": torch.zeros(shape)}, [0])


def ellipsoid_arrays(axes: tuple[float, float, float], seed: int = 0) -> dict[str, np.ndarray]:
    normals = np.random.default_rng(seed).normal(size=(4000, 3))
    points = normals / np.linalg.norm(normals, axis=1, keepdims=True) * np.array(axes) / 2
    return {"surface.points": points.astype(np.float32), "surface.normals": np.zeros((4000, 3), np.float32)}


def test_two_ellipsoids_are_learnt_without_folds(tmp_path):
    shapes = [ellipsoid_arrays((1, 0.6, 0.4)), ellipsoid_arrays((0.3, 0.7, 1), seed=1)]
    settings = {**NARROW, "solver": "rk4", "solver_steps": 1, "adjoint": False}
    model = tiny_model("nmf", 2, inference={"subdivision": 3}, **settings)
    # Each shape four times in a batch: normalised over two, features would be signs alone.
    data = ResidentData.for_model(model, shapes * 4)
    training = TrainingSettings(steps=120, batch_shapes=8, learning_rate=5e-3, schedule="cosine")
    runtime = RuntimeSettings(device="cpu", threads=1, tensorboard=False)
    train(model, data, [], training, runtime, seed=0, state_dir=tmp_path, log_dir=None)
    seen = torch.from_numpy(np.stack([shape["surface.points"] for shape in shapes]))
    code = model.eval().encode({"points": seen}, [0, 1])
    for shape, mesh, figures in zip(shapes, model.surface(code), model.figures(code), strict=True):
        distance = chamfer(
            torch.from_numpy(mesh.vertices).float()[None] * SCALE,
            torch.from_numpy(shape["surface.points"])[None] * SCALE,
        )
        found = manifoldness(mesh, self_intersections=False)
        # Trainings from other seeds reach up to 0.002; a sphere is at 0.015, two axes exchanged at 0.008.
        assert float(distance) < 4e-3
        assert volume(mesh) > 0
        assert found["euler_characteristic"] == 2
        assert found["nmf_corrected"] < 0.01
        assert figures["inverse_error"] < 1e-3


# --- the preset


def test_the_preset_follows_the_releases_schedule():
    block = read_yaml(ROOT / "resources" / "presets" / "nmf-ae.yaml")["experiments"][0]
    training = TrainingSettings(**block["training"])
    rates = [training.learning_rate * learning_rate_factor(training, step, 1) for step in (0, 1, 250, 251, 500, 17_999)]
    np.testing.assert_allclose(rates, [1e-5, 9.8e-6, 9.8e-6, 9.604e-6, 9.604e-6, 1e-5 * 0.98**72])
    assert training.steps == 150 * (30_151 // training.batch_shapes)
    assert ModelSettings(**block.get("model", {})) == ModelSettings()
    assert InferenceSettings().subdivision == 4
    assert math.isclose(SCALE * math.sqrt(3) / 2, 1)
