"""DeepSDF against the figures of the original and hand-computed values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.arrays import Rejected
from pipeline.models.contract import Keeper, stack_observations
from pipeline.models.deepsdf import SCALE, Decoder, DeepSdf, InferenceSettings, ModelSettings, sample_window
from pipeline.reconstruction.extract import ExtractionSettings
from pipeline.reconstruction.shapes import meshes
from pipeline.training.data import ResidentData
from pipeline.training.loop import RuntimeSettings, TrainingSettings, train
from pipeline.training.run import make_optimiser
from pipeline.training.schedule import learning_rate_factor
from tests.models.published import needs_tensors, published_tensors, tensors_of
from tests.models.shapes import TURNED, ball_arrays, block_arrays, tiny_model

NARROW = {"dims": (64,) * 8, "code": 32}
VERY_NARROW = {"dims": (32,) * 8, "code": 16}


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 1_843_195),
        ({"normalisation": "none"}, 1_839_358),
        ({"normalisation": "layer"}, 1_847_032),
        ({"code": 128}, 1_843_451),
        (NARROW, 29_691),
        (VERY_NARROW, 7_675),
        ({**VERY_NARROW, "normalisation": "none"}, 7_438),
    ],
)
def test_decoder_sizes_are_the_originals(settings, count):
    assert sum(p.numel() for p in Decoder(ModelSettings(**settings)).parameters()) == count


def test_tensors_have_the_originals_names_and_shapes():
    shapes = {name: tuple(tensor.shape) for name, tensor in Decoder(ModelSettings()).state_dict().items()}
    assert len(shapes) == 26
    assert shapes["lin0.weight_v"] == (512, 259)
    assert shapes["lin3.weight_v"] == (253, 512)
    assert shapes["lin3.weight_g"] == (253, 1)
    assert shapes["lin4.weight_v"] == (512, 512)
    assert shapes["lin8.weight"] == (1, 512)


@pytest.mark.parametrize("settings", [{}, NARROW, VERY_NARROW])
def test_fresh_decoders_are_nearly_constant_and_inside_the_clamp(settings):
    for seed in range(3):
        torch.manual_seed(seed)
        model = DeepSdf(ModelSettings(**settings), InferenceSettings(), 4).eval()
        with torch.no_grad():
            values = model.network(torch.rand((4, 200, 3)) * 2 - 1, model.codes.weight)
        assert float(values.abs().max()) < 0.07
        assert float(values.std()) < 0.02


def test_effective_weights_start_as_those_of_a_linear_layer_and_scale_with_g():
    layer = Decoder(ModelSettings()).lin1
    torch.testing.assert_close(layer.weight, layer.weight_v)
    assert float(layer.weight.detach().abs().max()) == pytest.approx(1 / math.sqrt(512), rel=1e-3)
    with torch.no_grad():
        layer.weight_g.mul_(2)
        layer.weight_v.mul_(7)
    torch.testing.assert_close(layer.weight, layer.weight_v * 2 / 7)


def reference_forward(decoder: Decoder, queries: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """One row per point, code and coordinates put together, layer by layer as the original describes itself."""
    rows = torch.cat([code[:, None].expand(-1, queries.shape[1], -1), queries], dim=-1)
    x = rows
    for k in range(decoder.layers):
        if k in decoder.settings.latent_in:
            x = torch.cat([x, rows], dim=-1)
        elif k > 0 and decoder.settings.xyz_in_all:
            x = torch.cat([x, queries], dim=-1)
        layer = getattr(decoder, f"lin{k}")
        x = x @ layer.weight.T + layer.bias
        if k < decoder.layers - 1:
            x = (getattr(decoder, f"bn{k}")(x) if decoder.settings.normalisation == "layer" else x).relu()
    x = x.tanh() if decoder.settings.use_tanh else x
    return x.tanh()[..., 0]


@pytest.mark.parametrize("variant", [{}, {"xyz_in_all": True}, {"normalisation": "layer", "use_tanh": True}])
def test_decoder_is_the_originals_network_with_code_before_coordinates(variant):
    torch.manual_seed(0)
    decoder = Decoder(ModelSettings(dims=(40,) * 5, code=8, latent_in=(2, 4), **variant)).eval()
    queries, code = torch.randn((2, 9, 3)), torch.randn((2, 8))
    with torch.no_grad():
        torch.testing.assert_close(decoder(queries, code), reference_forward(decoder, queries, code))
        assert not torch.allclose(decoder(queries.flip(-1), code), decoder(queries, code))


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    decoder = Decoder(ModelSettings(dims=(64,) * 4, code=8, latent_in=(2,)))
    queries, code = torch.randn((1, 9, 3)), torch.randn((1, 8))
    with torch.no_grad():
        assert not torch.equal(decoder.train()(queries, code), decoder(queries, code))
        assert torch.equal(decoder.eval()(queries, code), decoder(queries, code))


def test_skips_that_leave_no_room_are_refused():
    with pytest.raises(ValidationError, match="latent_in: layer 4 needs an input wider than code \\+ 3 = 35"):
        ModelSettings(dims=(32,) * 8, code=32)


def test_scale_brings_the_corner_of_the_canonical_cube_to_the_originals_radius():
    assert pytest.approx(1.121068, abs=1e-6) == SCALE
    assert math.sqrt(0.75) * SCALE == pytest.approx(0.97087, abs=1e-5)


def constant(model: DeepSdf, value: float) -> DeepSdf:
    """The model with a decoder that says `value` everywhere, in its own frame."""
    last = getattr(model.network, f"lin{model.network.layers - 1}")
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, math.atanh(value))
    return model


def test_field_is_in_canonical_units():
    model = constant(tiny_model("deepsdf"), 0.05)
    value = model.field({"code": torch.zeros((1, 8))}, torch.zeros((1, 1, 3))).detach()
    assert float(value) == pytest.approx(0.05 / SCALE, rel=1e-5)


@pytest.mark.parametrize(
    ("predicted", "canonical", "loss"),
    [(0.05, 0.0, 0.05), (0.05, 10.0, 0.05), (0.5, 10.0, 0.0), (-0.5, 0.5, 0.2), (0.05, 0.05 / SCALE, 0.0)],
)
def test_loss_compares_clamped_distances_in_the_decoders_frame(predicted, canonical, loss):
    model = constant(tiny_model("deepsdf", code_regularisation=0.0), predicted)
    batch = {
        "shapes": torch.tensor([0, 1]),
        "points": torch.zeros((2, 5, 3)),
        "sdf": torch.full((2, 5), canonical),
    }
    assert float(model.loss(batch)["loss"].detach()) == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize(("epoch", "expected"), [(1, 0.01), (50, 0.5), (100, 1.0), (300, 1.0)])
def test_regularisation_is_the_codes_mean_norm_ramped_over_epochs(epoch, expected):
    model = constant(tiny_model("deepsdf", code_regularisation=1.0), 0.05)
    torch.nn.init.zeros_(model.codes.weight)
    model.codes.weight.data[:, 0] = 5.0  # looked up, a code is brought to norm 1
    model.epoch = epoch
    batch = {
        "shapes": torch.tensor([0, 2]),
        "points": torch.zeros((2, 5, 3)),
        "sdf": torch.full((2, 5), 0.05 / SCALE),
    }
    assert float(model.loss(batch)["loss"].detach()) == pytest.approx(expected, abs=1e-5)
    assert model.codes.weight.data.norm(dim=1).tolist() == pytest.approx([1.0, 5.0, 1.0], abs=1e-5)


def test_codes_start_with_norms_near_one():
    model = DeepSdf(ModelSettings(**NARROW), InferenceSettings(), 2000)
    assert float(model.codes.weight.detach().norm(dim=1).mean()) == pytest.approx(1.0, abs=0.02)


def test_codes_learn_twice_as_fast_as_the_decoder():
    decoder, codes = tiny_model("deepsdf").parameter_groups(5e-4)
    assert (decoder["lr"], codes["lr"]) == (5e-4, 1e-3)
    assert [tuple(p.shape) for p in codes["params"]] == [(3, 8)]


@pytest.mark.parametrize(("epoch", "rate"), [(1, 5e-4), (499, 5e-4), (500, 2.5e-4), (1000, 1.25e-4), (2000, 3.125e-5)])
def test_released_schedule_halves_the_rate_every_500_epochs(epoch, rate):
    settings = TrainingSettings(learning_rate=5e-4, schedule="step", schedule_unit="epochs", decay_every=500)
    assert 5e-4 * learning_rate_factor(settings, step=7, epoch=epoch) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("own", "rates"),
    [
        ({}, {1: (5e-4, 1e-3), 499: (5e-4, 1e-3), 500: (2.5e-4, 5e-4), 2000: (3.125e-5, 6.25e-5)}),
        (
            {"code_learning_rate_scale": 4.0, "code_decay_every": 200, "code_decay_factor": 0.1},
            {199: (5e-4, 2e-3), 200: (5e-4, 2e-4), 400: (5e-4, 2e-5), 500: (2.5e-4, 2e-5), 600: (2.5e-4, 2e-6)},
        ),
    ],
)
def test_decoder_and_codes_follow_two_schedules(own, rates):
    """Initial rate, interval and factor of each, as in the original's list of schedules."""
    training = TrainingSettings(learning_rate=5e-4, schedule="step", schedule_unit="epochs", decay_every=500)
    groups = make_optimiser(tiny_model("deepsdf", **own), training).param_groups
    for epoch, expected in rates.items():
        found = [group["initial_lr"] * learning_rate_factor(training, 0, epoch, group) for group in groups]
        assert found == pytest.approx(expected), epoch


