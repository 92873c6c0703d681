"""Neural-Pull against closed forms, the figures of its sheet, and interruptions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.arrays import Rejected
from pipeline.config import PRESETS, read_yaml
from pipeline.geometry.quality import euler_characteristic, is_watertight
from pipeline.models.contract import Keeper, stack_observations
from pipeline.models.neuralpull import (
    InferenceSettings,
    ModelSettings,
    NeuralPull,
    attract,
    pull,
    pull_error,
    single_network,
    spreads,
    turned,
)
from pipeline.models.weights import load_published
from pipeline.reconstruction.extract import ExtractionSettings
from pipeline.reconstruction.shapes import meshes
from tests.models.published import needs_tensors, published_tensors, tensors_of
from tests.models.shapes import ball_arrays, block_arrays, tiny_model

TF = {"architecture": "tf", "hidden": 512}
RADIUS = 0.4


def sphere(points: torch.Tensor) -> torch.Tensor:
    return points.norm(dim=-1) - RADIUS


def some_queries() -> torch.Tensor:
    """Points (2, 200, 3) at radii from 0.05 to 0.65."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn((2, 200, 3), generator=generator, dtype=torch.float64)
    radius = 0.05 + 0.6 * torch.rand((2, 200, 1), generator=generator, dtype=torch.float64)
    return radius * direction / direction.norm(dim=-1, keepdim=True)


def network_of(**settings) -> torch.nn.Module:
    torch.manual_seed(0)
    return single_network(ModelSettings(**settings))


def on_sphere(radius: float, count: int = 500) -> torch.Tensor:
    points = torch.randn((1, count, 3), generator=torch.Generator().manual_seed(1))
    return radius * points / points.norm(dim=-1, keepdim=True)


# --- the pull


@pytest.mark.parametrize("field", [sphere, lambda p: -sphere(p), lambda p: sphere(p).abs()], ids=["f", "-f", "|f|"])
def test_a_pull_lands_on_the_sphere_whatever_the_sign(field):
    queries = some_queries()
    pulled = pull(field, queries)
    assert float((pulled.detach().norm(dim=-1) - RADIUS).abs().max()) < 1e-12
    nearest = queries / queries.norm(dim=-1, keepdim=True) * RADIUS
    assert float(pull_error(field, queries, nearest).detach().max()) < 1e-12


def test_a_field_three_times_too_large_overshoots_by_twice_the_distance():
    queries = some_queries()
    nearest = queries / queries.norm(dim=-1, keepdim=True) * RADIUS
    error = pull_error(lambda p: 3 * sphere(p), queries, nearest)
    torch.testing.assert_close(error, 2 * sphere(queries).abs().mean(dim=1))


def test_the_loss_teaches_through_the_direction_too():
    """Values that are right with a slope that is wrong: only the direction's part can say so."""
    slope = torch.tensor([1.0, 0.5, 0.0], requires_grad=True)
    point = torch.tensor([[[0.3, 0.0, 0.0]]])

    def plane(at: torch.Tensor) -> torch.Tensor:
        return at[..., 0] + ((at - point) * (slope - slope.detach())).sum(dim=-1)

    (gradient,) = torch.autograd.grad(pull_error(plane, point, torch.tensor([[[0.0, 0.1, 0.0]]])).sum(), [slope])
    assert float(gradient[1]) == pytest.approx(0.3, rel=1e-5)  # turning the slope to y moves the pulled point off it


# --- networks


@pytest.mark.parametrize(("settings", "count"), [({}, 463_100), (TF, 2_169_601)])
def test_networks_have_the_originals_sizes(settings, count):
    assert sum(p.numel() for p in network_of(**settings).parameters()) == count


@needs_tensors
def test_tensors_have_the_published_names_and_shapes():
    assert tensors_of(network_of(**TF)) == published_tensors("neuralpull-tf")


def test_port_has_the_names_of_the_originals_linear_layers():
    tensors = tensors_of(network_of())
    assert len(tensors) == 27
    assert tensors["lin3.weight_v"] == (253, 256) and tensors["lin3.weight_g"] == (253, 1)
    assert tensors["lin4.weight_v"] == (256, 256) and tensors["lin8.weight_v"] == (1, 256)


