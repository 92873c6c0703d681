"""AIR-Net against the figures of the original and against its formulas written out point by point."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pipeline.models.airnet import InferenceSettings, ModelSettings, build
from pipeline.models.point_ops import farthest_points
from pipeline.training.data import ResidentData
from pipeline.training.loop import TrainingSettings
from pipeline.training.schedule import learning_rate_factor
from tests.models.shapes import BLOCKS, block_arrays, tiny_model

ROOT = Path(__file__).parents[2]
TENSORS = ROOT.parent / "shared" / "reference" / "tensors.csv"

# Parameters of encoder and decoder: airnet.md, section 5.
SIZES = {
    "airnet-300": (5_150_208, 697_017),
    "airnet-3000": (3_794_392, 697_017),
    "airnet-300-less-memory": (4_509_672, 496_249),
    "airnet-interp": (5_150_208, 371_017),
    "airnet-pointnet2": (2_448_384, 697_017),
    "airnet-pointnet-interp": (2_448_384, 371_017),
}


def preset(name: str) -> dict:
    text = (ROOT / "resources" / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    (block,) = yaml.safe_load(text)["experiments"]
    return block


def of_preset(name: str):
    return build(ModelSettings(**preset(name).get("model", {})), InferenceSettings(), 0)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    return of_preset("airnet-300").eval()


@pytest.fixture(scope="module")
def moved_away():
    """A small AIR-Net whose weights and statistics are none of a fresh one's."""
    return random_state(tiny_model("airnet", skip_near_origin=True))


