"""IM-AE against the figures of the original (sheet imnet.md 0, 1 and 8)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.arrays import Rejected
from pipeline.models.imnet import InferenceSettings, ModelSettings, build, hard_clip, leaky_clip, unpack_bits
from pipeline.training.data import ResidentData
from tests.models.published import needs_tensors, published_tensors, tensors_of
from tests.models.shapes import BLOCKS, TURNED, ball_arrays, block_arrays, tiny_model


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    return build(ModelSettings(), InferenceSettings(), 0).eval()


@pytest.fixture(scope="module")
def blocks() -> dict[str, np.ndarray]:
    return block_arrays(count=100)


def test_default_sizes_are_the_originals(original):
    assert parameters(original) == 10_003_713
    assert parameters(original.network.encoder) == 6_949_120
    assert parameters(original.network.generator) == 3_054_593


def test_the_affine_encoder_is_the_older_codes():
    older = build(ModelSettings(affine_encoder=True, clip="hard"), InferenceSettings(), 0)
    assert parameters(older.network.encoder) == 6_950_560


@needs_tensors
def test_tensors_have_the_originals_names_and_shapes(original):
    assert tensors_of(original.network) == published_tensors("imnet-ae")


@torch.no_grad()
def test_a_fresh_encoder_gives_one_half_for_empty_voxels_and_a_spread_for_full_ones(original):
    codes = original.network.encoder(torch.stack([torch.zeros(64, 64, 64), torch.ones(64, 64, 64)]))
    assert torch.equal(codes[0], torch.full((256,), 0.5))
    assert 0.08 < float(codes[1].min()) < 0.2
    assert 0.8 < float(codes[1].max()) < 0.93


@torch.no_grad()
def test_a_fresh_decoder_is_almost_zero_and_constant(original):
    values = original.network.generator(torch.rand(1, 500, 3) - 0.5, torch.full((1, 256), 0.5))
    assert float(values.abs().max()) < 1e-3
    assert float(values.std()) < 1e-4


def test_the_clips_are_the_originals():
    h = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])
    torch.testing.assert_close(leaky_clip(h), torch.tensor([-0.01, 0.0, 0.5, 1.0, 1.01]))
    assert hard_clip(h).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


@torch.no_grad()
def test_the_network_is_convolutions_and_layers_as_written_in_the_sheet():
    """Written out from the tensors, point before code."""
    model = tiny_model("imnet").eval()
    weights = model.network.state_dict()
    voxels = torch.rand((2, 64, 64, 64), generator=torch.Generator().manual_seed(0)) < 0.3
    queries = torch.rand((2, 50, 3), generator=torch.Generator().manual_seed(1)) - 0.5
    x = voxels.float()[:, None]
    for k in range(1, 5):
        x = F.conv3d(x, weights[f"encoder.conv_{k}.weight"], stride=2, padding=1)
        mean, variance = x.mean((2, 3, 4), keepdim=True), x.var((2, 3, 4), correction=0, keepdim=True)
        x = F.leaky_relu((x - mean) / (variance + 1e-5).sqrt(), 0.02)
    code = F.conv3d(x, weights["encoder.conv_5.weight"], weights["encoder.conv_5.bias"]).sigmoid().view(2, -1)
    h = torch.cat([queries, code[:, None].expand(-1, 50, -1)], dim=-1)
    for k in range(1, 8):
        h = F.linear(h, weights[f"generator.linear_{k}.weight"], weights[f"generator.linear_{k}.bias"])
        h = F.leaky_relu(h, 0.02) if k < 7 else leaky_clip(h)
    torch.testing.assert_close(model.network(queries, voxels), h[..., 0], atol=1e-5, rtol=1e-4)


def test_the_first_loss_is_the_share_of_inside_values(original):
    batch = {"voxels": torch.ones(1, 64, 64, 64), "queries": torch.rand(1, 100, 3) - 0.5, "values": torch.zeros(1, 100)}
    batch["values"][:, :30] = 1
    assert float(original.loss(batch)["loss"].detach()) == pytest.approx(0.3, abs=1e-3)


def test_levels_follow_each_other_by_passes():
    model = tiny_model("imnet", epochs_16=2, epochs_32=3)
    levels = []
    for model.epoch in range(1, 8):
        levels.append(model.level_of_detail())
    assert levels == [16, 16, 32, 32, 32, 64, 64]


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_batch_asks_voxels_of_its_shapes_in_the_canonical_frame(epoch):
    model = tiny_model("imnet", epochs_16=1, epochs_32=1, points=300)
    shapes = [block_arrays(BLOCKS, 100), ball_arrays(0.3, (0.1, -0.05, 0.08), 100), block_arrays(TURNED, 100)]
    model.epoch = epoch
    batch = model.draw(
        ResidentData.for_model(model, shapes), torch.tensor([2, 0]), torch.Generator().manual_seed(epoch)
    )
    assert batch["queries"].shape == (2, 300, 3)
    for row, arrays in enumerate((shapes[2], shapes[0])):
        voxels = arrays["voxels.64"]
        np.testing.assert_array_equal(batch["voxels"][row].numpy(), voxels)
        cell = np.floor((batch["queries"][row].numpy() + 0.5) * 64).astype(int)
        np.testing.assert_array_equal(batch["values"][row].numpy(), voxels[tuple(cell.T)])
        assert len(np.unique(cell, axis=0)) == 300


def test_positions_are_the_originals_on_its_own_grid():
    model = tiny_model("imnet", grid=256, epochs_16=1, points=1)
    data = ResidentData.from_shapes(
        [
            {
                "voxels": np.zeros(64**3 // 8, np.uint8),
                "points.16": np.array([[0, 127, 255]], np.uint8),
                "values.16": np.array([True]),
            }
        ]
    )
    queries = model.draw(data, torch.tensor([0]), torch.Generator())["queries"]
    torch.testing.assert_close(queries[0, 0], torch.tensor([-0.498047, -0.001953, 0.498047]), atol=1e-6, rtol=0)


def test_runs_of_pairs_reach_all_of_them():
    model = tiny_model("imnet", epochs_16=1, points=3)
    places = np.arange(5, dtype=np.uint8)[:, None].repeat(3, axis=1)
    arrays = {"voxels": np.zeros(64**3 // 8, np.uint8), "points.16": places, "values.16": np.zeros(5, bool)}
    data, generator = ResidentData.from_shapes([arrays]), torch.Generator().manual_seed(0)
    batches = [model.draw(data, torch.tensor([0]), generator)["queries"] for _ in range(30)]
    assert len(torch.cat(batches).flatten(0, 1).unique(dim=0)) == 5


def test_bits_are_unpacked_as_numpy_packs_them():
    bits = np.random.default_rng(0).random((3, 160)) < 0.5
    packed = torch.from_numpy(np.packbits(bits, axis=1))
    np.testing.assert_array_equal(unpack_bits(packed).numpy(), bits)


def test_a_finer_grid_is_pooled_for_the_encoder(blocks):
    fine = blocks["voxels.64"].repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    fine[0, 0, 0] = True
    model = tiny_model("imnet", grid=128)
    assert model.declaration.observation_stages == ("voxelize/128",)
    seen = model.observe({"voxels.128": fine}, np.random.default_rng(0))["voxels"]
    assert seen[0, 0, 0]
    assert np.count_nonzero(seen != blocks["voxels.64"]) == 1


def test_pairs_depend_on_the_grid_alone(blocks):
    first, again = tiny_model("imnet", seed=1).prepare(blocks), tiny_model("imnet", seed=2).prepare(dict(blocks))
    assert all(np.array_equal(first[key], again[key]) for key in first)
    other = tiny_model("imnet").prepare(block_arrays(TURNED, 100))
    assert not np.array_equal(first["points.16"], other["points.16"])


@torch.no_grad()
def test_the_field_is_zero_outside_the_cube_and_the_decoders_inside():
    model = tiny_model("imnet").eval()
    code = {"code": torch.rand(1, 8)}
    queries = torch.tensor([[[0.5, -0.5, 0.5], [0.51, 0.0, 0.0], [0.0, 0.0, -0.7], [0.1, 0.2, 0.3]]])
    inside = model.network.generator(queries, code["code"])
    values = model.field(code, queries)
    assert values[0, 1] == values[0, 2] == 0
    assert torch.equal(values[0, [0, 3]], inside[0, [0, 3]])


def test_an_empty_grid_is_rejected_with_what_to_do():
    empty = {"voxels.64": np.zeros((64, 64, 64), bool)}
    model = tiny_model("imnet")
    with pytest.raises(Rejected, match="finer grid"):
        model.prepare(empty)
    with pytest.raises(Rejected, match="finer grid"):
        model.observe(empty, np.random.default_rng(0))


def test_voxels_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"voxels are \(B, 64, 64, 64\), these are \(1, 32, 32, 32\)"):
        tiny_model("imnet").encode({"voxels": torch.zeros(1, 32, 32, 32)}, [0])
