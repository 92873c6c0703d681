"""Convolutional Occupancy Networks against the figures of the original and against the formulas, point by point."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from pipeline.arrays import Rejected
from pipeline.models.convonet import (
    InferenceSettings,
    ModelSettings,
    build,
    cell_index,
    cell_maxima,
    cell_means,
    shared_cells,
    unit_coordinates,
)
from pipeline.models.unet import UNet, UNet3D
from pipeline.training.data import ResidentData
from tests.models.closed_form import filled, numbers
from tests.models.published import needs_tensors, published_tensors, tensors_of
from tests.models.shapes import BLOCKS, block_arrays, tiny_model

VOXELS = {"kind": "voxels"}
ORIGINALS = {
    "three planes": ({}, 1_978_209),
    "one plane": ({"maps": ("xz",)}, 1_978_209),
    "grid 32": ({"maps": ("grid",)}, 1_068_545),
    "three planes, voxels": ({"observation": VOXELS}, 1_951_873),
    "grid 32, voxels": ({"observation": VOXELS, "maps": ("grid",)}, 1_042_209),
    "rooms, three planes": ({"plane_resolution": 128, "plane_depth": 5}, 7_812_705),
    "rooms, grid 64": ({"maps": ("grid",), "grid_resolution": 64, "grid_levels": 4}, 4_166_657),
    "rooms, all": ({"maps": ("grid", "xz", "xy", "yz"), "plane_resolution": 128, "plane_depth": 5}, 8_838_017),
}


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def original(**settings):
    torch.manual_seed(0)
    return build(ModelSettings(**settings), InferenceSettings(), 0)


def randomised(model):
    """Weights without zeros, so that every part of the network shows in its output."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(0.4 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("settings, count", ORIGINALS.values(), ids=ORIGINALS)
def test_sizes_are_the_originals(settings, count):
    assert parameters(original(**settings)) == count


def test_parts_have_the_originals_sizes():
    planes, grid = original().network, original(maps=("grid",)).network
    assert parameters(planes.decoder) == parameters(grid.decoder) == 16_001
    assert parameters(planes.encoder.unet) == 1_934_976
    assert parameters(grid.encoder.unet3d) == 1_025_312
    assert parameters(planes.encoder) == 1_962_208


@needs_tensors
@pytest.mark.parametrize(
    "preset, settings",
    [("convonet-1plane", {"maps": ("xz",)}), ("convonet-3plane", {}), ("convonet-grid32", {"maps": ("grid",)})],
)
def test_tensors_have_the_originals_names_and_shapes(preset, settings):
    assert tensors_of(original(**settings).network) == published_tensors(preset)


def test_a_point_near_the_edge_lies_in_the_cells_of_the_sheet():
    unit = unit_coordinates(torch.tensor([[0.549, 0.0, -0.549]]), "xz", 0.1)
    torch.testing.assert_close(unit, torch.tensor([[0.99909, 0.00091]]), atol=1e-5, rtol=0)
    assert cell_index(unit, 64).tolist() == [63]
    assert cell_index(torch.tensor([[0.5, 0.25, 0.99]]), 4).tolist() == [2 + 4 * (1 + 4 * 3)]


@pytest.mark.parametrize("name, axes, slack", [("xy", [0, 1], 1e-5), ("yz", [1, 2], 1e-5), ("grid", [0, 1, 2], 1e-3)])
def test_points_outside_go_to_the_border(name, axes, slack):
    points = torch.tensor([[0.1, -0.2, 0.3], [9.0, 9.0, 9.0], [-9.0, -9.0, -9.0]])
    unit = unit_coordinates(points, name, 0.1)
    torch.testing.assert_close(unit[0], points[0, axes] / (1.1 + slack) + 0.5)
    assert unit[1].tolist() == pytest.approx([1 - slack] * len(axes), abs=1e-7)
    assert unit[2].tolist() == [0.0] * len(axes)


def test_means_and_maxima_are_those_of_each_cell_of_each_shape():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn((2, 40, 3), generator=generator)
    cells = torch.randint(9, (2, 40), generator=generator)
    cells[cells == 4] = 5
    means = cell_means(features, cells, 9)
    maxima = cell_maxima(features.flatten(0, 1), shared_cells(cells, 9)).unflatten(0, (2, 40))
    for shape in range(2):
        for cell in range(9):
            members = features[shape, cells[shape] == cell]
            expected = members.mean(dim=0) if len(members) else torch.zeros(3)
            torch.testing.assert_close(means[shape, :, cell], expected)
        for point in range(40):
            expected = features[shape, cells[shape] == cells[shape, point]].amax(dim=0)
            assert torch.equal(maxima[shape, point], expected)


