"""Keys that decide nothing: refused where another key of the block rules them out, else named; defaults are neither."""

from __future__ import annotations

import pytest

from pipeline.config import PRESETS, load_study, read_yaml
from pipeline.plan import Plan
from pipeline.unused import unused_keys
from tests.test_config import PRESET_FILES, default, directory, experiment, mistakes, names_of, shapenet, stage

POISSON = {"experiments": [{"name": "poisson", "preset": "poisson"}]}
IFNET = {"experiments": [{"name": "ifnet", "preset": "ifnet-points"}]}


def named(*overlays: dict) -> list[str]:
    return unused_keys(Plan(*load_study(default(*overlays))))


def of_extraction(**keys) -> dict:
    return experiment(extraction=keys)


REFUSED = {
    "resolution_0: decides nothing under method: dense, which reads resolution; write that, or method: mise or "
    "method: coarse_to_fine": of_extraction(method="dense", resolution_0=64),
    "depth: decides nothing under method: dense, which reads resolution; write that, or method: mise or "
    "method: coarse_to_fine": of_extraction(method="dense", depth=1),
    "resolution: decides nothing under method: mise, which reads resolution_0, depth, mode; write that, or "
    "method: dense": of_extraction(resolution=64),
    "mode: decides nothing under method: coarse_to_fine, which reads resolution_0, depth; write that, or "
    "method: mise": of_extraction(method="coarse_to_fine", mode="safe"),
    "refinement_steps: decides nothing under refinement: none; name a refinement": of_extraction(refinement_steps=3),
}


@pytest.mark.parametrize("expected", REFUSED)
def test_a_key_that_the_rest_of_its_block_rules_out_is_refused(expected):
    assert mistakes(REFUSED[expected]) == [f"experiments.0.extraction.{expected}"]


def test_the_method_of_extraction_may_stand_in_the_preset():
    assert read_yaml(PRESETS / "deepsdf.yaml")["experiments"][0]["extraction"]["method"] == "dense"
    (line,) = mistakes({"experiments": [{"name": "m", "preset": "deepsdf", "extraction": {"resolution_0": 64}}]})
    assert line.startswith("experiments.0.extraction.resolution_0: decides nothing under method: dense")


def test_what_a_preset_leaves_behind_is_nobodys_mistake():
    """The preset is of another method of extraction, and its author wrote the key that now decides nothing."""
    assert read_yaml(PRESETS / "convonet-3plane.yaml")["experiments"][0]["extraction"]["resolution_0"] == 32
    block = {"name": "mine", "preset": "convonet-3plane", "extraction": {"method": "dense", "resolution": 64}}
    assert named({"experiments": [block]}) == []


def test_a_split_by_hash_that_names_lists_is_refused():
    (line,) = mistakes(directory(split={"path": "splits.csv"}))
    assert line.startswith("source.split: split.path names lists, but split.kind is hash, which reads none; add kind")


NAMED = {
    "stages.render_views.views = 12 decides nothing: no method of this study asks for render_views.": (
        POISSON,
        stage("render_views", views=12),
    ),
    "stages.sample_boundary.sigmas = [0.05] decides nothing: no method of this study asks for sample_boundary.": (
        POISSON,
        stage("sample_boundary", sigmas=[0.05]),
    ),
    "stages.sample_boundary.sigmas = [0.05] decides nothing: ifnet samples by its own model.sigmas; change those in "
    "its block.": (IFNET, stage("sample_boundary", sigmas=[0.05])),
    "stages.compute_sdf.votes.views = 50 decides nothing: stages.compute_sdf.method is exact.": (
        experiment(method="deepsdf"),
        stage("compute_sdf", votes={"views": 50}),
    ),
    "stages.make_watertight.fusion.views = 50 decides nothing: fusion is not in stages.make_watertight.chain.": (
        stage("make_watertight", fusion={"views": 50}),
    ),
    "source.split.train = 0.5 decides nothing: source.split.kind is files, so the lists divide the shapes.": (
        directory(split={"kind": "files", "path": "lists", "train": 0.5}),
    ),
    "demo.shapes = 9 decides nothing: source.kind is shapenet.": (shapenet(), {"demo": {"shapes": 9}}),
    "experiment mine: its training decides nothing, since poisson is not trained by steps": (
        experiment(method="poisson", training={"steps": 9}),
    ),
    "experiment mine: its sampling decides nothing, since onet draws no shapes of its own": (
        experiment(sampling={"count": 9}),
    ),
    "experiment mine: extraction.resolution_0 decides nothing: poisson gives its meshes itself, not by a field": (
        experiment(method="poisson", extraction={"resolution_0": 64}),
    ),
    "experiment mine: training.decay_every = 9 decides nothing: training.schedule is constant": (
        experiment(training={"decay_every": 9}),
    ),
}


@pytest.mark.parametrize("expected", NAMED)
def test_a_key_that_nobody_reads_is_named(expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    assert named(*NAMED[expected]) == [expected]


def test_a_key_that_somebody_reads_is_not_named():
    assert named(experiment(method="deepsdf"), stage("sample_boundary", sigmas=[0.05])) == []
    assert named(experiment(), stage("voxelize", resolutions=[16])) == []
    assert named(stage("compute_sdf", method="votes", votes={"views": 50})) == []
    assert named(IFNET, stage("sample_boundary", count=9000)) == []
    # The quick evaluation reads grids and volume points that no training of this study asks for.
    assert named(experiment(), stage("sample_volume", count=9000)) == []


@pytest.mark.parametrize("path", [None, *PRESET_FILES], ids=["the default", *names_of(PRESET_FILES)])
def test_neither_the_default_nor_a_preset_over_it_is_complained_about(path):
    assert named(read_yaml(path) if path else {}) == []


def test_written_defaults_are_not_spoken_of():
    written = {"stages": {"render_views": {"views": 24}, "sample_boundary": {"sigmas": [0.1, 0.01]}}}
    assert named(POISSON, written) == []
