"""Implicit Feature Networks against the figures of the original and against their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.arrays import Rejected
from pipeline.models.ifnet import InferenceSettings, ModelSettings, build
from pipeline.models.occupancy_grid import gathered_grids, packed_grid, rasterised
from pipeline.models.weights import load_published
from pipeline.training.data import ResidentData
from tests.models.published import needs_tensors, published_tensors, tensors_of
from tests.models.shapes import BLOCKS, block_arrays, tiny_model

VOX32 = {
    "observation": {"kind": "voxels"},
    "stem": None,
    "levels": ((32, 64), (128, 128), (128, 128)),
    "decoder": (512, 256, 256),
    "displacement": 0.035,
    "outside": "zeros",
}
VOX128 = {"observation": {"kind": "voxels", "resolution": 128}, "outside": "zeros"}


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def original(**settings):
    torch.manual_seed(0)
    return build(ModelSettings(**settings), InferenceSettings(), 0)


def randomised(model):
    """Weights and running statistics away from their start, so that every part shows in the output."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(1 + noise.abs() if name.endswith("running_var") else 0.3 * noise)
    return model.eval()


@pytest.mark.parametrize(
    "settings, total, first, features",
    [({}, 2_550_881, 661_504, 2583), (VOX128, 2_550_881, 661_504, 2583), (VOX32, 2_954_049, 1_150_976, 2247)],
    ids=["points", "vox128", "vox32"],
)
def test_sizes_are_the_originals(settings, total, first, features):
    network = original(**settings).network
    assert parameters(network) == total
    assert parameters(network.fc_0) == first
    assert network.fc_0.in_channels == features


@needs_tensors
@pytest.mark.parametrize("preset, settings", [("ifnet-points", {}), ("ifnet-vox32", VOX32)])
def test_tensors_have_the_originals_names_and_shapes(preset, settings):
    assert tensors_of(original(**settings).network) == published_tensors(preset)


def by_definition(network, stem: bool, queries, grid, outside: str, align_corners: bool, displacement: float):
    """The sheet's section 2, layer by layer, with all features side by side."""
    w = network.state_dict()

    def conv(name: str, x):
        return F.relu(F.conv3d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1))

    def norm(name: str, x):
        statistics = (w[f"{name}.running_mean"], w[f"{name}.running_var"], w[f"{name}.weight"], w[f"{name}.bias"])
        return F.batch_norm(x, *statistics, training=False)

    x = grid[:, None]
    levels = [x]
    if stem:
        x = norm("conv_in_bn", conv("conv_in", x))
        levels.append(x)
    for i in range(2) if stem else range(1, 4):
        x = x if i == 1 and not stem else F.max_pool3d(x, 2)
        x = norm(f"conv{i}_1_bn", conv(f"conv_{i}_1", conv(f"conv_{i}", x)))
        levels.append(x)
    places = [queries]
    for axis in range(3):
        for sign in (-1, 1):
            moved = queries.clone()
            moved[..., axis] += sign * displacement
            places.append(moved)
    places = torch.stack(places, dim=1)[:, None]  # (B, 1, 7, N, 3)
    read = [F.grid_sample(level, places, padding_mode=outside, align_corners=align_corners) for level in levels]
    x = torch.cat(read, dim=1)
    x = x.reshape(len(x), 7 * x.shape[1], -1)
    for name in ("fc_0", "fc_1"):
        x = F.relu(F.conv1d(x, w[f"{name}.weight"], w[f"{name}.bias"]))
    return F.conv1d(x, w["fc_out.weight"], w["fc_out.bias"])[:, 0]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("case, stem, displacement", [("ifnet", True, 0.0722), ("ifnet/voxels", False, 0.035)])
def test_the_network_follows_its_definition(case, stem, displacement, align_corners):
    model = randomised(tiny_model(case, align_corners=align_corners))
    generator = torch.Generator().manual_seed(0)
    queries = torch.rand((2, 60, 3), generator=generator) * 2.4 - 1.2
    grid = (torch.rand((2, 16, 16, 16), generator=generator) < 0.3).float()
    outside = "border" if stem else "zeros"
    expected = by_definition(model.network, stem, queries, grid, outside, align_corners, displacement)
    torch.testing.assert_close(model.network(queries, grid), expected, rtol=1e-5, atol=1e-5)