@pytest.fixture
def cloud() -> torch.Tensor:
    return torch.rand((2, 300, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5


@pytest.fixture
def queries() -> torch.Tensor:
    return torch.rand((2, 40, 3), generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 0.5


@pytest.mark.parametrize("name", SIZES)
def test_presets_have_the_originals_sizes_and_sampling(name):
    model = of_preset(name)
    assert (parameters(model.network.encoder), parameters(model.network.decoder)) == SIZES[name]
    assert model.settings.skip_near_origin


def test_parts_have_the_originals_sizes(original):
    encoder, decoder = original.network.encoder, original.network.decoder
    assert {name: parameters(part) for name, part in encoder.named_children() if parameters(part)} == {
        "fc_middle": 131_584,
        "transformer_begin": 395_520,
        "transition_downs": 1_713_664,
        "transformer_downs": 791_040,
        "elementwise": 266_240,
        "elementwise_extras": 266_240,
        "final_transformers": 1_186_560,
        "final_elementwise": 399_360,
    }  # airnet.md, section 5
    assert {name: parameters(part) for name, part in decoder.named_children()} == {
        "ct1": 377_400,
        "init_enc": 25_728,
        "blocks": 165_120,
        "fc_c": 128_640,
        "fc_out": 129,
    }


@pytest.mark.parametrize("name", ["airnet-300", "airnet-pointnet-interp"])
def test_tensors_have_the_originals_names_and_shapes(name):
    if not TENSORS.exists():
        pytest.skip("the list of the originals' tensors, ../shared/reference/tensors.csv, is not here")
    with TENSORS.open(encoding="utf-8") as file:
        listed = {row["tensor"]: row["shape"] for row in csv.DictReader(file) if row["preset"] == name}
    state = of_preset(name).network.state_dict()
    found = {key: "x".join(map(str, tensor.shape)) for key, tensor in state.items() if "num_batches" not in key}
    assert found == listed


def test_code_has_the_originals_shapes_and_anchors_are_observed_points(original, cloud):
    code = original.encode({"points": cloud.float()}, [0, 0])
    assert {name: tuple(tensor.shape) for name, tensor in code.items()} == {
        "z": (2, 256),
        "anchors": (2, 100, 3),
        "anchor_feats": (2, 100, 256),
    }
    for anchors, points in zip(code["anchors"], cloud.float(), strict=True):
        assert {tuple(p) for p in anchors.tolist()} <= {tuple(p) for p in points.tolist()}


def test_anchors_are_those_the_sampling_rule_gives(moved_away):
    cloud = torch.rand((1, 100, 3), generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 0.1 - 0.05
    first, second = moved_away.settings.levels
    level = cloud[:, farthest_points(cloud, first, skip_near_origin=True)[0]]
    expected = level[:, farthest_points(level, second, skip_near_origin=True)[0]]
    code = moved_away.encode({"points": cloud}, [0])
    assert torch.equal(code["anchors"], expected)
    assert bool((code["anchors"][0, 1:].square().sum(dim=-1) > 1e-3).all())


@torch.no_grad()
def test_features_and_logits_move_with_the_cloud(moved_away, cloud, queries):
    cloud, queries, move = cloud + 0.7, queries + 0.7, torch.tensor([2.0, 3.0, -1.0])  # never near the origin
    here, there = (moved_away.encode({"points": points}, [0, 0]) for points in (cloud, cloud + move))
    torch.testing.assert_close(there["anchors"], here["anchors"] + move, atol=1e-9, rtol=0)
    torch.testing.assert_close(there["anchor_feats"], here["anchor_feats"], atol=1e-9, rtol=0)
    torch.testing.assert_close(moved_away.field(there, queries + move), moved_away.field(here, queries))


@torch.no_grad()
def test_only_the_first_point_has_a_part_of_its_own(moved_away, cloud, queries):
    order = torch.randperm(299, generator=torch.Generator().manual_seed(0)) + 1
    kept = torch.cat([cloud[:, :1], cloud[:, order]], dim=1)
    values = moved_away.network(queries, cloud)
    torch.testing.assert_close(moved_away.network(queries, kept), values)
    assert not torch.allclose(moved_away.network(queries, cloud.roll(1, dims=1)), values)


def test_first_loss_is_that_of_a_coin_and_only_unused_tensors_get_no_gradient(cloud, queries):
    model = tiny_model("airnet").double()
    batch = {"points": cloud, "queries": queries, "occupancies": (queries[..., 0] > 0).double()}
    loss = model.loss(batch)["loss"]
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.69, abs=0.05)
    unused = {name for name, parameter in model.network.named_parameters() if parameter.grad is None}
    assert unused == {f"encoder.transformer_begin.w_{kind}s.weight" for kind in "qkv"}
    assert all(not dict(model.network.named_parameters())[name].requires_grad for name in unused)


def test_the_interpolating_decoder_leaves_the_global_code_untrained(cloud, queries):
    model = tiny_model("airnet", encoder="pointnet", decoder="interpolation").double()
    batch = {"points": cloud, "queries": queries, "occupancies": torch.ones((2, 40), dtype=torch.float64)}
    model.loss(batch)["loss"].backward()
    unused = {name for name, parameter in model.network.named_parameters() if parameter.grad is None}
    assert unused == {f"encoder.fc_middle.{part}" for part in ("0.weight", "0.bias", "2.weight", "2.bias")}
    assert all(p.requires_grad == (f"{name}" not in unused) for name, p in model.network.named_parameters())


def random_state(module: torch.nn.Module) -> torch.nn.Module:
    """The module in evaluation mode with weights and running statistics away from their starts."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if "num_batches" not in name:
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(0.5 + noise if "running_var" in name else tensor + noise - 0.5)
    return module.double().eval()


def looked_up(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def linear(x: torch.Tensor, state: dict, name: str) -> torch.Tensor:
    y = x @ state[f"{name}.weight"].flatten(1).T
    return y + state[f"{name}.bias"] if f"{name}.bias" in state else y


def two_layers(x: torch.Tensor, state: dict, name: str) -> torch.Tensor:
    return linear(linear(x, state, f"{name}.0").clamp(min=0), state, f"{name}.2")


def norm(x: torch.Tensor, state: dict, name: str) -> torch.Tensor:
    centred = (x - state[f"{name}.running_mean"]) / (state[f"{name}.running_var"] + 1e-5).sqrt()
    return centred * state[f"{name}.weight"] + state[f"{name}.bias"]


def sorted_around(place: torch.Tensor, points: torch.Tensor, k: int) -> list[int]:
    return (points - place).square().sum(dim=-1).argsort()[:k].tolist()


def vector_attention(query, keys, values, offsets, state: dict, gamma: str) -> torch.Tensor:
    """Of one query (C,) to keys and values (k, C)."""
    weights = two_layers(query - keys + offsets, state, gamma).softmax(dim=0)
    return (weights * (values + offsets)).sum(dim=0)


def elementwise(x: torch.Tensor, state: dict, name: str) -> torch.Tensor:
    hidden = norm(linear(x, state, f"{name}.conv1"), state, f"{name}.bn1").clamp(min=0)
    return norm(
        x + norm(linear(hidden, state, f"{name}.conv2"), state, f"{name}.bn2").clamp(min=0), state, f"{name}.bn3"
    )


def block(points: torch.Tensor, x: torch.Tensor, k: int, state: dict, name: str) -> torch.Tensor:
    seen = []
    for i in range(len(points)):
        near = sorted_around(points[i], points, k)
        offsets = two_layers(points[i] - points[near], state, f"{name}.fc_delta")
        query = linear(x[i], state, f"{name}.w_qs")
        keys, values = linear(x[near], state, f"{name}.w_ks"), linear(x[near], state, f"{name}.w_vs")
        seen.append(vector_attention(query, keys, values, offsets, state, f"{name}.fc_gamma"))
    return norm(x + torch.stack(seen), state, f"{name}.bn")


def abstraction(points, x, chosen, k: int, state: dict, name: str) -> torch.Tensor:
    def look(queries, number: str, keys: str, values: str) -> torch.Tensor:
        rows = []
        for query, i in zip(queries, chosen, strict=True):
            near = sorted_around(points[i], points, k)
            offsets = two_layers(points[near] - points[i], state, f"{name}.fc_delta1")
            seen = linear(x[near], state, f"{name}.{keys}"), linear(x[near], state, f"{name}.{values}")
            rows.append(vector_attention(query, *seen, offsets, state, f"{name}.fc_gamma{number}"))
        return torch.stack(rows)

    first = look(linear(x[chosen], state, f"{name}.w_qs"), "1", "w_ks", "w_vs")
    hidden = norm(linear(first, state, f"{name}.conv1"), state, f"{name}.bn1").clamp(min=0)
    first = norm(first + linear(hidden, state, f"{name}.conv2"), state, f"{name}.bnorm0")
    second = look(linear(first, state, f"{name}.w_qs2"), "2", "w_ks2", "w_vs2")
    return norm(norm(first + second, state, f"{name}.bnorm1") + x[chosen], state, f"{name}.bnorm2")


def pooling(points, x, chosen, k: int, state: dict, name: str) -> torch.Tensor:
    x = linear(x, state, f"{name}.fc1")
    hidden = norm(linear(x, state, f"{name}.conv1"), state, f"{name}.bn1").clamp(min=0)
    y = x + norm(linear(hidden, state, f"{name}.conv2"), state, f"{name}.bn2").clamp(min=0)
    largest = torch.stack([y[sorted_around(points[i], points, k)].amax(dim=0) for i in chosen])
    return norm(x[chosen] + largest, state, f"{name}.bn")


def written_out(settings: ModelSettings, state: dict, query: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The logit of one query (3,) given one cloud (M, 3), as airnet.md, sections 2 to 4, has it."""
    if settings.encoder == "attention":
        rows = []
        for place in points:
            near = sorted_around(place, points, settings.first_neighbours)
            offsets = two_layers(place - points[near], state, "encoder.transformer_begin.fc_delta")
            weights = two_layers(offsets, state, "encoder.transformer_begin.fc_gamma").softmax(dim=0)
            rows.append((weights * offsets).sum(dim=0))
        x = norm(torch.stack(rows), state, "encoder.transformer_begin.bn")
    else:
        x = two_layers(points, state, "encoder.fc_begin")
    for level, count in enumerate(settings.levels):
        chosen = farthest_points(points[None], count, settings.skip_near_origin)[0].tolist()
        down = f"encoder.transition_downs.{level}.sa"
        step = abstraction if settings.encoder == "attention" else pooling
        x, points = step(points, x, chosen, settings.neighbours, state, down), points[chosen]
        if settings.encoder == "attention":
            x = elementwise(x, state, f"encoder.elementwise_extras.{level}")
            x = block(points, x, settings.neighbours, state, f"encoder.transformer_downs.{level}")
        if "encoder.fc1.weight" in state and level == 0:
            x = linear(x, state, "encoder.fc1")
        x = elementwise(x, state, f"encoder.elementwise.{level}")
    for i in range(settings.full_blocks):
        x = block(points, x, len(points), state, f"encoder.final_transformers.{i}")
        x = elementwise(x, state, f"encoder.final_elementwise.{i}")
    if settings.decoder == "attention":
        z = two_layers(x.amax(dim=0), state, "encoder.fc_middle")
        near = sorted_around(query, points, settings.decoder_neighbours)
        offsets = two_layers(query - points[near], state, "decoder.ct1.fc_delta")
        offsets = torch.cat([offsets, torch.zeros_like(offsets[:1])])
        keys = torch.cat([linear(x[near], state, "decoder.ct1.w_ks"), linear(z, state, "decoder.ct1.w_k_global")[None]])
        values = linear(x[near], state, "decoder.ct1.w_vs")
        values = torch.cat([values, linear(z, state, "decoder.ct1.w_v_global")[None]])
        seen = vector_attention(
            linear(z, state, "decoder.ct1.w_qs"), keys, values, offsets, state, "decoder.ct1.fc_gamma"
        )
        hidden = linear(seen, state, "decoder.init_enc")
    else:
        weights = torch.exp(-(((points - query).norm(dim=-1) + 1e-5) ** 2) / settings.kernel**2)
        seen = linear(weights @ x / weights.sum(), state, "decoder.fc0")
        hidden = linear(seen.clamp(min=0), state, "decoder.fc1")
    for i in range(settings.blocks):
        hidden = hidden + linear(seen, state, f"decoder.fc_c.{i}")
        inner = linear(hidden.clamp(min=0), state, f"decoder.blocks.{i}.fc_0")
        hidden = hidden + linear(inner.clamp(min=0), state, f"decoder.blocks.{i}.fc_1")
    return linear(hidden.clamp(min=0), state, "decoder.fc_out")[0]


@pytest.mark.parametrize("name", SIZES)
def test_presets_validate_after_every_pass_over_the_originals_shapes(name):
    training = preset(name)["training"]
    assert training["validate_every"] == math.ceil(30_661 / training["batch_shapes"])


def test_encoder_and_decoder_are_groups_of_their_own():
    model = tiny_model("airnet", decoder="interpolation")
    groups = [{id(weight) for weight in group["params"]} for group in model.parameter_groups(1e-3)]
    sides = (model.network.encoder, model.network.decoder)
    assert groups == [{id(weight) for weight in side.parameters() if weight.requires_grad} for side in sides]
    assert all(group["lr"] == 1e-3 for group in model.parameter_groups(1e-3))


@pytest.mark.parametrize("decoder", ["attention", "interpolation"])
@pytest.mark.parametrize("encoder", ["attention", "pointnet"])
@torch.no_grad()
def test_network_computes_its_formulas(encoder, decoder):
    sizes = {"levels": (16, 9), "neighbours": 5, "observation": {"points": 30}, "skip_near_origin": True}
    model = tiny_model("airnet", encoder=encoder, decoder=decoder, full_blocks=2, **sizes)
    random_state(model)
    generator = torch.Generator().manual_seed(3)
    cloud = torch.rand((2, 30, 3), generator=generator, dtype=torch.float64) - 0.5
    queries = torch.rand((2, 4, 3), generator=generator, dtype=torch.float64) - 0.5
    state = looked_up(model.network)
    expected = [
        [written_out(model.settings, state, query, points) for query in asked]
        for asked, points in zip(queries, cloud, strict=True)
    ]
    expected = torch.tensor(expected)
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(model.network(queries, cloud), expected, rtol=1e-9, atol=1e-9)


def test_learning_rate_falls_to_a_fifth_every_200_passes():
    training = TrainingSettings(**preset("airnet-300")["training"])
    rates = [training.learning_rate * learning_rate_factor(training, 0, epoch) for epoch in (1, 200, 201, 401, 601)]
    # airnet.md, section 12, gives them for the original's passes 0, 199, 200, 400, 600; here the first one is 1.
    np.testing.assert_allclose(rates, [5e-4, 5e-4, 1e-4, 2e-5, 4e-6])


@pytest.mark.parametrize("queries", [60, 61])
def test_batch_takes_as_many_points_of_every_sigma_with_their_labels(queries):
    model = tiny_model("airnet", observation={"points": 40, "noise": 0.0}, queries=queries, levels=(8,))
    shapes = [block_arrays(BLOCKS, 500, seed) for seed in range(3)]
    data = ResidentData.for_model(model, shapes)
    batch = model.draw(data, torch.tensor([2, 0]), torch.Generator().manual_seed(0))
    for row, shape in enumerate((shapes[2], shapes[0])):
        labels, counts = {}, []
        for sigma in (0.01, 0.1):
            points, occupancies = (shape[f"boundary-{sigma}.{part}"] for part in ("points", "occupancies"))
            own = {tuple(p): bool(o) for p, o in zip(points, occupancies, strict=True)}
            counts.append(sum(tuple(p) in own for p in batch["queries"][row].numpy()))
            labels |= own
        asked = [labels[tuple(p)] for p in batch["queries"][row].numpy()]
        assert asked == batch["occupancies"][row].bool().tolist()
        assert counts == [queries - queries // 2, queries // 2]
        surface = {tuple(p) for p in shape["surface.points"]}
        assert all(tuple(p) in surface for p in batch["points"][row].numpy())


def test_supervision_decides_the_stages_and_the_points():
    boundary, volume = tiny_model("airnet"), tiny_model("airnet", supervision="volume")
    assert "sample_boundary" in boundary.declaration.training_stages
    assert "sample_boundary" not in volume.declaration.training_stages
    arrays = block_arrays(BLOCKS, 50)
    assert set(volume.prepare(arrays)) == {"surface.points", "volume.points", "volume.occupancies"}
    with pytest.raises(ValueError, match="no labelled points of the kind 'boundary'"):
        boundary.prepare({key: array for key, array in arrays.items() if not key.startswith("boundary")})


def test_observations_of_the_wrong_kind_or_size_are_refused(original):
    with pytest.raises(ValueError, match="observes point clouds under the name 'points'"):
        original.encode({"voxels": torch.zeros((1, 32, 32, 32))}, [0])
    with pytest.raises(ValueError, match="a cloud of 150 points is too small; these settings need at least 200"):
        original.encode({"points": torch.rand((1, 150, 3))}, [0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"levels": (400, 100)}, "levels"),
        ({"levels": (100, 200)}, "levels"),
        ({"first_neighbours": 301}, "first_neighbours"),
        ({"decoder_neighbours": 101}, "decoder_neighbours"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ModelSettings(**wrong)
