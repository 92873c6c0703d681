"""Checkpoints of others: read without running anything in them, and put in place tensor by tensor."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from pipeline.config import load_study
from pipeline.jobs.fetch_weights import _own_content
from pipeline.models import registry
from pipeline.models.foreign import UnreadableCheckpoint, read_checkpoint, state_dict_in, unwrapped
from pipeline.models.weights import from_published, load_published
from pipeline.training.checkpoint import CheckpointMismatch

ARRAYS = ("arrays of numpy", "arrays in Fortran's order")
SMALL = {"hidden": 8, "blocks": 1, "code": 4, "encoder_hidden": 8, "encoder_blocks": 1}


def small_onet(seed: int = 3):
    from pipeline.models.contract import build_model

    module = registry.load("onet")
    return build_model("onet", module.ModelSettings(**SMALL), module.InferenceSettings(), 0, seed)


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in small_onet().network.state_dict().items()}


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: {"model": t, "epoch_it": 3, "loss_val_best": 0.5},
        lambda t: {"model": t, "loss_val_best": np.float64(0.8), "losses": np.zeros((2, 3)), "it": np.int64(7)},
        lambda t: {"sdf_network_fine": t, "iter_step": 40_000},
        lambda t: {"epoch": 9, "model_state_dict": {f"module.{name}": x for name, x in t.items()}},
        lambda t: {"model": {name: x.numpy() for name, x in t.items()}, "loss_val_best": np.float64(0.8)},
        lambda t: {name: np.array(x.numpy(), order="F") for name, x in t.items()},
        lambda t: {
            "encoder_state_dict": {n.removeprefix("encoder."): x for n, x in t.items() if n.startswith("encoder.")},
            "decoder_state_dict": {n.removeprefix("decoder."): x for n, x in t.items() if n.startswith("decoder.")},
        },
    ],
    ids=[
        "bare",
        "in a larger one",
        "beside numbers of numpy",
        "Neural-Pull's",
        "data parallel",
        *ARRAYS,
        "in halves",
    ],
)
def test_tensors_are_found_in_what_torch_saved(wrap, tensors, tmp_path):
    torch.save(wrap(tensors), tmp_path / "model.pt")
    assert equal(read_checkpoint(tmp_path / "model.pt"), tensors)


def test_safetensors_are_read_as_they_are(tensors, tmp_path):
    save_file(tensors, tmp_path / "model.safetensors")
    assert equal(read_checkpoint(tmp_path / "model.safetensors"), tensors)


def test_newer_names_of_weight_normalisation_are_known():
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 2))
    tensors = unwrapped({f"module.lin0.{name}": tensor for name, tensor in layer.state_dict().items()})
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "lin0.bias": (2,),
        "lin0.weight_g": (2, 1),
        "lin0.weight_v": (2, 3),
    }


@pytest.mark.parametrize(
    "written",
    ["_orig_mod.{}", "module._orig_mod.{}", "_orig_mod.module.{}", "module.{}"],
    ids=["compiled", "compiled, then parallel", "parallel, then compiled", "parallel"],
)
def test_names_that_wrappers_leave_are_taken_off(written, tensors):
    assert equal(state_dict_in({"model": {written.format(name): x for name, x in tensors.items()}}), tensors)


def test_a_part_of_a_network_may_have_been_compiled(tensors):
    assert equal(unwrapped({name.replace("decoder.", "decoder._orig_mod."): x for name, x in tensors.items()}), tensors)


def test_arrays_of_numpy_of_any_layout_become_tensors():
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = {
        "plain": numbers,
        "swapped": numbers.astype(">f4"),
        "reversed": numbers[::-1, ::-1],
        "frozen": numbers.copy(),
        "count": np.int64(7),
        "half": numbers.astype(np.float16),
    }
    arrays["frozen"].setflags(write=False)
    tensors = unwrapped(arrays)
    for name in arrays:
        np.testing.assert_array_equal(tensors[name].numpy(), arrays[name])
    tensors["plain"][0] = 9
    assert numbers[0, 0] == 0


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([None]), [1.0, 2.0], "text", np.zeros(2, np.longdouble)])
def test_what_is_no_tensor_is_named(value):
    with pytest.raises(UnreadableCheckpoint, match=r"^decoder\.bias is no tensor but a "):
        unwrapped({"decoder.bias": value})


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(UnreadableCheckpoint, match=r"two of its tensors are fc\.weight"):
        unwrapped({"fc.weight": torch.zeros(2), "_orig_mod.fc.weight": torch.ones(2)})


class _Program:
    """What a malicious checkpoint holds: a call that is made on loading."""

    def __init__(self, call, *arguments) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_program_in_a_checkpoint_is_refused_and_not_run(protocol, tensors, tmp_path):
    trace = tmp_path / "trace"
    content = {"model": tensors, "bad": _Program(os.system, f"touch {trace}")}
    with open(tmp_path / "model.pt", "wb") as stream:
        (torch.save if protocol == "torch" else pickle.dump)(content, stream)
    with pytest.raises(UnreadableCheckpoint, match=r"model\.pt: it is neither safetensors nor .*any program"):
        read_checkpoint(tmp_path / "model.pt")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["model.ckpt.meta", "IM_AE.model-194.data-00000-of-00001", "graph.pb"])
def test_tensorflow_checkpoints_are_refused_with_the_reason(name, tmp_path):
    (tmp_path / name).write_bytes(b"\x0a\x03")
    with pytest.raises(UnreadableCheckpoint, match="TensorFlow"):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02}q\x00."], ids=["empty", "text", "an empty dict"])
def test_files_without_tensors_are_refused(content, tmp_path):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(UnreadableCheckpoint, match=r"model\.pt: "):
        read_checkpoint(tmp_path / "model.pt")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UnreadableCheckpoint, match="no such file"):
        read_checkpoint(tmp_path / "none.pt")


def test_published_tensors_decide_the_networks_answers(tensors):
    model = from_published("onet", registry.load("onet").ModelSettings(**SMALL), tensors)
    other = small_onet().eval()
    queries, cloud = torch.rand(2, 5, 3), torch.rand(2, 9, 3)
    with torch.no_grad():
        torch.testing.assert_close(model.network(queries, cloud), other.network(queries, cloud))
    assert not model.training


def test_a_compiled_network_and_arrays_load_as_the_plain_one(tensors):
    settings = registry.load("onet").ModelSettings(**SMALL)
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}
    for given in (compiled, {name: tensor.numpy() for name, tensor in tensors.items()}):
        assert equal(from_published("onet", settings, given).network.state_dict(), tensors)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(value, tensors):
    tensors["decoder.fc_p.weight"].view(-1)[1] = value
    tensors["encoder.fc_c.bias"][:] = value
    given = {f"module.{name}": tensor for name, tensor in tensors.items()}
    with pytest.raises(ValueError, match="NaN or infinite numbers in ") as raised:
        load_published("onet-pointcloud", given, **SMALL)
    assert f"decoder.fc_p.weight (1 of {tensors['decoder.fc_p.weight'].numel()})" in str(raised.value)
    assert "encoder.fc_c.bias (4 of 4)" in str(raised.value) and "module." not in str(raised.value)


def test_counters_of_batches_may_be_missing(tensors):
    settings = registry.load("onet").ModelSettings(**SMALL)
    without = {name: tensor for name, tensor in tensors.items() if "num_batches_tracked" not in name}
    assert len(without) < len(tensors)
    from_published("onet", settings, without)


def test_wrong_tensors_are_named(tensors):
    settings = registry.load("onet").ModelSettings(**SMALL)
    del tensors["decoder.fc_p.weight"]
    tensors["decoder.fc_q.weight"] = torch.zeros(2)
    tensors["encoder.fc_c.bias"] = torch.zeros(99)
    with pytest.raises(CheckpointMismatch) as raised:
        from_published("onet", settings, tensors)
    for part in ("missing: decoder.fc_p.weight", "unexpected: decoder.fc_q.weight", "encoder.fc_c.bias is (99,)"):
        assert part in str(raised.value)


def test_presets_without_weights_of_their_own_say_so():
    with pytest.raises(ValueError, match="there is no preset 'onet'"):
        load_published("onet", {})
    with pytest.raises(ValueError, match="poisson has no weights"):
        load_published("poisson", {})
    with pytest.raises(ValueError, match="whole study"):
        load_published("shapenet13", {})
    with pytest.raises(ValueError, match="imnet-svr builds on a trained imnet; load that one's weights"):
        load_published("imnet-svr", {})
    head = registry.load("imnet_svr")
    with pytest.raises(ValueError, match="imnet_svr builds on a trained imnet, so weights of its own are not enough"):
        from_published("imnet_svr", head.ModelSettings(), {})


def test_the_command_writes_what_an_experiment_takes(tensors, tmp_path, capsys):
    from pipeline.cli.main import main
    from pipeline.training.checkpoint import decode_weights

    torch.save({"model": tensors}, tmp_path / "model.pt")
    settings = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    output = tmp_path / "onet.safetensors"
    arguments = ["import-weights", "onet-pointcloud", str(tmp_path / "model.pt"), "--output", str(output), *settings]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "parameters of onet-pointcloud" in printed
    (block,) = yaml.safe_load(printed[printed.index("  - {") :])
    (experiment, _) = load_study({"source": {"kind": "demo"}, "experiments": [block]})[1]
    assert experiment.weights.path == str(output)
    description = {"method": "onet", "model": experiment.model.model_dump(mode="json")}
    assert _own_content(output, decode_weights(output.read_bytes())[1], description) == output.read_bytes()
    weights, description = decode_weights(output.read_bytes())
    assert description["method"] == "onet"
    assert description["model"]["hidden"] == 8
    own = {name.removeprefix("last/network."): tensor for name, tensor in weights.items()}
    assert equal(own, tensors)


def test_the_command_explains_what_does_not_fit(tensors, tmp_path):
    from pipeline.cli.main import main

    torch.save(tensors, tmp_path / "model.pt")
    with pytest.raises(SystemExit, match="does not fit the model"):
        main(["import-weights", "deepsdf-narrow", str(tmp_path / "model.pt"), "--output", str(tmp_path / "out")])
    assert not Path(tmp_path / "out").exists()