def residual(block, x: np.ndarray) -> np.ndarray:
    """Sheet of Occupancy Networks: shortcut(x) + fc_1(relu(fc_0(relu(x))))."""
    hidden = linear(block.fc_0, np.maximum(x, 0))
    kept = linear(block.shortcut, x) if isinstance(block.shortcut, torch.nn.Linear) else x
    return kept + linear(block.fc_1, np.maximum(hidden, 0))


def linear(layer, x: np.ndarray) -> np.ndarray:
    y = x @ layer.weight.detach().double().numpy().T
    return y if layer.bias is None else y + layer.bias.detach().double().numpy()


def places(points: np.ndarray, axes: list[int]) -> np.ndarray:
    slack = 1e-3 if len(axes) == 3 else 1e-5
    unit = points[:, axes] / (1.1 + slack) + 0.5
    return np.where(unit >= 1, 1 - slack, np.maximum(unit, 0))


def means_by_loop(points, features, axes, resolution: int) -> np.ndarray:
    """(C, R, ...), the first coordinate last, before any U-Net."""
    found: dict[tuple, list] = {}
    for place, feature in zip(places(points, axes), features, strict=True):
        found.setdefault(tuple(np.floor(place * resolution).astype(int)[::-1]), []).append(feature)
    grid = np.zeros((features.shape[1], *[resolution] * len(axes)))
    for cell, members in found.items():
        grid[(slice(None), *cell)] = np.mean(members, axis=0)
    return grid


def read_by_loop(grid: np.ndarray, points: np.ndarray, axes: list[int]) -> np.ndarray:
    """Linear interpolation where coordinate 0 is the middle of the first cell and 1 that of the last."""
    resolution, result = grid.shape[-1], []
    for place in places(points, axes) * (resolution - 1):
        low, total = np.floor(place).astype(int), 0.0
        for corner in np.ndindex(*[2] * len(axes)):
            weight = np.prod(np.where(corner, place - low, 1 - (place - low)))
            cell = np.minimum(low + corner, resolution - 1)[::-1]
            total = total + weight * grid[(slice(None), *cell)]
        result.append(total)
    return np.array(result)


AXES = {"xz": [0, 2], "xy": [0, 1], "yz": [1, 2], "grid": [0, 1, 2]}


@pytest.mark.parametrize("maps", [("xz",), ("xz", "xy", "yz"), ("grid",), ("grid", "yz", "xz")])
def test_the_whole_network_follows_the_formulas(maps):
    """Everything but the U-Nets, in double precision by loops over points, some of them outside the cube."""
    sizes = {"plane_resolution": 8, "plane_depth": 1, "grid_resolution": 4, "grid_levels": 1, "encoder_blocks": 3}
    model = randomised(tiny_model("convonet", **{**sizes, "maps": maps, "grid_width": 8, "code": 8}))
    encoder, decoder = model.network.encoder, model.network.decoder
    for name in ("unet", "unet3d"):
        if hasattr(encoder, name):
            setattr(encoder, name, torch.nn.Identity())
    rng = np.random.default_rng(0)
    cloud, queries = rng.uniform(-0.6, 0.6, (60, 3)), rng.uniform(-0.7, 0.7, (30, 3))
    features = residual(encoder.blocks[0], linear(encoder.fc_pos, cloud))
    resolutions = {name: 4 if name == "grid" else 8 for name in maps}
    for block in encoder.blocks[1:]:
        pooled = np.zeros_like(features)
        for name in maps:
            cells = np.floor(places(cloud, AXES[name]) * resolutions[name]).astype(int)
            same = (cells[:, None] == cells[None]).all(axis=-1)
            pooled += np.array([features[row].max(axis=0) for row in same])
        features = residual(block, np.concatenate([features, pooled], axis=1))
    features = linear(encoder.fc_c, features)
    read = sum(
        read_by_loop(means_by_loop(cloud, features, AXES[name], resolutions[name]), queries, AXES[name])
        for name in maps
    )
    x = linear(decoder.fc_p, queries)
    for fc_c, block in zip(decoder.fc_c, decoder.blocks, strict=True):
        x = residual(block, x + linear(fc_c, read))
    expected = linear(decoder.fc_out, np.maximum(x, 0))[:, 0]
    with torch.no_grad():
        got = model.network(torch.tensor(queries[None]).float(), torch.tensor(cloud[None]).float())[0]
    np.testing.assert_allclose(got.numpy(), expected, atol=2e-4 * np.abs(expected).max())