@pytest.mark.parametrize("preset", ["neuralpull-tf", "neuralpull-port"])
def test_published_weights_give_the_originals_outputs(preset):
    """The forward pass written out once more, one row per point, on random weights."""
    settings = TF if preset.endswith("tf") else {}
    generator = torch.Generator().manual_seed(3)
    state = {n: torch.randn(t.shape, generator=generator) / 16 for n, t in network_of(**settings).state_dict().items()}
    network = load_published(preset, state).network
    queries = torch.rand((2, 7, 3), generator=generator) - 0.5
    expected = torch.stack([(_tf if preset.endswith("tf") else _port)(state, rows) for rows in queries])
    with torch.no_grad():
        torch.testing.assert_close(network(queries), expected, rtol=1e-5, atol=1e-6)


def _port(state: dict, rows: torch.Tensor) -> torch.Tensor:
    x = rows
    for k in range(9):
        x = torch.cat([x, rows], dim=1) / 2**0.5 if k == 4 else x
        direction = torch.nn.functional.normalize(state[f"lin{k}.weight_v"], dim=1)
        x = x @ (state[f"lin{k}.weight_g"] * direction).T + state[f"lin{k}.bias"]
        x = x.relu() if k < 8 else x
    return x[:, 0]


def _tf(state: dict, rows: torch.Tensor) -> torch.Tensor:
    feature = (state["feature.weight"][:, 0] + state["feature.bias"]).relu().expand(len(rows), -1)
    x = torch.cat([(rows @ state["point.weight"].T + state["point.bias"]).relu(), feature], dim=1)
    for k in range(8):
        x = x.relu() @ state[f"block.{k}.weight"].T + state[f"block.{k}.bias"]
    return (x.relu() @ state["out.weight"].T + state["out.bias"])[:, 0]


def test_port_starts_as_a_sphere():
    network = network_of()
    with torch.no_grad():
        assert float(network(torch.zeros((1, 1, 3)))) == pytest.approx(-0.5, abs=1e-6)
        assert float(network(on_sphere(0.35)).mean()) < 0 < float(network(on_sphere(0.7)).mean())


def test_tf_starts_positive_everywhere():
    with torch.no_grad():
        values = network_of(**TF)(torch.rand((1, 500, 3)) * 1.1 - 0.55)
    assert float(values.min()) > 0.8


def test_networks_side_by_side_are_the_single_ones():
    for name in ("neuralpull", "neuralpull/tf"):
        model = tiny_model(name)
        weights = model._first_weights([1, 2], torch.device("cpu"))
        queries = torch.rand((2, 9, 3)) - 0.5
        together = model._values(weights, queries)
        for shape in range(2):
            model.network.load_state_dict({n: tensor[shape] for n, tensor in weights.items()})
            torch.testing.assert_close(model.network(queries[shape : shape + 1])[0], together[shape])


# --- queries and rates


def test_spread_is_the_distance_to_the_neighbour_not_counting_the_point():
    line = np.column_stack([np.arange(6.0), np.zeros(6), np.zeros(6)])
    assert spreads(line, 2).tolist() == [2, 1, 1, 1, 1, 2]


def test_spread_on_a_sphere_is_that_of_the_sheet():
    points = on_sphere(0.5, 2400)[0].numpy()
    assert float(spreads(points, 50).mean()) == pytest.approx(0.1443, rel=0.02)


def test_queries_have_the_asked_spreads_and_know_their_nearest_point():
    settings = ModelSettings(
        observation={"points": 400}, neighbours=10, queries=((2.0, 8), (0.5, 2)), reference_density=100
    )
    points = 10 + 3.7 * torch.rand((1, 400, 3), generator=torch.Generator().manual_seed(0))
    seen = attract(points, settings, [3])
    assert seen.queries.shape == (1, 4000, 3)
    torch.testing.assert_close(seen.points * seen.scale + seen.centre[:, None], points[:, _lexical(points[0])])
    assert float((seen.points.amax(dim=1) - seen.points.amin(dim=1)).max()) == pytest.approx(1.0, abs=1e-6)
    distances = torch.cdist(seen.queries[0], seen.points[0])
    torch.testing.assert_close(distances.gather(1, seen.nearest[0].long()[:, None])[:, 0], distances.amin(dim=1))
    # The root of 400 / 100 points doubles the spreads: 8 rounds at 4, 2 at 1 times the neighbour's distance.
    base = np.square(spreads(seen.points[0].double().numpy(), 10)).mean()
    moved = _moved(seen, settings)
    assert moved == pytest.approx(3 * base * (8 * 4.0**2 + 2 * 1.0**2) / 10, rel=0.05)


def _lexical(points: torch.Tensor) -> np.ndarray:
    return np.lexsort(points.numpy().T)


def _moved(seen, settings: ModelSettings) -> float:
    """Mean squared step of the queries from the points: the spread of both together less that of the points alone."""
    return float((seen.queries[0].var(dim=0) - seen.points[0].var(dim=0)).sum())