def test_the_loop_gives_each_group_its_own_rate(tmp_path, monkeypatch):
    model = tiny_model("deepsdf", 2, samples=20, code_decay_every=2, code_decay_factor=0.1)
    seen, step = [], torch.optim.Adam.step
    note = lambda self, *a, **k: (seen.append([g["lr"] for g in self.param_groups]), step(self, *a, **k))[1]  # noqa: E731
    monkeypatch.setattr(torch.optim.Adam, "step", note)
    training = TrainingSettings(steps=5, batch_shapes=2, learning_rate=1e-3, schedule="step", decay_every=4)
    data = ResidentData.for_model(model, [block_arrays(count=100), ball_arrays(0.3, count=100)])
    runtime = RuntimeSettings(device="cpu", threads=1, tensorboard=False)
    train(model, data, [], training, runtime, seed=0, state_dir=tmp_path, log_dir=None)
    decoder, codes = zip(*seen, strict=True)
    assert decoder == pytest.approx([1e-3, 1e-3, 1e-3, 1e-3, 5e-4])
    assert codes == pytest.approx([2e-3, 2e-3, 2e-4, 2e-4, 2e-5])


def disputed(arrays: dict, share: float, seed: int = 0) -> dict:
    """The arrays with a share of the distances marked as left out, and set to nonsense."""
    rng, arrays = np.random.default_rng(seed), dict(arrays)
    for name in [key for key in arrays if key.startswith("sdf.")]:
        kept = rng.random(len(arrays[name])) >= share
        arrays[name] = np.where(kept, arrays[name], np.float32(9))
        arrays[name.replace("sdf.", "sdf.kept.")] = kept
    return arrays