def test_both_corner_settings_and_both_borders_differ():
    queries = torch.rand((1, 50, 3), generator=torch.Generator().manual_seed(0)) * 2 - 1
    grid = (torch.rand((1, 16, 16, 16), generator=torch.Generator().manual_seed(1)) < 0.3).float()

    def logits(**settings):
        return randomised(tiny_model("ifnet", **settings)).network(queries, grid)

    assert (logits() - logits(align_corners=False)).abs().max() > 0.01
    assert (logits() - logits(outside="zeros")).abs().max() > 0.01


@pytest.mark.parametrize("align_corners, expected", [(True, 1.0), (False, 0.450)])
def test_a_lone_node_is_read_where_it_lies(align_corners, expected):
    """Golden of the sheet, section 9: node (100, 17, 64) of 128^3, read through the model's own change of frame."""
    settings = {"observation": {"points": 1, "noise": 0.0, "resolution": 128}, "displacement": 0.0}
    model = tiny_model("ifnet", stem=None, levels=((1, 1),), decoder=(1,), **settings, align_corners=align_corners)
    with torch.no_grad():
        for tensor in (*model.network.fc_0.parameters(), *model.network.fc_out.parameters()):
            tensor.zero_()
        model.network.fc_0.weight[0, 0] = model.network.fc_out.weight[0, 0] = 1.0  # the grid itself, at the query
        point = (torch.tensor([[[100, 17, 64]]]) / 127 - 0.5).float()
        code = model.eval().encode({"points": point}, [0])
        assert float(model.field(code, point)) == pytest.approx(expected, abs=1e-3)
        assert float(model.field(code, point.flip(-1))) == 0.0


def test_points_go_to_the_nearest_node():
    points = torch.tensor([[[0.5, -0.5, 0.0], [0.0, 0.1, -0.2], [0.7, -0.9, 0.2]]])
    nodes = rasterised(points, 128)[0].nonzero().tolist()
    assert sorted(nodes) == sorted([[127, 0, 64], [64, 76, 38], [127, 0, 89]])