@pytest.mark.parametrize(("architecture", "points", "queries"), [("port", 19_980, 999_000), ("tf", 20_000, 800_000)])
def test_presets_take_as_many_points_and_queries_as_the_original(architecture, points, queries):
    """The port cuts 20,000 points to a multiple of 60 and makes as many rounds as a million queries allow."""
    (block,) = read_yaml(PRESETS / f"neuralpull-{architecture}.yaml")["experiments"]
    settings = ModelSettings(**block["model"])
    assert settings.observation.points == points
    assert points * sum(rounds for _, rounds in settings.queries) == queries
    assert (settings == ModelSettings()) == (architecture == "port")


def test_windows_are_in_a_row_and_wrap_around():
    settings = ModelSettings(observation={"points": 20}, neighbours=3, queries=((1.0, 1),))
    seen = attract(torch.rand((2, 20, 3), generator=torch.Generator().manual_seed(0)), settings, [0, 1])
    queries, targets = seen.window(torch.tensor([0.9, 0.5]), 4)
    torch.testing.assert_close(queries[0], seen.queries[0, [18, 19, 0, 1]])
    torch.testing.assert_close(targets[1], seen.points[1, seen.nearest[1, 10:14].long()])


@pytest.mark.parametrize(("step", "rate"), [(0, 0.0), (999, 9.99e-4), (1000, 1e-3), (20_500, 5e-4), (40_000, 0.0)])
def test_rates_of_the_port_at_computed_points(step, rate):
    assert InferenceSettings().rate_at(step) == pytest.approx(rate, abs=1e-12)


def test_rate_of_the_tensorflow_code_is_constant():
    settings = InferenceSettings(learning_rate=1e-4, warmup=0, schedule="constant")
    assert {settings.rate_at(step) for step in (0, 1, 39_999)} == {1e-4}


# --- sign and level


@pytest.mark.parametrize(
    ("field", "sign", "shift"),
    [
        (sphere, 1.0, 0.0),
        (lambda p: -sphere(p), -1.0, 0.0),
        (lambda p: sphere(p).abs(), 1.0, 0.0025),
        (lambda p: sphere(p).abs() + 0.003, 1.0, 0.005),
        (lambda p: -sphere(p).abs() - 0.5, -1.0, 0.01),
    ],
)
def test_fields_are_turned_positive_outside_and_given_an_inside(field, sign, shift):
    near = on_sphere(RADIUS) + 0.02 * torch.randn((1, 500, 3), generator=torch.Generator().manual_seed(0))
    assert [float(part) for part in turned(field, near)] == pytest.approx([sign, shift])


def test_the_ledger_says_how_the_surface_was_decided_upon():
    code = {"sign": torch.tensor([1.0, -1.0, -1.0]), "shift": torch.tensor([0.0025, 0.005, 0.0])}
    figures = tiny_model("neuralpull").figures(code)
    assert figures == [{"sign": 1, "level": 0.0025}, {"sign": -1, "level": -0.005}, {"sign": -1, "level": 0.0}]
    assert math.copysign(1, figures[2]["level"]) == 1


# --- whole shapes


LEARNING = {
    "observation": {"points": 1200, "noise": 0.0},
    "queries": ((1.0, 10),),
    "reference_density": None,
    "hidden": 32,
    "layers": 3,
    "skip": 2,
}


def learner(points: int = 1200, **inference) -> NeuralPull:
    settings = {**LEARNING, "observation": {"points": points, "noise": 0.0}}
    inference = {"iterations": 120, "batch_queries": 256, "warmup": 20, "learning_rate": 5e-3, **inference}
    return tiny_model("neuralpull", inference=inference, **settings).eval()


def observed(model: NeuralPull, *shapes) -> dict[str, torch.Tensor]:
    seen = [model.observe(shape, np.random.default_rng(k)) for k, shape in enumerate(shapes)]
    return stack_observations(seen, torch.device("cpu"))


@pytest.fixture(scope="module")
def learnt():
    """A sphere of radius 0.5 and the same moved by 10 and 3.7 times as large, each with its field."""
    model = learner()
    seen = observed(model, ball_arrays(0.5))
    seen = {"points": torch.cat([seen["points"], 10 + 3.7 * seen["points"]])}
    return model, model.encode(seen, [1, 1])


def test_a_sphere_is_learnt_from_its_points_alone(learnt):
    model, code = learnt
    first = {name: tensor[:1] for name, tensor in code.items()}
    assert (float(first["sign"]), float(first["shift"])) == (1.0, 0.0)
    for radius in (0.25, 0.5, 0.75):
        with torch.no_grad():
            distance = float(model.field(first, on_sphere(radius)).mean())
        assert distance == pytest.approx(radius - 0.5, abs=0.01)