def test_samples_of_disputed_sign_are_neither_drawn_nor_observed(monkeypatch):
    model = tiny_model("deepsdf", samples=400)
    shapes = [disputed(block_arrays(count=300), 0.7), disputed(ball_arrays(0.3, count=300), 0.1, 1)]
    prepared = model.prepare(shapes[0])
    assert len(prepared["sdf"]) == len(prepared["points"]) > prepared["kept"] > prepared["inside"] > 0
    assert (prepared["sdf"][: prepared["inside"]] <= 0).all()
    data = ResidentData.for_model(model, shapes)
    batch = model.draw(data, torch.tensor([1, 0]), torch.Generator().manual_seed(0))
    assert float(batch["sdf"].abs().max()) < 1 and (batch["sdf"] <= 0).sum(dim=1).tolist() == [200, 200]
    seen = stack_observations([model.observe(s, np.random.default_rng(0)) for s in shapes], torch.device("cpu"))
    for place in np.linspace(0, 0.999, 30):
        _, distances = sample_window(seen, torch.full((2, 2), float(place)), 400)
        assert float(distances.max()) < 1 and (distances <= 0).sum(dim=1).tolist() == [200, 200]
    assert torch.isfinite(model.eval().encode(seen, [0, 1])["code"]).all()


def test_a_shape_whose_samples_are_all_disputed_is_rejected():
    with pytest.raises(Rejected, match="no signed distance samples"):
        tiny_model("deepsdf").prepare(disputed(block_arrays(count=100), 1.0))


