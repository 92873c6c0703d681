"""`isomill export` on a small finished study."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline import encoding, ledger
from pipeline.cli.main import main
from pipeline.cli.study import read_plan
from pipeline.config import ROOT
from pipeline.ledger import Ledger, Row
from pipeline.meshes.scale import ScaleSettings, scale_to_off
from pipeline.samples.boundary import BoundarySettings, sample_boundary
from pipeline.samples.sdf import SdfSettings, compute_sdf
from pipeline.samples.surface import SurfaceSettings, sample_surface
from pipeline.samples.volume import VolumeSettings, sample_volume
from pipeline.samples.voxels import VoxelSettings, voxelize
from pipeline.seeds import rng_for
from pipeline.sources.catalogue import Entry, write_catalogue
from pipeline.stages import stage_of
from pipeline.store import Store
from tests import solids

CONFIG = """
dataset: tiny
source: {kind: directory, path: meshes}
stages: {sample_boundary: {sigmas: [0.05]}, voxelize: {resolutions: [32, 64]}}
experiments: [{name: deepsdf, preset: deepsdf-very-narrow}]
"""
SHAPES = {"a.off": "train", "sub/b.off": "test", "refused.off": "train"}


def products(shape: str) -> dict:
    rng = rng_for(0, shape)
    source = solids.moved(solids.three_boxes(), (1.0, 2.0, 3.0), 4.0)
    scaled = scale_to_off(source, source, ScaleSettings())
    mesh = scaled.value
    volume = sample_volume(mesh, VolumeSettings(count=200), rng)
    near = sample_boundary(mesh, BoundarySettings(sigma=0.05, count=100), rng)
    sets = {"volume": volume.value["points"], "boundary-0.05": near.value["points"]}
    return {
        "scale_to_off": scaled,
        "sample_surface": sample_surface(mesh, SurfaceSettings(count=50), rng),
        "sample_boundary/0.05": near,
        "sample_volume": volume,
        "compute_sdf": compute_sdf(mesh, sets, SdfSettings()),
        "voxelize/32": voxelize(mesh, VoxelSettings(resolution=32)),
        "voxelize/64": voxelize(mesh, VoxelSettings(resolution=32)),
    }


@pytest.fixture
def study(tmp_path, monkeypatch):
    """All ledgers of two finished shapes and one that was rejected."""
    monkeypatch.chdir(tmp_path)
    Path("workflow_config.yaml").write_text(CONFIG)
    plan, store = read_plan([]), Store(Path("store"))
    made = {shape: products(shape) for shape in SHAPES if shape != "refused.off"}
    for instance in plan.instances:
        stage, rows = stage_of(instance), {}
        for shape in SHAPES:
            name = f"all/{shape}"
            if shape == "refused.off":
                rows[name] = Row(name, "rejected", reason="it has no faces", stage="extract_meshes")
            elif instance in made[shape]:
                product = made[shape][instance]
                content, key = encoding.encode(product, stage.format), f"{len(rows):02x}" * 20
                entry = store.put(stage.name, key, content, encoding.EXTENSIONS[stage.format])
                rows[name] = Row(name, "ok", key, entry.file, entry.digest, entry.size, figures=product.figures)
        ledger.write(Path(plan.ledger(instance, "all", "0")), Ledger({"stage": instance}, rows))
    entries = [Entry("all", shape, split, {}) for shape, split in SHAPES.items()]
    Path(plan.catalogue).parent.mkdir(parents=True, exist_ok=True)
    Path(plan.catalogue).write_text(write_catalogue(entries))
    return made


def test_onet_gets_every_accepted_shape_and_its_lists(study, capsys):
    assert main(["export", "onet", "--output", "out"]) == 0
    printed = capsys.readouterr().out
    assert "2 shapes written below out" in printed
    assert "1 rejected shapes are left out, for example all/refused.off" in printed
    assert "without render_views, which no experiment of this study uses" in printed
    assert Path("out/all/train.lst").read_text() == "a.off"
    assert Path("out/all/test.lst").read_text() == "sub/b.off"
    assert sorted(path.name for path in Path("out/all/sub/b.off").iterdir()) == [
        *("model.binvox", "pointcloud.npz", "points.npz")
    ]
    points = np.load("out/all/a.off/points.npz", allow_pickle=False)
    np.testing.assert_array_equal(points["points"], study["a.off"]["sample_volume"].value["points"])
    low, high = solids.moved(solids.three_boxes(), (1.0, 2.0, 3.0), 4.0).bounds
    np.testing.assert_allclose(points["loc"], (low + high) / 2)
    assert points["scale"] == pytest.approx((high - low).max())


def test_one_shape_can_be_asked_for_and_half_precision(study):
    assert main(["export", "onet", "all/a.off", "--output", "out", "--float16"]) == 0
    assert not Path("out/all/sub").exists()
    assert np.load("out/all/a.off/points.npz")["points"].dtype == np.float16


def test_deepsdf_gets_all_signed_distances(study):
    assert main(["export", "deepsdf", "--output", "out"]) == 0
    samples = np.load(io.BytesIO(Path("out/SdfSamples/tiny/all/a.off.npz").read_bytes()), allow_pickle=False)
    assert len(samples["pos"]) + len(samples["neg"]) == 300
    assert json.loads(Path("out/splits/tiny_test.json").read_text()) == {"tiny": {"all": ["sub/b.off"]}}


def test_imnet_gets_one_file_for_training_and_one_for_testing(study):
    assert main(["export", "imnet", "--output", "out"]) == 0
    for split, name in (("train", "all/a.off"), ("test", "all/sub/b.off")):
        with h5py.File(f"out/all_vox256_img_{split}.hdf5") as file:
            assert file["voxels"].shape == (1, 64, 64, 64, 1)
            assert "pixels" not in file
        assert Path(f"out/all_vox256_img_{split}.txt").read_text() == f"{name}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["onet", "all/refused.off"], "all/refused.off was rejected"),
        (["onet", "all/none.off"], "all/none.off is no shape of this study"),
        (["choy"], "choy is made of render_views, which no experiment of this study uses"),
    ],
)
def test_what_cannot_be_exported_is_told(study, arguments, words):
    with pytest.raises(SystemExit, match=words):
        main(["export", *arguments, "--output", "out"])


def test_a_light_export_loads_no_heavy_library(study):
    words = ["export", "onet", "--output", "out"]
    program = f"import sys\nfrom pipeline.cli.main import main\nmain({words})\nprint(*sys.modules)"
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    loaded = set(printed.strip().split("\n")[-1].split())
    assert "pipeline.exchange.onet" in loaded
    assert not loaded & {"torch", "scipy", "open3d", "pandas", "h5py", "snakemake"}


def test_an_unfinished_study_is_told(study):
    Path(read_plan([]).ledger("sample_volume", "all", "0")).unlink()
    with pytest.raises(SystemExit, match=r"sample_volume/all/0\.jsonl is missing; finish the data first: snakemake"):
        main(["export", "onet", "--output", "out"])
