"""Occupancy Networks against the figures of the original."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline.models.layers import CBatchNorm1d, ResnetBlockFC
from pipeline.models.onet import InferenceSettings, ModelSettings, build
from pipeline.training.data import ResidentData
from tests.models.shapes import BLOCKS, block_arrays, tiny_model


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    return build(ModelSettings(), InferenceSettings(), 0)


def test_default_sizes_are_the_originals(original):
    assert parameters(original) == 10_373_889
    assert parameters(original.network.encoder) == 6_825_472
    assert parameters(original.network.decoder) == 3_548_417


def test_tensors_have_the_originals_names_and_shapes(original):
    shapes = {name: tuple(tensor.shape) for name, tensor in original.network.state_dict().items()}
    expected = {
        "decoder.fc_p.weight": (256, 3, 1),
        "decoder.block4.bn_1.conv_gamma.weight": (256, 512, 1),
        "decoder.block0.bn_0.bn.running_var": (256,),
        "decoder.block2.fc_1.bias": (256,),
        "decoder.bn.conv_beta.bias": (256,),
        "decoder.fc_out.weight": (1, 256, 1),
        "encoder.fc_pos.weight": (1024, 3),
        "encoder.block_0.fc_0.weight": (512, 1024),
        "encoder.block_4.shortcut.weight": (512, 1024),
        "encoder.fc_c.weight": (512, 512),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    counters = sum(name.endswith("num_batches_tracked") for name in shapes)
    assert len(shapes) - counters == 119


def test_fresh_logits_do_not_depend_on_the_code_and_do_after_one_step():
    model = tiny_model("onet")
    queries = torch.rand((2, 50, 3)) - 0.5
    one, other = torch.randn((2, 16)), torch.randn((2, 16))

    def difference() -> float:
        model.eval()
        return (model.network.decoder(queries, one) - model.network.decoder(queries, other)).abs().max().item()

    assert difference() == 0.0
    data = ResidentData.for_model(model, [block_arrays(), block_arrays(seed=1)])
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    model.train().loss(model.draw(data, torch.tensor([0, 1]), torch.Generator().manual_seed(0)))["loss"].backward()
    optimiser.step()
    assert difference() > 0.0


def test_fresh_residual_branches_add_nothing():
    block = ResnetBlockFC(6, 6)
    x = torch.randn((3, 6))
    torch.testing.assert_close(block(x), x + block.fc_1.bias, atol=1e-6, rtol=0)


def test_block_sees_the_pooled_part_as_if_it_were_beside_every_point():
    torch.manual_seed(0)
    block = ResnetBlockFC(8, 4)
    torch.nn.init.normal_(block.fc_1.weight)
    points, pooled = torch.randn((2, 5, 4)), torch.randn((2, 1, 4))
    beside = torch.cat([points, pooled.expand_as(points)], dim=-1)
    torch.testing.assert_close(block(points, pooled), block(beside))


def test_fresh_conditional_norm_is_plain_batch_norm():
    norm = CBatchNorm1d(4, 3)
    x = torch.randn((2, 10, 3)) * 5 + 2
    y = norm(x, torch.randn((2, 4)))
    torch.testing.assert_close(y.mean(dim=(0, 1)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(dim=(0, 1), unbiased=False), torch.ones(3), atol=1e-4, rtol=0)


def test_loss_sums_over_points_and_averages_over_shapes():
    model = tiny_model("onet").eval()
    torch.nn.init.zeros_(model.network.decoder.fc_out.weight)
    torch.nn.init.zeros_(model.network.decoder.fc_out.bias)
    batch = {"points": torch.zeros((3, 10, 3)), "queries": torch.zeros((3, 70, 3)), "occupancies": torch.ones((3, 70))}
    assert float(model.loss(batch)["loss"].detach()) == pytest.approx(70 * math.log(2), rel=1e-6)


def test_first_loss_of_the_original_is_of_the_order_of_all_points(original):
    torch.manual_seed(1)
    queries = torch.rand((1, 2048, 3)) - 0.5
    inside = (queries.norm(dim=-1) < 0.2).float()
    batch = {"points": torch.rand((1, 300, 3)) - 0.5, "queries": queries, "occupancies": inside}
    with torch.no_grad():
        assert 1.0e3 < float(original.train().loss(batch)["loss"]) < 2.2e3


def test_batch_labels_belong_to_its_queries_and_clouds_to_its_shapes():
    model = tiny_model("onet", observation={"points": 40, "noise": 0.0}, queries=50)
    shapes = [block_arrays(BLOCKS, 500, seed) for seed in range(3)]
    data = ResidentData.for_model(model, shapes)
    batch = model.draw(data, torch.tensor([2, 0]), torch.Generator().manual_seed(0))
    for row, shape in enumerate((shapes[2], shapes[0])):
        label = {tuple(p): bool(o) for p, o in zip(shape["volume.points"], shape["volume.occupancies"], strict=True)}
        asked = [label[tuple(p)] for p in batch["queries"][row].numpy()]
        assert asked == batch["occupancies"][row].bool().tolist()
        surface = {tuple(p) for p in shape["surface.points"]}
        assert all(tuple(p) in surface for p in batch["points"][row].numpy())


def test_training_clouds_carry_the_observations_noise():
    model = tiny_model("onet", observation={"points": 3000, "noise": 0.02})
    flat = {
        "surface.points": np.zeros((10, 3), np.float32),
        "volume.points": np.zeros((10, 3), np.float32),
        "volume.occupancies": np.zeros(10, bool),
    }
    batch = model.draw(ResidentData.from_shapes([flat]), torch.tensor([0]), torch.Generator().manual_seed(0))
    assert float(batch["points"].std()) == pytest.approx(0.02, rel=0.05)


def test_level_is_the_threshold():
    assert build(ModelSettings(), InferenceSettings(), 0).level == 0.2