def test_the_ledger_says_how_the_code_was_found():
    model = tiny_model("deepsdf", inference={"iterations": 30, "samples": 200}).eval()
    seen = stack_observations([model.observe(block_arrays(), np.random.default_rng(0))], torch.device("cpu"))
    code = model.encode(seen, [0])
    (figures,) = model.figures(code)
    with torch.no_grad():
        every = model.clamped_l1(code["code"], seen["points"], seen["sdf"]).mean()
    assert figures["fit_error"] == pytest.approx(float(every), rel=0.5)
    assert figures["code_norm"] == pytest.approx(float(code["code"].norm()), rel=0.01)
    model.field = lambda code, queries: queries.norm(dim=-1) - 0.3
    (product,) = meshes(model, code, [0], ExtractionSettings(method="dense", resolution=8))
    assert product.figures.items() >= figures.items() and product.figures["faces"] > 0


def test_prepared_samples_stand_inside_first_with_the_asked_share_of_volume():
    arrays = block_arrays(count=1000)
    samples = tiny_model("deepsdf", volume_share=0.2).prepare(arrays)
    assert samples["points"].shape == (2500, 3)
    inside = int(samples["inside"])
    assert (samples["sdf"][:inside] <= 0).all() and (samples["sdf"][inside:] > 0).all()
    volume = {tuple(p) for p in arrays["volume.points"]}
    assert sum(tuple(p) in volume for p in samples["points"]) == 500