def test_planes_share_a_unet_and_keep_their_order():
    model = randomised(tiny_model("convonet"))
    alone = {name: randomised(tiny_model("convonet", maps=(name,))) for name in ("xz", "xy", "yz")}
    means = torch.randn((2, 50, 8), generator=torch.Generator().manual_seed(0))
    cloud = torch.rand((2, 50, 3), generator=torch.Generator().manual_seed(1)) - 0.5
    with torch.no_grad():
        together = model.network.encoder.spread(means, model.network.encoder.cells(cloud))["planes"]
        for i, single in enumerate(alone.values()):
            plane = single.network.encoder.spread(means, single.network.encoder.cells(cloud))["planes"]
            torch.testing.assert_close(together[:, i], plane[:, 0])


def test_unet_follows_its_levels():
    torch.manual_seed(3)
    net, x = UNet(3, 5, depth=2, width=4), torch.randn((2, 3, 8, 8))
    w = net.state_dict()

    def conv(name: str, x):
        return F.relu(F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1))

    fine = conv("down_convs.0.conv2", conv("down_convs.0.conv1", x))
    coarse = conv("down_convs.1.conv2", conv("down_convs.1.conv1", F.max_pool2d(fine, 2)))
    up = F.conv_transpose2d(coarse, w["up_convs.0.upconv.weight"], w["up_convs.0.upconv.bias"], stride=2)
    merged = conv("up_convs.0.conv2", conv("up_convs.0.conv1", torch.cat([up, fine], 1)))
    expected = F.conv2d(merged, w["conv_final.weight"], w["conv_final.bias"])
    torch.testing.assert_close(net(x), expected)
    assert not w["down_convs.0.conv1.bias"].any() and w["up_convs.0.upconv.bias"].any()


def test_grid_unet_follows_its_levels():
    torch.manual_seed(3)
    net, x = UNet3D(8, 5, levels=2, width=8), torch.randn((1, 8, 5, 5, 5))
    for tensor in net.parameters():
        torch.nn.init.normal_(tensor, std=0.5)
    w = net.state_dict()

    def level(name: str, x):
        for part in (f"{name}.basic_module.SingleConv1", f"{name}.basic_module.SingleConv2"):
            x = F.group_norm(x, 8, w[f"{part}.groupnorm.weight"], w[f"{part}.groupnorm.bias"])
            x = F.relu(F.conv3d(x, w[f"{part}.conv.weight"], padding=1))
        return x

    fine = level("encoders.0", x)
    coarse = level("encoders.1", F.max_pool3d(fine, 2))
    nearest = coarse[:, :, [0, 0, 0, 1, 1]][:, :, :, [0, 0, 0, 1, 1]][:, :, :, :, [0, 0, 0, 1, 1]]
    merged = level("decoders.0", torch.cat([fine, nearest], 1))
    torch.testing.assert_close(net(x), F.conv3d(merged, w["final_conv.weight"], w["final_conv.bias"]))


def test_voxels_stand_in_the_cube_from_face_to_face():
    """The voxel at a corner is read there, and only there, by planes filled without a U-Net."""
    model = randomised(tiny_model("convonet/voxels", plane_depth=1))
    encoder = model.network.encoder
    encoder.unet = torch.nn.Identity()
    with torch.no_grad():
        encoder.conv_in.bias.fill_(0.0)
        encoder.conv_in.weight.abs_()
        voxels = torch.zeros((1, 16, 16, 16))
        voxels[0, 15, 0, 7] = 1
        planes = encoder(voxels)["planes"][0]  # (3, C, 16, 16)
    # xz, xy, yz with the first axis last; ends of linspace(-0.5, 0.5, 16) lie in cells 0 and 15 of 16.
    rows, columns = (planes[0].amax(0) > 0).nonzero().T
    assert set(columns.tolist()) == {14, 15} and set(rows.tolist()) == {6, 7, 8}
    rows, columns = (planes[1].amax(0) > 0).nonzero().T
    assert set(columns.tolist()) == {14, 15} and set(rows.tolist()) == {0, 1}
    rows, columns = (planes[2].amax(0) > 0).nonzero().T
    assert set(columns.tolist()) == {0, 1} and set(rows.tolist()) == {6, 7, 8}


def test_moving_the_cloud_by_a_cell_moves_the_plane_by_a_column():
    model = randomised(tiny_model("convonet", plane_depth=1))
    encoder = model.network.encoder
    encoder.unet = torch.nn.Identity()
    cloud = torch.rand((1, 80, 3), generator=torch.Generator().manual_seed(0)) * 0.6 - 0.3
    features = torch.randn((1, 80, 8), generator=torch.Generator().manual_seed(1))
    shift = torch.tensor([1.10001 / 16, 0, 0])
    before = encoder.spread(features, encoder.cells(cloud))["planes"][:, 0]
    after = encoder.spread(features, encoder.cells(cloud + shift))["planes"][:, 0]
    torch.testing.assert_close(after, before.roll(1, dims=-1))