def test_the_mesh_of_a_learnt_sphere_is_that_sphere(learnt):
    model, code = learnt
    first = {name: tensor[:1] for name, tensor in code.items()}
    (product,) = meshes(model, first, [1], ExtractionSettings(method="dense", resolution=32))
    assert (product.figures["sign"], product.figures["level"]) == (1, 0.0)
    mesh = product.value
    a, b, c = mesh.triangles.transpose(1, 0, 2)
    radius = np.linalg.norm(mesh.vertices, axis=1)
    assert np.einsum("ij,ij->", a, np.cross(b, c)) / 6 == pytest.approx(np.pi / 6, rel=0.05)  # and so wound outward
    assert np.abs(radius - 0.5).mean() < 0.01
    assert np.abs(mesh.vertices.mean(axis=0)).max() < 0.5 * 1.1 / 32
    assert is_watertight(mesh) and euler_characteristic(mesh) == 2


def test_field_follows_a_moved_and_scaled_cloud(learnt):
    model, code = learnt
    queries = on_sphere(0.45)
    with torch.no_grad():
        values = model.field(code, torch.cat([queries, 10 + 3.7 * queries]))
    torch.testing.assert_close(values[1] / 3.7, values[0], atol=2e-3, rtol=0)


class StoppingKeeper(Keeper):
    """Keeps every state and stops once at a step."""

    def __init__(self, at: int) -> None:
        self.at, self.notes, self.kept = at, 0, None

    def restore(self):
        return self.kept

    def note(self, state) -> None:
        self.notes += 1
        if self.notes == self.at:
            self.kept = {name: tensor.detach().clone() for name, tensor in state().items()}
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["neuralpull", "neuralpull/tf"])
def test_a_stopped_optimisation_goes_on_with_the_same_numbers(name):
    model = tiny_model(name).eval()
    seen = observed(model, block_arrays(), ball_arrays(0.3))
    undisturbed = model.encode(seen, [1, 2])
    model.keeper = StoppingKeeper(4)
    with pytest.raises(KeyboardInterrupt):
        model.encode(seen, [1, 2])
    resumed = model.encode(seen, [1, 2])
    assert model.keeper.notes == 4 + 5  # nine notes in all: before each of ten steps but the first
    assert all(torch.equal(resumed[key], undisturbed[key]) for key in undisturbed)


def test_a_state_of_other_shapes_is_not_taken_up():
    model = tiny_model("neuralpull").eval()
    seen = observed(model, block_arrays(), ball_arrays(0.3))
    alone = {"points": seen["points"][1:]}
    undisturbed = model.encode(alone, [2])
    model.keeper = StoppingKeeper(4)
    with pytest.raises(KeyboardInterrupt):
        model.encode({"points": seen["points"][:1]}, [1])
    assert torch.equal(model.encode(alone, [2])["lin0.weight_v"], undisturbed["lin0.weight_v"])


# --- bad input


def test_fewer_points_than_neighbours_are_refused_before_anything_runs():
    with pytest.raises(ValidationError, match=r"neighbour 50 needs more than 50 observed points.* is 50; observe more"):
        ModelSettings(observation={"points": 50})


def test_clouds_of_too_few_different_points_are_rejected():
    model = tiny_model("neuralpull")
    arrays = {"surface.points": np.eye(3, dtype=np.float32), "surface.normals": np.eye(3, dtype=np.float32)}
    with pytest.raises(Rejected, match="only 3 different points are observed, but the distance to neighbour 10"):
        model.observe(arrays, np.random.default_rng(0))


def test_identical_and_endless_points_are_rejected():
    model, normals = tiny_model("neuralpull"), np.ones((30, 3), np.float32)
    with pytest.raises(Rejected, match="all 100 observed points are the same"):
        model.observe({"surface.points": normals, "surface.normals": normals}, np.random.default_rng(0))
    with pytest.raises(Rejected, match="not all finite"):
        model.observe({"surface.points": normals * math.inf, "surface.normals": normals}, np.random.default_rng(0))


def test_other_observations_are_refused():
    with pytest.raises(ValueError, match="point clouds under the name 'points'"):
        tiny_model("neuralpull").encode({"image": torch.zeros((1, 3, 8, 8))}, [0])


def test_a_skip_beyond_the_last_layer_is_refused():
    with pytest.raises(ValidationError, match="skip: layer 4 needs"):
        ModelSettings(layers=3)
