"""A kill in the middle of a long test-time optimisation costs minutes, not the optimisation, and changes no number."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from safetensors.torch import load_file

from tests.workflow.runner import PROFILE, Workflow

TARGETS = {
    "meshes/deepsdf": "results/faults/meshes/deepsdf/0.jsonl",
    "meshes/pulled": "results/faults/meshes/pulled/0.jsonl",
    "codes/deepsdf": "results/faults/codes/deepsdf/0.h5",
}
ITERATIONS = {"meshes/deepsdf": 1500, "meshes/pulled": 600, "codes/deepsdf": 1500}


def with_long_encodings() -> dict:
    """DeepSDF as it was trained but for its test-time steps, and Neural-Pull, each with seconds to go."""
    (deepsdf,) = (block for block in PROFILE["demo"]["experiments"] if block["name"] == "deepsdf")
    pulled = {
        "name": "pulled",
        "method": "neuralpull",
        "model": {
            "observation": {"points": 200},
            "queries": [[1.0, 5]],
            "neighbours": 20,
            "hidden": 16,
            "layers": 3,
            "skip": 2,
        },
        "inference": {"iterations": ITERATIONS["meshes/pulled"], "batch_queries": 128, "warmup": 20},
        "extraction": {"method": "dense", "resolution": 16},
        "runtime": deepsdf["runtime"],
    }
    long = {**deepsdf, "inference": {**deepsdf["inference"], "iterations": ITERATIONS["meshes/deepsdf"]}}
    return {"demo": {**PROFILE["demo"], "experiments": [long, pulled]}}


def kept_states(study: Workflow) -> dict[str, Path]:
    """Kind and method → the file its optimisation is kept in, of those that have one."""
    found = {name: list((study.results / name / "state").glob("*.safetensors")) for name in TARGETS}
    return {name: paths[0] for name, paths in found.items() if paths}


def killed_at(study: Workflow, known: set[str]) -> tuple[str, int]:
    """Run until the state of a further optimisation is kept and kill everything: which, and the step of its state."""
    process, deadline = study.start(*TARGETS.values()), time.monotonic() + 120
    while kept_states(study).keys() <= known and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, (study.folder / "run.log").read_text()[-3000:]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    ((name, path),) = ((name, path) for name, path in kept_states(study).items() if name not in known)
    return name, int(load_file(path)["step"])


def test_a_killed_optimisation_goes_on_where_it_was_kept_and_ends_with_the_same_bits(finished, tmp_path):
    straight, broken = finished.copy(tmp_path / "straight"), finished.copy(tmp_path / "broken")
    for study in (straight, broken):
        study.configure(with_long_encodings())
    straight.run(*TARGETS.values())
    steps: dict[str, int] = {}
    while len(steps) < len(TARGETS):
        steps |= [killed_at(broken, set(steps))]
    assert all(0 < steps[name] < ITERATIONS[name] for name in TARGETS)
    broken.run(*TARGETS.values())
    for kind, _, method in (name.partition("/") for name in TARGETS):
        job = {"meshes": "generate_meshes", "codes": "encode_shapes"}[kind]
        log = (broken.folder / f"logs/faults/{job}/{method}/0.log").read_text()
        assert "continuing the optimisation kept in" in log
    assert not kept_states(broken)
    digests = broken.digests()
    assert digests == straight.digests()
    assert sum(key.startswith("meshes/pulled:") for key in digests) > 2
    codes = [(study.folder / TARGETS["codes/deepsdf"]).read_bytes() for study in (straight, broken)]
    assert codes[0] == codes[1]