def test_batches_are_half_inside_and_rows_keep_their_distances():
    model = tiny_model("deepsdf", samples=101)
    shapes = [ball_arrays(0.2), ball_arrays(0.4, seed=1)]
    data = ResidentData.for_model(model, shapes)
    batch = model.draw(data, torch.tensor([1, 0]), torch.Generator().manual_seed(0))
    assert (batch["sdf"] <= 0).sum(dim=1).tolist() == [50, 50]
    exact = batch["points"].norm(dim=-1) - torch.tensor([[0.4], [0.2]])
    torch.testing.assert_close(batch["sdf"], exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_shapes_with_one_sign_only_are_drawn_and_encoded_from_it(sign):
    model = tiny_model("deepsdf", samples=20)
    arrays = {"volume.points": np.zeros((30, 3), np.float32), "sdf.volume": np.full(30, sign * 0.1, np.float32)}
    batch = model.draw(ResidentData.for_model(model, [arrays]), torch.tensor([0]), torch.Generator().manual_seed(0))
    assert (batch["sdf"] == np.float32(sign * 0.1)).all() and batch["sdf"].shape == (1, 20)
    observation = stack_observations([model.observe(arrays, np.random.default_rng(0))], torch.device("cpu"))
    assert torch.isfinite(model.eval().encode(observation, [0])["code"]).all()


def test_shapes_without_samples_are_rejected():
    arrays = {"volume.points": np.zeros((0, 3), np.float32), "sdf.volume": np.zeros(0, np.float32)}
    with pytest.raises(Rejected, match="no signed distance samples"):
        tiny_model("deepsdf").prepare(arrays)


def test_observed_samples_are_the_prepared_ones_shuffled_within_their_sign():
    model, arrays = tiny_model("deepsdf"), block_arrays(count=200)
    plain, seen = model.prepare(arrays), model.observe(arrays, np.random.default_rng(0))
    inside = int(plain["inside"])
    assert int(seen["inside"]) == inside and not np.array_equal(seen["sdf"], plain["sdf"])
    for part in (slice(None, inside), slice(inside, None)):
        rows = [np.column_stack([s["points"][part], s["sdf"][part]]) for s in (plain, seen)]
        assert sorted(map(tuple, rows[0])) == sorted(map(tuple, rows[1]))


def test_windows_take_samples_in_a_row_from_both_signs_and_wrap_around():
    distances = torch.tensor([[-3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0], [-1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    observations = {
        "points": distances[..., None].expand(-1, -1, 3),
        "sdf": distances,
        "inside": torch.tensor([3, 1]),
        "kept": torch.tensor([7, 7]),
    }
    points, seen = sample_window(observations, torch.tensor([[0.7, 0.5], [0.9, 0.9]]), 6)
    assert seen.tolist() == [[-1.0, -3.0, -2.0, 3.0, 4.0, 1.0], [-1.0, -1.0, -1.0, 6.0, 1.0, 2.0]]
    assert torch.equal(points, seen[..., None].expand(-1, -1, 3))


def test_codes_depend_on_the_shapes_own_seed():
    model = tiny_model("deepsdf").eval()
    observation = stack_observations([model.observe(block_arrays(), np.random.default_rng(0))], torch.device("cpu"))
    one, again, other = (model.encode(observation, [seed])["code"] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_encoding_lowers_the_error_and_moves_the_learning_rate_once(monkeypatch):
    model = tiny_model("deepsdf", inference={"iterations": 8}).eval()
    observation = stack_observations([model.observe(block_arrays(), np.random.default_rng(0))], torch.device("cpu"))
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), step(self)))
    model.encode(observation, [0])
    assert rates == pytest.approx([5e-3] * 4 + [5e-4] * 4)


def test_field_is_negative_inside_after_learning_one_ball():
    torch.manual_seed(0)
    model = tiny_model("deepsdf", 1, code_regularisation=0.0)
    data, generator = ResidentData.for_model(model, [ball_arrays(0.35)]), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameter_groups(5e-3))
    for _ in range(150):
        optimiser.zero_grad()
        model.loss(model.draw(data, torch.tensor([0]), generator))["loss"].backward()
        optimiser.step()
    code = {"code": model.codes.weight.detach()}
    with torch.no_grad():
        inside, outside = model.eval().field(code, torch.tensor([[[0.0, 0.0, 0.0], [0.5, 0.1, 0.0]]]))[0].tolist()
    assert inside < -0.05 and outside > 0.05


def test_rates_of_the_test_time_optimisation_at_computed_points():
    settings = InferenceSettings()
    assert [settings.rate_at(step) for step in (0, 399, 400, 799)] == pytest.approx([5e-3, 5e-3, 5e-4, 5e-4])


@needs_tensors
@pytest.mark.parametrize(("preset", "settings"), [("deepsdf", {}), ("deepsdf-layernorm", {"normalisation": "layer"})])
def test_tensors_are_the_published_ones(preset, settings):
    assert tensors_of(Decoder(ModelSettings(**settings))) == published_tensors(preset)


def test_training_and_inference_look_at_the_sets_that_they_name():
    model = tiny_model("deepsdf", sigmas=(0.1,), inference={"sigmas": (0.01,)})
    arrays = block_arrays(count=200)
    kept, seen = (
        {tuple(point) for point in samples["points"]}
        for samples in (model.prepare(arrays), model.observe(arrays, np.random.default_rng(0)))
    )
    near, far = ({tuple(point) for point in arrays[f"boundary-{sigma}.points"]} for sigma in (0.01, 0.1))
    assert far <= kept and not near & kept
    assert near <= seen and not far & seen
    with pytest.raises(ValueError, match=r"no samples boundary-0\.3, only boundary-0\.01, boundary-0\.1"):
        tiny_model("deepsdf", sigmas=(0.3,)).prepare(arrays)


class StoppingKeeper(Keeper):
    """Keeps the state of a step and stops there once."""

    def __init__(self, at: int) -> None:
        self.at, self.notes, self.kept = at, 0, None

    def restore(self):
        return self.kept

    def note(self, state) -> None:
        self.notes += 1
        if self.notes == self.at:
            self.kept = {name: tensor.detach().clone() for name, tensor in state().items()}
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["deepsdf", "deepsdf_completion"])
def test_a_stopped_optimisation_goes_on_with_the_same_code(name):
    model = tiny_model(name, inference={"iterations": 12}).eval()
    shapes = [block_arrays(count=500), block_arrays(TURNED, 500, seed=1)]
    seen = stack_observations([model.observe(s, np.random.default_rng(0)) for s in shapes], torch.device("cpu"))
    undisturbed = model.encode(seen, [1, 2])["code"]
    model.keeper = StoppingKeeper(8)  # after the learning rate has fallen
    with pytest.raises(KeyboardInterrupt):
        model.encode(seen, [1, 2])
    assert torch.equal(model.encode(seen, [1, 2])["code"], undisturbed)
    assert model.keeper.notes == 8 + 3
