"""Occupancy Networks against the figures of the original."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from pipeline.arrays import Rejected
from pipeline.geometry.field import point_iou
from pipeline.models import encoders
from pipeline.models.contract import stack_observations
from pipeline.models.layers import CBatchNorm1d, ResnetBlockFC
from pipeline.models.onet import (
    DECODERS,
    CBatchNorm2Decoder,
    InferenceSettings,
    LatentEncoder,
    ModelSettings,
    UnconditionalOnet,
    build,
    declare,
)
from pipeline.overlays import read_yaml
from pipeline.training.data import ResidentData
from pipeline.training.loop import RuntimeSettings, TrainingSettings, train
from tests.models.shapes import BLOCKS, TURNED, block_arrays, blocks_sdf, tiny_model

ROOT = Path(__file__).parents[2]
TENSORS = ROOT.parent / "shared" / "reference" / "tensors.csv"


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


# --- the four modes


def preset(name: str) -> ModelSettings:
    (block,) = read_yaml(ROOT / "resources" / "presets" / f"{name}.yaml")["experiments"]
    return ModelSettings(**block.get("model", {}))


@pytest.mark.parametrize(
    ("name", "total", "decoder"),
    [
        ("onet-image", 13_414_465, 2_106_625),
        ("onet-pointcloud", 10_373_889, 3_548_417),
        ("onet-voxel", 7_857_473, 2_106_625),
        ("onet-unconditional", 298_369, 182_273),
    ],
)
def test_presets_have_the_sizes_of_the_sheet(name, total, decoder):
    model = build(preset(name), InferenceSettings(), 0)
    assert (parameters(model.network), parameters(model.network.decoder)) == (total, decoder)
    assert model.level == 0.2


@pytest.mark.parametrize(
    ("decoder", "size"),
    [
        ("cbatchnorm", 2_106_625),
        ("cbatchnorm_legacy", 2_106_625),
        ("cbatchnorm2", 2_106_625),
        ("batchnorm", 730_625),
        ("cbatchnorm_noresnet", 1_119_745),
    ],
)
def test_decoders_have_the_sizes_of_the_sheet(decoder, size):
    assert parameters(DECODERS[decoder](256, 256, 5, 0)) == size


def test_the_latents_encoder_has_the_size_of_the_sheet():
    assert parameters(LatentEncoder(128, 0, 128)) == 116_096


@pytest.mark.skipif(not TENSORS.exists(), reason="the reference sheets are not beside this checkout")
def test_every_tensor_of_the_point_cloud_model_is_the_originals(original):
    with open(TENSORS, newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["preset"] == "onet-pointcloud"]
    own = {name: "x".join(map(str, t.shape)) for name, t in original.network.state_dict().items()}
    own = {name: shape for name, shape in own.items() if not name.endswith("num_batches_tracked")}
    assert own == {row["tensor"]: row["shape"] for row in rows if not row["tensor"].endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "onet-image",
            {
                "encoder.features.conv1.weight": (64, 3, 7, 7),
                "encoder.features.layer4.0.downsample.0.weight": (512, 256, 1, 1),
                "encoder.fc.weight": (256, 512),
                "decoder.block4.bn_1.conv_beta.weight": (256, 256, 1),
            },
        ),
        (
            "onet-voxel",
            {
                "encoder.conv_in.weight": (32, 1, 3, 3, 3),
                "encoder.conv_0.weight": (64, 32, 3, 3, 3),
                "encoder.conv_3.bias": (512,),
                "encoder.fc.weight": (256, 4096),
            },
        ),
        (
            "onet-unconditional",
            {
                "decoder.fc_z.weight": (128, 128),
                "decoder.fc_p.weight": (128, 3),
                "decoder.block4.fc_1.weight": (128, 128),
                "decoder.fc_out.weight": (1, 128),
                "encoder_latent.fc_0.weight": (128, 1),
                "encoder_latent.fc_pos.weight": (128, 3),
                "encoder_latent.fc_3.weight": (128, 256),
                "encoder_latent.fc_mean.weight": (128, 128),
                "encoder_latent.fc_logstd.bias": (128,),
            },
        ),
        (
            "onet-image-legacy-pretrained",
            {
                "decoder.block0.bn_0.fc_gamma.weight": (256, 256),
                "decoder.bn.fc_beta.bias": (256,),
                "decoder.block0.fc_0.weight": (256, 256, 1),
            },
        ),
    ],
)
def test_tensors_of_the_other_modes_have_the_originals_names_and_shapes(name, expected):
    shapes = {
        key: tuple(t.shape) for key, t in build(preset(name), InferenceSettings(), 0).network.state_dict().items()
    }
    assert {key: shapes.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("case", "observes", "training", "observation"),
    [
        ("onet", "point_cloud", ("sample_surface", "sample_volume"), ("sample_surface",)),
        ("onet/image", "view", ("render_views", "sample_volume"), ("render_views",)),
        ("onet/voxel", "voxels", ("voxelize/32", "sample_volume"), ("voxelize/32",)),
        ("onet/unconditional", "nothing", ("sample_volume",), ("sample_volume",)),
    ],
)
def test_the_mode_decides_the_data_stages(case, observes, training, observation):
    declaration = tiny_model(case).declaration
    assert declaration.observes == observes
    assert (declaration.training_stages, declaration.observation_stages) == (training, observation)
    assert declaration.generates == (observes == "nothing")


def test_the_resolution_of_voxels_is_in_the_declaration():
    settings = ModelSettings(observation={"kind": "voxels", "resolution": 64}, code=8, encoder_hidden=16)
    assert declare(settings).observation_stages == ("voxelize/64",)


def test_an_observation_without_a_kind_is_a_point_cloud_and_others_are_refused():
    assert ModelSettings(observation={"points": 7}).observation.kind == "point_cloud"
    with pytest.raises(ValidationError, match="tag 'smell'"):
        ModelSettings(observation={"kind": "smell"})
    with pytest.raises(ValidationError, match="points"):
        ModelSettings(observation={"kind": "voxels", "points": 300})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"observation": {"kind": "nothing"}}, "give `latent`"),
        ({"observation": {"kind": "nothing"}, "latent": 8}, "needs no code, `simple`"),
        ({"observation": {"kind": "view"}, "encoder_hidden": 20}, "multiple of 8"),
        ({"observation": {"kind": "voxels"}, "encoder_hidden": 24}, "multiple of 16"),
        ({"observation": {"kind": "view", "imagenet": "x.pth"}, "encoder_hidden": 64}, "encoder_hidden cannot be 64"),
        ({"observation": {"kind": "voxels", "resolution": 40}}, "multiple of 16"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        ModelSettings(**settings)


# --- decoders


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Every tensor away from its initial zeros and ones, in evaluation mode."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(noise + 0.5 if "running_var" in name else noise - 0.5)
    return module.eval()


def given(latent: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    shapes = ((2, 9, 3), (2, 5), (2, latent))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def legacy_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same values under the names and shapes of the oldest weights."""
    renamed = {}
    for name, tensor in tensors.items():
        linear = "conv_gamma" in name or "conv_beta" in name
        renamed[name.replace("conv_gamma", "fc_gamma").replace("conv_beta", "fc_beta")] = (
            tensor.flatten(1) if linear and tensor.ndim == 3 else tensor
        )
    return renamed


