"""Jobs that ask a trained model: with which of its weights, on which card, and what they say where memory runs out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline import files
from pipeline.jobs import encode_shapes, evaluate_fields, generate_meshes, sample_shapes
from pipeline.jobs.memory import enough_memory, out_of_memory
from pipeline.jobs.trained import on_device
from pipeline.models.deepsdf import DeepSdf
from pipeline.models.onet import UnconditionalOnet
from pipeline.training.checkpoint import decode_weights
from pipeline.training.loop import RuntimeSettings
from tests.jobs.study import Study
from tests.models.shapes import TINY, ball_arrays

BALLS = {
    "name": "balls",
    "method": "deepsdf",
    "model": {"dims": [16, 16], "latent_in": [], "code": 4, "dropout": 0.0, "samples": 64},
    "inference": {"iterations": 2, "samples": 50},
    "runtime": {"device": "cpu"},
}
NEW = {
    "name": "new",
    "method": "onet",
    "model": TINY["onet/unconditional"],
    "sampling": {"count": 2},
    "runtime": {"device": "cpu"},
}
SIZES = {"batch_shapes": 2, "batch_points": 777, "method": "dense", "resolution": 8}
JOBS = {
    "generate_meshes": generate_meshes,
    "encode_shapes": encode_shapes,
    "evaluate_fields": evaluate_fields,
    "sample_shapes": sample_shapes,
}


def study_of(which: str = "best") -> Study:
    extraction = {**SIZES, "checkpoint": which}
    study = Study([{**block, "extraction": extraction} for block in (BALLS, NEW)])
    instances = {*study.plan.quick_instances("balls"), *study.plan.observation_instances("balls")}
    study.keep({f"all/{i}": ball_arrays(0.2 + 0.05 * i, count=100) for i in range(3)}, sorted(instances), "test")
    for name in ("balls", "new"):
        study.pretend_trained(name)
    return study


def run(study: Study, stage: str) -> Path:
    """The job's output."""
    experiment = "new" if stage == "sample_shapes" else "balls"
    members = Path(study.plan.test_members("0"))
    more = {
        "generate_meshes": {"members": members, "batched": True},
        "encode_shapes": {"members": members},
        "evaluate_fields": {"members": [members], "means": study.results / "means.csv"},
        "sample_shapes": {"first": 0, "count": 2},
    }[stage]
    arguments = study.arguments(stage, experiment, f"{stage}/0", checkpoint=study.checkpoint(experiment), **more)
    JOBS[stage].run(arguments)
    return arguments.output


@pytest.fixture
def heard(monkeypatch) -> list[tuple[int, torch.Tensor]]:
    """Shapes and a weight of the model of every call of `encode`."""
    calls, encode = [], DeepSdf.encode

    def listened(self, seen, streams):
        calls.append((len(streams), self.network.lin0.bias.detach().clone()))
        return encode(self, seen, streams)

    monkeypatch.setattr(DeepSdf, "encode", listened)
    return calls


@pytest.mark.parametrize("which", ["best", "last"])
@pytest.mark.parametrize("stage", ["generate_meshes", "encode_shapes", "evaluate_fields"])
def test_every_answer_comes_from_the_weights_that_the_extraction_names(own_process, heard, stage, which):
    import h5py

    study = study_of(which)
    output = run(study, stage)
    stored, _ = decode_weights(study.checkpoint("balls").with_name("weights.safetensors").read_bytes())
    assert [shapes for shapes, _ in heard] == [2, 1]
    assert not torch.equal(stored["best/network.lin0.bias"], stored["last/network.lin0.bias"])
    assert all(torch.equal(bias, stored[f"{which}/network.lin0.bias"]) for _, bias in heard)
    if stage == "encode_shapes":
        with h5py.File(output) as file:
            assert file.attrs["weights"] == which and len(file["shapes"]) == 3


@pytest.mark.parametrize("stage", JOBS)
def test_a_batch_that_does_not_fit_ends_the_job_and_names_what_to_lower(own_process, monkeypatch, stage):
    def too_large(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(DeepSdf, "encode", too_large)
    monkeypatch.setattr(UnconditionalOnet, "field", too_large)
    study = study_of()
    with pytest.raises(SystemExit) as end:
        run(study, stage)
    told = str(end.value)
    assert "does not fit into memory: CUDA out of memory" in told and "extraction.batch_shapes (now 2)" in told
    assert stage == "encode_shapes" or "extraction.batch_points (now 777)" in told
    assert not (study.results / stage / "0").exists()


def test_a_card_that_fails_ends_the_job_and_rejects_no_shape(own_process, monkeypatch):
    """As a driver that resets a card, or bits that flip on it: it says nothing about the shapes of the batch."""

    def fails(*arguments):
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")

    monkeypatch.setattr(DeepSdf, "encode", fails)
    study = study_of()
    with pytest.raises(SystemExit, match="the graphics card failed: CUDA error: uncorrectable ECC") as end:
        run(study, "generate_meshes")
    assert "no shape is blamed" in str(end.value)
    assert not (study.results / "generate_meshes" / "0").exists()
    assert not list(study.store.list("generate_meshes"))


@pytest.mark.parametrize("stage", ["generate_meshes", "encode_shapes"])
def test_answers_that_another_machine_works_on_are_left_alone(own_process, stage):
    """The state of a test-time optimisation has one writer."""
    study = study_of()
    claim = study.results / stage / ".owner-0.json"
    files.write_json(claim, {"host": "another-machine", "pid": 4711, "start": "1"})
    with pytest.raises(SystemExit, match=r"process 4711 of another-machine works on the .* of balls, shard 0,"):
        run(study, stage)
    assert list(claim.parent.iterdir()) == [claim]


@pytest.mark.parametrize(
    "problem",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 40 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_memory_that_runs_out_is_known_on_the_card_and_on_the_host(problem):
    assert out_of_memory(problem)
    with (
        pytest.raises(SystemExit, match="all of it does not fit into memory"),
        enough_memory("all of it", "Take less."),
    ):
        raise problem


def test_other_errors_are_left_alone():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), enough_memory("it", "Take less."):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_one_card_answers_for_a_model_that_several_trained(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    places = []

    class Moved:
        def to(self, device):
            places.append(device)

    on_device(Moved(), RuntimeSettings(device="cuda", devices=4))
    assert places == [torch.device("cuda", 0)]


def test_a_card_that_is_not_there_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"runtime\.device is 'cuda', but torch finds no graphics card"):
        on_device(torch.nn.Identity(), RuntimeSettings(device="cuda"))