def test_rasterising_finds_the_nearest_of_all_nodes():
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 3)).astype(np.float32)
    axis = np.linspace(-0.5, 0.5, 12)
    expected = np.zeros((12, 12, 12), bool)
    for point in points:
        expected[tuple(np.abs(axis - coordinate).argmin() for coordinate in point)] = True
    np.testing.assert_array_equal(rasterised(torch.from_numpy(points)[None], 12)[0].bool().numpy(), expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_packed_grids_come_back(resolution, seed):
    grids = np.random.default_rng(seed).random((3, *[resolution] * 3)) < 0.4
    packed = torch.from_numpy(np.stack([packed_grid(grid) for grid in grids]))
    assert packed.shape == (3, math.ceil(resolution**3 / 8))
    back = gathered_grids(packed, torch.tensor([2, 0, 2]), resolution)
    np.testing.assert_array_equal(back.numpy(), grids[[2, 0, 2]])


def test_levels_halve_the_resolution():
    model = tiny_model("ifnet").eval()
    code = model.encode({"points": torch.zeros((2, 5, 3))}, [0, 0])
    assert {name: tuple(level.shape) for name, level in code.items()} == {
        "level_0": (2, 1, 16, 16, 16),
        "level_1": (2, 4, 16, 16, 16),
        "level_2": (2, 8, 8, 8, 8),
        "level_3": (2, 8, 4, 4, 4),
    }


def test_loss_sums_over_points_and_starts_near_a_coin_toss():
    model = tiny_model("ifnet", queries=3000).train()
    data = ResidentData.for_model(model, [block_arrays(), block_arrays(seed=1)])
    batch = model.draw(data, torch.tensor([0, 1]), torch.Generator().manual_seed(0))
    assert float(model.loss(batch)["loss"].detach()) == pytest.approx(3000 * math.log(2), rel=0.05)


def test_batch_has_its_share_of_every_sigma_and_the_shapes_own_labels():
    model = tiny_model("ifnet/voxels", queries=101)
    shapes = [block_arrays(BLOCKS, 500, 0), block_arrays(BLOCKS[:2], 500, 1), block_arrays(BLOCKS[1:], 500, 2)]
    data = ResidentData.for_model(model, shapes)
    batch = model.draw(data, torch.tensor([2, 0]), torch.Generator().manual_seed(0))
    assert batch["queries"].shape == (2, 101, 3)
    for row, shape in enumerate((shapes[2], shapes[0])):
        np.testing.assert_array_equal(batch["voxels"][row].numpy(), shape["voxels.16"])
        for sigma, part in ((0.1, slice(0, 50)), (0.01, slice(50, 101))):
            points, labels = shape[f"boundary-{sigma}.points"], shape[f"boundary-{sigma}.occupancies"]
            label = {tuple(p): bool(o) for p, o in zip(points, labels, strict=True)}
            asked = [label[tuple(p)] for p in batch["queries"][row, part].numpy()]
            assert asked == batch["occupancies"][row, part].bool().tolist()


@pytest.mark.parametrize("redraw", [False, True])
def test_the_cloud_of_a_shape_stays_unless_it_is_redrawn(redraw):
    cloud = {"points": 30, "noise": 0.0, "resolution": 16, "redraw": redraw}
    model = tiny_model("ifnet", observation=cloud)
    shapes = [block_arrays(BLOCKS, 500, seed) for seed in range(2)]
    data = ResidentData.for_model(model, shapes)
    first, second = (
        model.draw(data, torch.tensor([1]), torch.Generator().manual_seed(seed))["points"][0].numpy() for seed in (0, 1)
    )
    surface = {tuple(p) for p in shapes[1]["surface.points"]}
    assert all(tuple(p) in surface for p in first)
    assert np.array_equal(first, second) != redraw
    assert np.array_equal(first, shapes[1]["surface.points"][:30]) != redraw


def test_training_clouds_carry_the_observations_noise():
    model = tiny_model("ifnet", observation={"points": 3000, "noise": 0.02, "resolution": 16})
    data = ResidentData.for_model(model, [{**block_arrays(), "surface.points": np.zeros((3000, 3), np.float32)}])
    batch = model.draw(data, torch.tensor([0]), torch.Generator().manual_seed(0))
    assert float(batch["points"].std()) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("case", ["ifnet", "ifnet/voxels"])
def test_every_weight_learns(case):
    model = tiny_model(case).train()
    data = ResidentData.for_model(model, [block_arrays(), block_arrays(seed=1)])
    model.loss(model.draw(data, torch.tensor([0, 1]), torch.Generator().manual_seed(0)))["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_declarations_name_what_is_observed():
    cloud, voxels = original().declaration, original(**VOX32, sigmas=(0.05,)).declaration
    boundaries = ("sample_boundary/0.1", "sample_boundary/0.01")
    assert cloud.training_stages == ("sample_surface", *boundaries, "sample_volume")
    assert (cloud.observes, cloud.observation_stages) == ("point_cloud", ("sample_surface",))
    assert voxels.training_stages == ("voxelize/32", "sample_boundary/0.05", "sample_volume")
    assert (voxels.observes, voxels.observation_stages) == ("voxels", ("voxelize/32",))


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"observation": {"resolution": 8}}, "resolution 8 cannot be halved 4 times"),
        ({"queries": 1}, "fewer than the 2 sigmas"),
        ({"levels": ()}, "at least 1"),
        ({"observation": {"kind": "view"}}, "point_cloud.*voxels"),
    ],
)
def test_settings_that_cannot_be_built_are_refused(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        ModelSettings(**settings)


def test_observations_of_another_kind_or_size_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="observes grids"):
        tiny_model("ifnet").network(torch.zeros((1, 5, 3)), torch.zeros((1, 100, 3)))
    with pytest.raises(Rejected, match="shape \\(8, 8, 8\\), but this model observes 16 cells"):
        tiny_model("ifnet/voxels").observe({"voxels.16": np.zeros((8, 8, 8), bool)}, rng)
    with pytest.raises(Rejected, match="100 surface points, fewer than the 150"):
        tiny_model("ifnet").prepare({**block_arrays(), "surface.points": np.zeros((100, 3), np.float32)})


def test_level_is_the_threshold():
    assert original(threshold=0.4).level == 0.4
    assert original().level == 0.5


def test_weights_saved_in_two_halves_are_taken():
    """AIR-Nets' re-run has the pyramid in its encoder and the layers that classify in its decoder."""
    tensors = randomised(original(observation={"resolution": 16})).network.state_dict()
    halves = {("decoder." if name.startswith("fc_") else "encoder.") + name: value for name, value in tensors.items()}
    taken = load_published("ifnet-points", halves, align_corners=False).network.state_dict()
    assert all(torch.equal(taken[name], value) for name, value in tensors.items())
