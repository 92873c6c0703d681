"""`isomill interpolate`: meshes between two shapes of a trained experiment, from exported codes or from the data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import encoding, files, ledger
from pipeline.arrays import Product
from pipeline.cli.interpolate import stored_codes
from pipeline.cli.main import main
from pipeline.cli.study import read_plan
from pipeline.config import ROOT
from pipeline.jobs.encode_shapes import codes_file
from pipeline.jobs.train_model import _encode, write_checkpoint
from pipeline.ledger import Ledger, Row
from pipeline.store import Store
from pipeline.training.checkpoint import weights_of
from pipeline.training.loop import TrainResult
from tests.models.shapes import ball_arrays

BALLS = {"all/a": 0.2, "all/b": 0.45}
MODEL = {"dims": [16, 16], "latent_in": [], "code": 1, "dropout": 0.0, "samples": 100}
CONFIG = f"""
dataset: tiny
source: {{kind: directory, path: meshes}}
experiments:
  - name: balls
    method: deepsdf
    model: {MODEL}
    inference: {{iterations: 5, samples: 100}}
    extraction: {{method: dense, resolution: 20, box: 1.1, level: 0.0}}
  - {{name: poisson, preset: poisson}}
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Two balls with their data, and a DeepSDF whose field is the distance to a ball as large as its code says."""
    monkeypatch.chdir(tmp_path)
    Path("workflow_config.yaml").write_text(CONFIG)
    plan, store = read_plan([]), Store(Path("store"))
    files.write_json(Path(plan.settings_file("generate_meshes/balls")), plan.work("generate_meshes/balls"))
    files.write_json(Path(plan.results) / "settings" / "runtime.json", plan.runtime())
    arrays = {shape: ball_arrays(radius, count=300) for shape, radius in BALLS.items()}
    for instance in plan.observation_instances("balls"):
        rows = {shape: _stored(store, instance, shape, arrays[shape]) for shape in BALLS}
        rows["all/c"] = Row("all/c", "rejected", reason="it has no faces", stage="extract_meshes")
        ledger.write(Path(plan.ledger(instance, "all", "0")), Ledger({"stage": instance}, rows))
    settings = plan.work("generate_meshes/balls")["settings"]
    content = _encode(_trained(settings), settings, 3)
    entry = store.put("train_model", "ab" * 20, content, "safetensors")
    write_checkpoint(Path(plan.results) / "training/balls/checkpoint.json", entry, content, "balls")
    return plan


def _stored(store: Store, instance: str, shape: str, arrays: dict) -> Row:
    prefix = {"sample_volume": "volume.", "compute_sdf": "sdf."}.get(instance) or f"boundary-{instance.split('/')[1]}."
    own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    content = encoding.encode(Product(own), "arrays")
    entry = store.put(instance.split("/")[0], files.digest_of(f"{instance}{shape}".encode()), content, "safetensors")
    return Row(shape, "ok", entry.key, entry.file, entry.digest, entry.size)


def _trained(settings: dict) -> TrainResult:
    from pipeline.models.contract import build_from

    model = build_from({key: settings[key] for key in ("method", "model")}, 3)
    return TrainResult(weights_of(model), weights_of(model), [], steps_done=1, best_step=1)


@pytest.fixture
def balls(monkeypatch):
    """The field of every code is the distance to a ball of that radius."""
    from pipeline.models.deepsdf import DeepSdf

    monkeypatch.setattr(DeepSdf, "field", lambda self, code, queries: queries.norm(dim=-1) - code["code"])


def radii(folder: Path) -> list[float]:
    meshes = [encoding.decode(path.read_bytes(), "off").value for path in sorted(folder.glob("*.off"))]
    return [float(np.linalg.norm(mesh.vertices, axis=1).mean()) for mesh in meshes]


def export(plan, first: float = 0.2, last: float = 0.4) -> Path:
    path = Path(plan.results) / "codes/balls/0.h5"
    codes = {"code": np.float32([[first], [0.3], [last]]), "error": np.zeros(3, np.float32)}
    files.write_atomic(path, codes_file(["all/a", "all/x", "all/b"], [codes], "best"))
    return path


def test_exported_codes_are_mixed_evenly(study, balls, tmp_path, capsys):
    export(study)
    assert main(["interpolate", "balls", "all/a", "all/b", "--steps", "3", "--output", "out"]) == 0
    assert "3 of 3 meshes written to out" in capsys.readouterr().out
    assert radii(tmp_path / "out") == pytest.approx([0.2, 0.3, 0.4], abs=0.005)


def test_a_step_without_a_surface_is_told_and_the_others_are_written(study, balls, tmp_path, capsys):
    export(study, first=-0.2)
    assert main(["interpolate", "balls", "all/a", "all/b", "--steps", "3", "--output", "out"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["01.off", "02.off"]
    told = capsys.readouterr()
    assert "step 0 has no mesh" in told.err and "2 of 3 meshes" in told.out


def test_without_exported_codes_the_shapes_are_encoded_as_generation_does(study, monkeypatch, tmp_path):
    """Ends have the codes that `generate_meshes` finds; a checkpoint younger than the export is not mixed with it."""
    from pipeline.models.deepsdf import DeepSdf

    heard = []
    encode = DeepSdf.encode
    monkeypatch.setattr(DeepSdf, "encode", lambda self, seen, s: heard.append((seen, s)) or encode(self, seen, s))
    monkeypatch.setattr(DeepSdf, "field", lambda self, code, queries: queries.norm(dim=-1) - 0.3 + 0 * code["code"])
    assert main(["interpolate", "balls", "all/a", "all/b", "--steps", "2", "--output", "out"]) == 0
    os.utime(export(study), (0, 0))
    assert main(["interpolate", "balls", "all/a", "all/b", "--steps", "2", "--output", "out"]) == 0
    (seen, streams), again = heard
    assert torch.equal(seen["points"], again[0]["points"]) and streams == again[1] and len(set(streams)) == 2
    distances = seen["points"].norm(dim=-1) - torch.tensor(list(BALLS.values()))[:, None]
    torch.testing.assert_close(distances, seen["sdf"], atol=1e-5, rtol=0)


def test_stored_codes_are_taken_only_where_both_shapes_have_one(study):
    path = export(study)
    checkpoint = Path(study.results) / "training/balls/checkpoint.json"
    found = stored_codes(path.parent, ("all/b", "all/a"), checkpoint, "best")
    np.testing.assert_array_equal(found["code"], np.float32([[0.4], [0.2]]))
    assert stored_codes(path.parent, ("all/a", "all/a"), checkpoint, "best")["code"].shape == (2, 1)
    assert stored_codes(path.parent, ("all/a", "all/y"), checkpoint, "best") is None
    assert stored_codes(path.parent, ("all/b", "all/a"), checkpoint, "last") is None  # these are of the best weights
    assert stored_codes(path.parent / "nowhere", ("all/a", "all/b"), checkpoint, "best") is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bells", "all/a", "all/b"), "'bells' is no experiment with codes; those are balls"),
        (("poisson", "all/a", "all/b"), "'poisson' is no experiment with codes"),
        (("balls", "all/a", "all/z"), "all/z is no shape of this study; the ids stand in"),
        (("balls", "chair/a", "all/b"), "chair/a is no shape of this study"),
        (("balls", "all/c", "all/b"), "all/c was rejected at extract_meshes: it has no faces"),
        (("balls", "all/a", "all/b", "--steps", "1"), "at least 2 steps"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(study, words, message):
    with pytest.raises(SystemExit, match=message):
        main(["interpolate", *words, "--output", "out"])
    assert not Path("out").exists()


def test_an_experiment_that_is_not_trained_says_what_to_run(study):
    checkpoint = Path(study.results) / "training/balls/checkpoint.json"
    checkpoint.unlink()
    with pytest.raises(SystemExit, match=f"is missing; train first: snakemake --cores 4 {checkpoint}"):
        main(["interpolate", "balls", "all/a", "all/b", "--output", "out"])


def test_a_wrong_experiment_is_told_before_anything_heavy_is_loaded(study):
    program = (
        "import sys\nfrom pipeline.cli.main import main\n"
        "try:\n    main(['interpolate', 'bells', 'all/a', 'all/b', '--output', 'out'])\n"
        "except SystemExit as end:\n    print(end)\nprint(*sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("error: 'bells' is no experiment")
    assert not {"torch", "scipy", "open3d", "pandas", "h5py"} & set(printed.split("\n")[1].split())