def test_loss_sums_over_points_and_averages_over_shapes():
    model = tiny_model("convonet").eval()
    torch.nn.init.zeros_(model.network.decoder.fc_out.weight)
    torch.nn.init.zeros_(model.network.decoder.fc_out.bias)
    batch = {"points": torch.zeros((3, 10, 3)), "queries": torch.zeros((3, 70, 3)), "occupancies": torch.ones((3, 70))}
    assert float(model.loss(batch)["loss"].detach()) == pytest.approx(70 * math.log(2), rel=1e-6)


@pytest.mark.parametrize("case", ["convonet", "convonet/grid", "convonet/voxels"])
def test_every_weight_learns(case):
    model = randomised(tiny_model(case)).train()
    data = ResidentData.for_model(model, [block_arrays(), block_arrays(seed=1)])
    model.loss(model.draw(data, torch.tensor([0, 1]), torch.Generator().manual_seed(0)))["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("case", ["convonet", "convonet/voxels"])
def test_batch_belongs_to_its_shapes(case):
    clean = {"observation": {"points": 40, "noise": 0.0}} if case == "convonet" else {}
    model = tiny_model(case, queries=50, **clean)
    shapes = [block_arrays(BLOCKS, 500, 0), block_arrays(BLOCKS[:2], 500, 1), block_arrays(BLOCKS[1:], 500, 2)]
    data = ResidentData.for_model(model, shapes)
    batch = model.draw(data, torch.tensor([2, 0]), torch.Generator().manual_seed(0))
    for row, shape in enumerate((shapes[2], shapes[0])):
        label = {tuple(p): bool(o) for p, o in zip(shape["volume.points"], shape["volume.occupancies"], strict=True)}
        asked = [label[tuple(p)] for p in batch["queries"][row].numpy()]
        assert asked == batch["occupancies"][row].bool().tolist()
        if case == "convonet":
            surface = {tuple(p) for p in shape["surface.points"]}
            assert all(tuple(p) in surface for p in batch["points"][row].numpy())
        else:
            np.testing.assert_array_equal(batch["voxels"][row].numpy(), shape["voxels.16"])


def test_declarations_name_what_is_observed():
    cloud, voxels = original().declaration, original(observation={"kind": "voxels", "resolution": 24}).declaration
    assert (cloud.observes, cloud.training_stages) == ("point_cloud", ("sample_surface", "sample_volume"))
    assert (voxels.observes, voxels.training_stages) == ("voxels", ("voxelize/24", "sample_volume"))
    assert voxels.observation_stages == ("voxelize/24",)


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"plane_resolution": 20}, "multiple of 2\\^\\(plane_depth - 1\\) = 8"),
        ({"maps": ("xz", "xz")}, "names a map twice"),
        ({"maps": ()}, "at least 1"),
        ({"maps": ("grid",), "grid_levels": 7}, "at least 2\\^\\(grid_levels - 1\\) = 64"),
        ({"maps": ("grid",), "grid_width": 12}, "multiples of 8"),
        ({"maps": ("grid",), "code": 12}, "multiples of 8"),
    ],
)
def test_settings_that_cannot_be_built_are_refused(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        ModelSettings(**settings)


def test_observations_of_another_kind_or_size_are_refused():
    cloud, voxels = tiny_model("convonet"), tiny_model("convonet/voxels")
    queries = torch.zeros((1, 5, 3))
    with pytest.raises(ValueError, match="observes clouds"):
        cloud.network(queries, torch.zeros((1, 16, 16, 16)))
    with pytest.raises(ValueError, match="observes voxels"):
        voxels.network(queries, torch.zeros((1, 100, 3)))
    with pytest.raises(Rejected, match="shape \\(8, 8, 8\\), but this model observes 16 cells"):
        voxels.observe({"voxels.16": np.zeros((8, 8, 8), bool)}, np.random.default_rng(0))


def test_level_is_the_threshold():
    assert original().level == 0.2


def test_the_grids_unet_keeps_its_digits():
    """Given cells first, group normalisation on the CPU is off by 1e-5 of the largest value and more."""
    encoder = original(maps=("grid",), grid_levels=1).eval().network.encoder
    encoder.load_state_dict(filled(encoder.state_dict(), 1.0))
    precise, seen = copy.deepcopy(encoder.unet3d).double(), {}
    encoder.unet3d.register_forward_hook(lambda _, given, made: seen.update(given=given[0], made=made))
    with torch.no_grad():
        encoder(numbers((2, 3000, 3), 1_000_000_000) * torch.tensor([0.5, 0.3, 0.4]))
        expected = precise(seen["given"].double())
    assert (seen["made"] - expected).abs().max() < 5e-6 * expected.abs().max()