def test_the_legacy_decoder_is_the_other_under_its_names():
    queries, code, _ = given()
    modern, legacy = (DECODERS[name](8, 5, 2, 0) for name in ("cbatchnorm", "cbatchnorm_legacy"))
    legacy.load_state_dict(legacy_names(randomised(modern).state_dict()))
    torch.testing.assert_close(legacy.eval()(queries, code), modern(queries, code))


def conditional_norm(norm: CBatchNorm1d, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    scaled = (x - norm.bn.running_mean) / (norm.bn.running_var + 1e-5).sqrt()
    gamma, beta = (
        F.conv1d(code[..., None], c.weight, c.bias)[:, None, :, 0] for c in (norm.conv_gamma, norm.conv_beta)
    )
    return scaled * gamma + beta


def test_the_decoder_without_residual_branches_is_its_formula():
    queries, code, latent = given()
    decoder = randomised(DECODERS["cbatchnorm_noresnet"](8, 5, 2, 3))
    features = F.linear(queries, decoder.fc_p.weight[..., 0], decoder.fc_p.bias) + decoder.fc_z(latent)[:, None]
    for norm, layer in ((decoder.bn_0, decoder.fc_0), (decoder.bn_1, decoder.fc_1), (decoder.bn_2, decoder.fc_out)):
        features = F.linear(conditional_norm(norm, features, code).clamp(min=0), layer.weight[..., 0], layer.bias)
    torch.testing.assert_close(decoder(queries, code, latent), features[..., 0])


def test_a_latent_may_be_added_to_the_code_instead_of_the_features():
    queries, code, latent = given()
    decoder = randomised(CBatchNorm2Decoder(8, 5, 2, 3))
    without = CBatchNorm2Decoder(8, 5, 2, 0).eval()
    without.load_state_dict({name: t for name, t in decoder.state_dict().items() if not name.startswith("fc_z")})
    torch.testing.assert_close(decoder(queries, code, latent), without(queries, code + decoder.fc_z(latent)))


def test_the_simple_decoder_is_its_formula():
    queries, code, latent = given()
    decoder = randomised(DECODERS["simple"](8, 5, 1, 3))
    features = decoder.fc_p(queries) + (decoder.fc_z(latent) + decoder.fc_c(code))[:, None]
    branch = decoder.block0.fc_1(decoder.block0.fc_0(features.clamp(min=0)).clamp(min=0))
    expected = decoder.fc_out((features + branch).clamp(min=0))[..., 0]
    torch.testing.assert_close(decoder(queries, code, latent), expected)


def test_the_batch_norm_decoder_is_its_formula():
    queries, code, _ = given()
    decoder = randomised(DECODERS["batchnorm"](8, 5, 1, 0))

    def act(norm: torch.nn.BatchNorm1d, x: torch.Tensor) -> torch.Tensor:
        return norm(x.transpose(1, 2)).transpose(1, 2).clamp(min=0)

    block = decoder.block0
    features = decoder.fc_p(queries) + decoder.fc_c(code)[:, None]
    features = features + block.fc_1(act(block.bn_1, block.fc_0(act(block.bn_0, features))))
    torch.testing.assert_close(decoder(queries, code), decoder.fc_out(act(decoder.bn, features))[..., 0])


def test_the_latents_encoder_is_its_formula():
    points, code, _ = given()
    labels = (points[..., 0] > 0).float()
    encoder = randomised(LatentEncoder(8, 5, 3))
    features = encoder.fc_0(labels[..., None]) + encoder.fc_pos(points) + encoder.fc_c(code)[:, None]
    features = encoder.fc_1(features.clamp(min=0))
    for layer in (encoder.fc_2, encoder.fc_3):
        pooled = features.max(dim=1, keepdim=True).values.expand_as(features)
        features = layer(torch.cat([features, pooled], dim=2).clamp(min=0))
    pooled = features.max(dim=1).values
    mean, logstd = encoder(points, labels, code)
    torch.testing.assert_close(mean, encoder.fc_mean(pooled))
    torch.testing.assert_close(logstd, encoder.fc_logstd(pooled))


@pytest.mark.parametrize("decoder", sorted(DECODERS))
def test_every_decoder_serves_an_observation_and_a_latent(decoder):
    model = tiny_model("onet", decoder=decoder, latent=3)
    randomised(model.network.decoder)
    data = ResidentData.for_model(model, [block_arrays(count=300, seed=seed) for seed in range(2)])
    batch = model.draw(data, torch.tensor([0, 1]), torch.Generator().manual_seed(0))
    losses = model.train().loss(batch)
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(losses["loss"], losses["reconstruction"] + losses["kl"])
    observation = {"points": batch["points"]}
    code = model.eval().encode(observation, [1, 2])
    assert not code["latent"].any()
    with torch.no_grad():
        direct = model.network(batch["queries"], batch["points"])
        torch.testing.assert_close(model.field(code, batch["queries"]), direct)


# --- pictures and voxels


def colours(views: int = 5, size: int = 40) -> dict[str, np.ndarray]:
    """Arrays of a shape whose view k is all of one grey, 20 k + 10, without transparency."""
    images = np.full((views, size, size, 4), 255, np.uint8)
    images[..., :3] = (20 * np.arange(views) + 10)[:, None, None, None]
    return {**block_arrays(count=300), "views.images": images}


def test_training_shows_random_views_and_inference_the_first():
    model = tiny_model("onet/image", observation={"kind": "view", "size": 32}, queries=4)
    data, shapes = ResidentData.for_model(model, [colours()] * 2), torch.tensor([0, 1] * 20)
    shown = model.train().draw(data, shapes, torch.Generator().manual_seed(0))["image"]
    assert shown.shape == (40, 3, 32, 32)
    greys = (shown.flatten(1).mean(dim=1) * 255).round().int()
    assert set(greys.tolist()) == {10, 30, 50, 70, 90}
    still = model.eval().draw(data, shapes, torch.Generator().manual_seed(0))["image"]
    torch.testing.assert_close(still, torch.full_like(still, 10 / 255))
    seen = model.observe(colours(), np.random.default_rng(0))["image"]
    assert seen.dtype == np.uint8 and seen.shape == (3, 40, 40) and (seen == 10).all()


def test_the_view_shown_is_a_setting_and_must_exist():
    third = tiny_model("onet/image", observation={"kind": "view", "view": 3})
    assert (third.observe(colours(), np.random.default_rng(0))["image"] == 70).all()
    missing = tiny_model("onet/image", observation={"kind": "view", "view": 5})
    with pytest.raises(Rejected, match=r"there is no view 5, only 0 to 4; change observation\.view or render more"):
        missing.observe(colours(), np.random.default_rng(0))


def test_training_crops_and_inference_does_not():
    observation = {"kind": "view", "size": 32, "smallest_crop": 0.3}
    model = tiny_model("onet/image", observation=observation, queries=4)
    ramp = colours()
    ramp["views.images"][..., :3] = np.linspace(0, 255, 40).astype(np.uint8)[None, None, :, None]
    data = ResidentData.for_model(model, [ramp])

    def spans() -> torch.Tensor:
        image = model.draw(data, torch.zeros(30, dtype=torch.int64), torch.Generator().manual_seed(0))["image"]
        return image[:, 0, 0, -1] - image[:, 0, 0, 0]

    model.train()
    assert 0.45 < float(spans().min()) < 0.75 and float(spans().max()) > 0.85
    model.eval()
    assert float(spans().min()) > 0.95


def test_a_coded_picture_is_the_one_the_network_was_trained_on():
    """What `draw` gives in evaluation mode and what `encode` makes of the observation is one picture."""
    model = randomised(tiny_model("onet/image"))
    shape = block_arrays(BLOCKS)
    data = ResidentData.for_model(model, [shape])
    drawn = model.draw(data, torch.tensor([0]), torch.Generator().manual_seed(0))
    seen = stack_observations([model.observe(shape, np.random.default_rng(0))], torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(model.encode(seen, [0])["code"], model.network.encoder(drawn["image"]))


def test_voxels_are_those_of_the_shape():
    model = tiny_model("onet/voxel", queries=4)
    shapes = [block_arrays(boxes, 300) for boxes in (BLOCKS, TURNED)]
    batch = model.draw(ResidentData.for_model(model, shapes), torch.tensor([1, 0]), torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(batch["voxels"][0].numpy(), shapes[1]["voxels.32"])
    np.testing.assert_array_equal(batch["voxels"][1].numpy(), shapes[0]["voxels.32"])


def test_training_starts_from_imagenet_weights_where_they_are_named(monkeypatch):
    asked = []
    monkeypatch.setattr(encoders, "load_imagenet", lambda network, path: asked.append((network, path)))
    settings = {"code": 8, "hidden": 8}
    build(ModelSettings(observation={"kind": "view"}, **settings), InferenceSettings(), 0)
    assert asked == []
    model = build(ModelSettings(observation={"kind": "view", "imagenet": "r.pth"}, **settings), InferenceSettings(), 0)
    assert asked == [(model.network.encoder.features, "r.pth")]


@pytest.mark.parametrize(
    ("case", "observation", "message"),
    [
        ("onet", {"voxels": torch.zeros(1, 32, 32, 32)}, "observes point clouds under the name 'points'; it was given"),
        ("onet", {"points": torch.zeros(1, 0, 3)}, "at least one point"),
        ("onet", {"points": torch.zeros(1, 9, 2)}, r"\(B, M, 3\)"),
        ("onet/image", {"points": torch.zeros(1, 9, 3)}, "observes pictures under the name 'image'"),
        ("onet/image", {"image": torch.zeros(1, 3, 8, 9, dtype=torch.uint8)}, "square"),
        (
            "onet/image",
            {"image": torch.zeros(1, 1, 48, 48)},
            r"\(B, 3, S, S\), red green blue; these are \(1, 1, 48, 48\)",
        ),
        ("onet/voxel", {"voxels": torch.zeros(1, 16, 16, 16)}, r"\(B, 32, 32, 32\), these are \(1, 16, 16, 16\)"),
        ("onet/unconditional", {}, "observes labelled points under the name 'points'; it was given nothing"),
    ],
)
def test_observations_of_another_kind_or_size_are_refused(case, observation, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(case).eval().encode(observation, [0])


# --- without an observation


def test_kl_and_reconstruction_are_their_formulas():
    model = randomised(tiny_model("onet/unconditional"))
    data = ResidentData.for_model(model, [block_arrays(seed=seed) for seed in range(3)])
    batch = model.draw(data, torch.tensor([0, 1, 2]), torch.Generator().manual_seed(0))
    with torch.no_grad():
        losses = model.loss(batch)
        mean, logstd = model.network.encoder_latent(batch["queries"], batch["occupancies"], None)
        posterior = torch.distributions.Normal(mean, logstd.exp())
        kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
        code = model.encode({"points": batch["queries"], "occupancies": batch["occupancies"]}, [0, 1, 2])
        logits = model.network(batch["queries"], mean + logstd.exp() * batch["noise"])
        likelihood = torch.distributions.Bernoulli(logits=logits).log_prob(batch["occupancies"])
    torch.testing.assert_close(losses["kl"], kl.mean())
    torch.testing.assert_close(code, {"latent": mean, "kl": kl})
    torch.testing.assert_close(losses["reconstruction"], -likelihood.sum(dim=1).mean())
    torch.testing.assert_close(losses["loss"], losses["kl"] + losses["reconstruction"])


def test_new_shapes_are_standard_normal():
    model = tiny_model("onet/unconditional")
    latents = model.sample(5000, torch.Generator().manual_seed(2))["latent"]
    assert latents.shape == (5000, 8)
    torch.testing.assert_close(latents.mean(dim=0), torch.zeros(8), atol=0.06, rtol=0)
    torch.testing.assert_close(latents.std(dim=0), torch.ones(8), atol=0.05, rtol=0)


def test_only_the_unconditional_model_draws_shapes():
    with pytest.raises(NotImplementedError, match="draws no new shapes"):
        tiny_model("onet").sample(1, torch.Generator())


def test_two_shapes_are_learnt_as_a_distribution(tmp_path):
    """The posterior tells them apart, and each of them is among what is drawn.

    Both shapes in one have an IoU of 0.52. This seed ends at 0.74 or above on the instruction sets measured.
    """
    model = tiny_model("onet/unconditional", hidden=64, latent=2, queries=1024)
    assert isinstance(model, UnconditionalOnet)
    shapes = [block_arrays(BLOCKS, 20_000), block_arrays(TURNED, 20_000, seed=1)]
    train(
        model,
        ResidentData.for_model(model, shapes),
        [],
        TrainingSettings(steps=600, learning_rate=8e-3, batch_shapes=2, schedule="cosine", gradient_clip=20.0),
        RuntimeSettings(device="cpu", threads=1, tensorboard=False),
        seed=0,
        state_dir=tmp_path,
        log_dir=None,
    )
    model.eval()
    points = np.random.default_rng(9).uniform(-0.55, 0.55, (5000, 3)).astype(np.float32)
    queries, labels = torch.from_numpy(points), [blocks_sdf(points, boxes) < 0 for boxes in (BLOCKS, TURNED)]

    def values(code: dict[str, torch.Tensor]) -> np.ndarray:
        with torch.no_grad():
            return model.field(code, queries.expand(len(code["latent"]), -1, -1)).numpy()

    seen = [model.observe(shape, np.random.default_rng(i)) for i, shape in enumerate(shapes)]
    known = values(model.encode(stack_observations(seen, torch.device("cpu")), [0, 1]))
    assert point_iou(known, np.stack(labels), 0.5).min() >= 0.65
    drawn = values(model.sample(100, torch.Generator().manual_seed(1)))
    likeness = [point_iou(drawn, np.stack([label] * 100), 0.5).max() for label in labels]
    assert min(likeness) >= 0.6
