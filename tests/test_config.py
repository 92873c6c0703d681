"""The configuration: every mistake is told with its key, what was received and what is allowed; overlays merge."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import (
    MEAN_SHAPE,
    PRESETS,
    ROOT,
    ConfigError,
    Study,
    expand_preset,
    json_schema,
    load_study,
    merge,
    read_yaml,
)
from pipeline.models.registry import available_models
from pipeline.plan import Plan

DEFAULT = ROOT / "workflow_config.yaml"
SCHEMA = ROOT / "resources" / "schema" / "workflow_config.schema.json"
OWN_MESHES = {"source": {"kind": "directory", "path": "my meshes"}}
PRESET_FILES = sorted(PRESETS.glob("*.yaml"), key=lambda path: path.stem)
STUDIES = [path for path in PRESET_FILES if "source" in read_yaml(path)]
DATA_ONLY = [path for path in PRESET_FILES if "experiments" not in read_yaml(path)]
PRESETS_OF_METHODS = [path for path in PRESET_FILES if path not in (*STUDIES, *DATA_ONLY)]


def names_of(paths: list[Path]) -> list[str]:
    return sorted(path.stem for path in paths)


def default(*overlays: dict) -> dict:
    """workflow_config.yaml with files laid over it."""
    config = read_yaml(DEFAULT)
    for overlay in overlays:
        config = merge(config, overlay)
    return config


def mistakes(overlay: dict) -> list[str]:
    """The lines of the message for an overlay on the default, without the heading."""
    with pytest.raises(ConfigError) as raised:
        load_study(default(overlay))
    return [line.strip() for line in str(raised.value).split("\n") if not line.endswith("needs a change:")]


def experiment(**keys) -> dict:
    return {"experiments": [{"name": "mine", "method": "onet", **keys}]}


def stage(name: str, **keys) -> dict:
    return {"stages": {name: keys}}


def directory(**keys) -> dict:
    return {"source": {"kind": "directory", "path": "meshes", **keys}}


def shapenet(**keys) -> dict:
    return {"source": {"kind": "shapenet", "path": "ShapeNetCore.v2", "categories": ["chair"], **keys}}


# --- mistakes

UNKNOWN = {
    "sed: unknown key; did you mean 'seed'?": {"sed": 1},
    "stages.sample_surfce: unknown key; did you mean 'sample_surface'?": stage("sample_surfce", count=1),
    "stages.sample_surface.cuont: unknown key; did you mean 'count'?": stage("sample_surface", cuont=1),
    "stages.sample_volume.storage.pionts: unknown key; did you mean 'points'?": stage(
        "sample_volume", storage={"pionts": "float32"}
    ),
    "stages.make_watertight.acceptance.sampels: unknown key; did you mean 'samples'?": stage(
        "make_watertight", acceptance={"sampels": 1}
    ),
    "stages.sample_boundary.sigma: unknown key; did you mean 'sigmas'?": stage("sample_boundary", sigma=0.1),
    "source.pth: unknown key; did you mean 'path'?": directory(pth="x"),
    "source.split.trian: unknown key; did you mean 'train'?": directory(split={"trian": 1}),
    "source.verson: unknown key; did you mean 'version'?": shapenet(verson="v1"),
    "source.path: unknown key; known: kind, split": {"source": {"path": "x"}},
    "demo.shapse: unknown key; did you mean 'shapes'?": {"demo": {"shapse": 3}},
    "limits.max_reject: unknown key; did you mean 'max_rejected'?": {"limits": {"max_reject": 0.5}},
    "report.galery: unknown key; did you mean 'gallery'?": {"report": {"galery": 1}},
    "experiments.0.modle: unknown key; did you mean 'model'?": experiment(modle={}),
    "experiments.0.model.hiden: unknown key; did you mean 'hidden'?": experiment(model={"hiden": 8}),
    "experiments.0.model.observation.nosie: unknown key; did you mean 'noise'?": experiment(
        model={"observation": {"nosie": 0}}
    ),
    "experiments.0.training.stpes: unknown key; did you mean 'steps'?": experiment(training={"stpes": 8}),
    "experiments.0.extraction.levle: unknown key; did you mean 'level'?": experiment(extraction={"levle": 0}),
    "experiments.0.runtime.devise: unknown key; did you mean 'device'?": experiment(runtime={"devise": "cpu"}),
    "experiments.0.inference.iterations: unknown key; known: ": experiment(inference={"iterations": 8}),
}


@pytest.mark.parametrize("expected", UNKNOWN)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(expected):
    assert mistakes(UNKNOWN[expected]) == [expected.strip()]


def test_an_unknown_key_in_a_list_is_found_too():
    archive = {"category": "chair", "url": "chair.zip", "sha25": "00"}
    overlay = {"source": {"kind": "shapenet", "archives": [archive], "categories": ["chair"]}}
    assert mistakes(overlay) == ["source.archives.0.sha25: unknown key; did you mean 'sha256'?"]


WRONG = {
    "seed: input should be greater than or equal to 0, received -1": {"seed": -1},
    "seed: input should be a valid integer, unable to parse string as an integer, received 'x'": {"seed": "x"},
    "stages.make_watertight.resolution: input should be less than or equal to 1024, received 2000": stage(
        "make_watertight", resolution=2000
    ),
    "stages.make_watertight.chain.1: input should be 'keep', 'union', 'shell', 'thick_shell', 'alpha_wrap' "
    "or 'fusion', received 'kep'": (stage("make_watertight", chain=["shell", "kep"])),
    "stages.make_watertight.chain: input should be a list of at least 1, received []": stage(
        "make_watertight", chain=[]
    ),
    "stages.scale_to_off.box: input should be 'watertight' or 'raw', received 'unit'": stage(
        "scale_to_off", box="unit"
    ),
    "stages.sample_boundary.sigmas: input should be a list, received 0.1": stage("sample_boundary", sigmas=0.1),
    "stages.sample_boundary.sigmas.0: input should be greater than 0, received 0": stage("sample_boundary", sigmas=[0]),
    "stages.sample_boundary.sigmas: 0.1 stands twice, received [0.1, 0.02, 0.1]": stage(
        "sample_boundary", sigmas=[0.1, 0.02, 0.1]
    ),
    "stages.sample_boundary.sigmas.0: a sigma is named by its first six digits; write no more of them, "
    "received 0.10000001": stage("sample_boundary", sigmas=[0.10000001]),
    "stages.voxelize.resolutions: 64 stands twice, received [64, 64]": stage("voxelize", resolutions=[64, 64]),
    "stages.compute_sdf.of: 'volme' is not one of volume, boundary-0.1, boundary-0.01; did you mean 'volume'?": stage(
        "compute_sdf", of=["volme"]
    ),
    "stages.compute_sdf.of: 'boundary-0.5' is not one of volume, boundary-0.1, boundary-0.01; did you mean "
    "'boundary-0.1'?": stage("compute_sdf", of=["volume", "boundary-0.5"]),
    "limits.memory_mb: the libraries themselves need 500 MB, so no shape could be made with less, received 150": {
        "limits": {"memory_mb": 150}
    },
    "limits.max_rejected: input should be less than or equal to 1, received 20": {"limits": {"max_rejected": 20}},
    "limits.seconds: input should be a finite number, received nan": {"limits": {"seconds": float("nan")}},
    "shards.categories: input should be a list, received {'chair': 3}": {"shards": {"categories": {"chair": 3}}},
    "shards.categories: '03001627' stands twice": {
        "shards": {"categories": [{"category": c, "shards": 3} for c in ("chair", "03001627")]}
    },
    "store.shared: input should be a list, received '/somewhere'": {"store": {"shared": "/somewhere"}},
    "stages: input should be keys and values, received None": {"stages": None},
    "source: kind should be one of 'demo', 'shapenet', 'directory', 'prepared', received {'kind': 'folder'}": {
        "source": {"kind": "folder"}
    },
    "source.split.kind: input should be 'hash' or 'files', received 'hsh'": directory(split={"kind": "hsh"}),
    "source.split: train, val and test must add up to 1, received 0.5 + 0.1 + 0.2, received {'train': 0.5}": directory(
        split={"train": 0.5}
    ),
    "source.version: input should be 'v1' or 'v2', received 'v3'": shapenet(version="v3"),
    "source.categories.0: 'chiar' is no ShapeNet category; did you mean chair or car or guitar?, received 'chiar'": (
        shapenet(categories=["chiar"])
    ),
    "demo.categories.1: input should be 'chair', 'table' or 'airplane', received 'sofa'": {
        "demo": {"categories": ["chair", "sofa"]}
    },
    "evaluation.profiles.0: input should be 'onet', 'convonet', 'ifnet', 'air-ifnet', 'air-onet', 'air-human', "
    "'deepsdf', 'imnet', 'neuralpull' or 'nmf', received 'onett'": {"evaluation": {"profiles": ["onett"]}},
    "dataset: string should match pattern '^[A-Za-z0-9][A-Za-z0-9._+-]*$', received '../up'": {"dataset": "../up"},
    "dataset: input should be text, in quotes where it looks like something else, received 2024": {"dataset": 2024},
    "5: keys should be strings, received 5": {5: 3},
    "experiments: input should be a list, received {'name': 'mine'}": {"experiments": {"name": "mine"}},
    "experiments.0: input should be keys and values, received 'poisson'": {"experiments": ["poisson"]},
    "experiments.0.training.optimiser: input should be 'adam' or 'adamw', received 'sgd'": experiment(
        training={"optimiser": "sgd"}
    ),
    "experiments.0.model: input should be keys and values, received None": experiment(model=None),
    "experiments.0.model.hidden: input should be greater than 0, received -3": experiment(model={"hidden": -3}),
    "experiments.0.model: latent_in: layer 9 needs an input wider than code + 3 = 259, received {'latent_in': [9]}": (
        experiment(method="deepsdf", model={"latent_in": [9]})
    ),
    f"experiments.0.method: 'onett' is not one of {', '.join(available_models())}; did you mean 'onet'?": experiment(
        method="onett"
    ),
    f"experiments.0: name a preset, or a method: {', '.join(available_models())}": {"experiments": [{"name": "mine"}]},
    "experiments.0.name: 'a b' is no name; use letters, digits and . _ + -": experiment(name="a b"),
    "experiments.0.name: 'a\\n' is no name; use letters, digits and . _ + -": experiment(name="a\n"),
    "experiments.0.name: '../a' is no name; use letters, digits and . _ + -": experiment(name="../a"),
    "experiments.0.name: None is no name; use letters, digits and . _ + -": {"experiments": [{"method": "onet"}]},
    f"experiments.0.preset: 'poison' is not one of {', '.join(names_of(PRESET_FILES))}; did you mean 'poisson'?": (
        experiment(preset="poison")
    ),
    "experiments.0.preset: 'shapenet13' is a whole study; use it with --configfile": experiment(preset="shapenet13"),
    "experiments: the name 'mine' is used twice; every experiment needs its own": {
        "experiments": [{"name": "mine", "method": "poisson"}, {"name": "mine", "method": "onet"}]
    },
    "experiments: 'mean-shape' is in every table already; give the block another name": experiment(name=MEAN_SHAPE),
    "demo.experiments.0.model.hiden: unknown key; did you mean 'hidden'?": {
        "demo": {"experiments": experiment(model={"hiden": 8})["experiments"]}
    },
}


WRONG |= {
    f"experiments.0.weights: {method} builds on a trained {parent}, so weights of its own are not enough; give "
    f"`weights` to the {parent} experiment and train this one": experiment(
        method=method, parent="other", weights={"path": "model.pt"}
    )
    for method, parent in (
        ("imnet_gan", "imnet"),
        ("imnet_svr", "imnet"),
        ("nmf_svr", "nmf"),
        ("neuralpull_image", "onet"),
        ("deepsdf_completion", "deepsdf"),
    )
}


@pytest.mark.parametrize("expected", WRONG)
def test_a_wrong_value_is_told_with_its_key_what_was_received_and_what_is_allowed(expected):
    assert mistakes(WRONG[expected]) == [expected]


# --- what an experiment asks of the data stages

PARENTS = {
    "imnet": {"name": "imnet", "method": "imnet"},
    "nmf": {"name": "nmf", "method": "nmf", "model": {"observation": {"points": 300}}},
    "onet": {"name": "onet", "method": "onet", "model": {"observation": {"kind": "view"}}},
    "deepsdf": {"name": "deepsdf", "method": "deepsdf"},
}


def child(parent: str, **keys) -> dict:
    """A study of an experiment and the one it builds on."""
    return {"experiments": [{"name": "mine", "parent": parent, **keys}, PARENTS[parent]]}


def too_few(points: int, count: int, key: str = "model.observation.points") -> str:
    return (
        f"{key} is {points}, but stages.sample_surface.count is {count}, so points would be seen twice; observe fewer "
        "or sample more"
    )


def no_view(key: str, view: int = 30, views: int = 24) -> str:
    return (
        f"{key} is {view}, but stages.render_views.views is {views}, which are numbered 0 to {views - 1}; choose one "
        "of these or render more"
    )


SPARSE = stage("sample_surface", count=1000)
SEES_POINTS = ("onet", "convonet", "ifnet", "airnet", "neuralpull", "nmf", "poisson", "ball_pivoting", "alpha_shape")
CONTRADICTIONS = {
    **{
        f"more points observed than sampled ({method})": (
            merge(experiment(method=method, model={"observation": {"points": 1001}}), SPARSE),
            too_few(1001, 1000),
        )
        for method in SEES_POINTS
    },
    "more points trained on than sampled": (
        merge(child("onet", method="neuralpull_image"), SPARSE),
        too_few(20_000, 1000, "model.points"),
    ),
    "a view of ONet that is not rendered": (
        experiment(model={"observation": {"kind": "view", "view": 30}}),
        no_view("model.observation.view"),
    ),
    "a view that fewer views leave out": (
        merge(experiment(model={"observation": {"kind": "view", "view": 6}}), stage("render_views", views=6)),
        no_view("model.observation.view", 6, 6),
    ),
    "a view of IM-SVR": (child("imnet", method="imnet_svr", model={"view": 30}), no_view("model.view")),
    "a view of NMF": (child("nmf", method="nmf_svr", model={"view": 30}), no_view("model.view")),
    "a view of Neural-Pull": (
        child("onet", method="neuralpull_image", inference={"view": 30}),
        no_view("inference.view"),
    ),
    "a depth view": (
        merge(child("deepsdf", method="deepsdf_completion", model={"view": 30}), stage("render_views", depth=True)),
        no_view("model.view"),
    ),
    "no depths": (
        child("deepsdf", method="deepsdf_completion"),
        "completion observes depths; set stages.render_views.depth: true",
    ),
    "a sigma to train on": (
        experiment(method="deepsdf", model={"sigmas": [0.3]}),
        "model.sigmas names 0.3, which is not among stages.sample_boundary.sigmas: 0.1, 0.01",
    ),
    "a sigma to observe": (
        experiment(method="deepsdf", inference={"sigmas": [0.1, 0.3]}),
        "inference.sigmas names 0.3, which is not among stages.sample_boundary.sigmas: 0.1, 0.01",
    ),
    "a sigma without distances": (
        merge(
            experiment(method="deepsdf", model={"sigmas": [0.1]}),
            stage("compute_sdf", of=["volume", "boundary-0.01"]),
        ),
        "model.sigmas names 0.1, but stages.compute_sdf.of leaves out boundary-0.1; add it",
    ),
    "no distances in the volume": (
        merge(experiment(method="deepsdf"), stage("compute_sdf", of=["boundary-0.1", "boundary-0.01"])),
        "it takes samples of the volume too, which stages.compute_sdf.of leaves out; add volume",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_what_the_data_stages_do_not_give_is_told_before_anything_runs(name):
    overlay, expected = CONTRADICTIONS[name]
    assert mistakes(overlay) == [f"experiment mine: {expected}"]


def test_what_several_experiments_lack_is_told_at_once():
    lines = mistakes(
        merge(
            stage("sample_surface", count=200),
            {"experiments": [{"name": "a", "preset": "poisson"}, {"name": "b", "method": "onet"}]},
        )
    )
    assert lines == [f"experiment {name}: {too_few(300, 200)}" for name in "ab"]


def test_what_is_observed_just_once_is_enough():
    wanted = [
        {"name": "cloud", "method": "onet", "model": {"observation": {"points": 1000}}},
        {"name": "view", "method": "onet", "model": {"observation": {"kind": "view", "view": 5}}},
        {"name": "voxels", "method": "onet", "model": {"observation": {"kind": "voxels"}}},
        {"name": "deepsdf", "method": "deepsdf", "model": {"sigmas": [0.01]}},
        {
            "name": "all-views",
            "method": "neuralpull_image",
            "parent": "view",
            "model": {"points": 1000},
            "inference": {"view": "best"},
        },
        {"name": "last-view", "method": "imnet_svr", "parent": "imnet"},
        PARENTS["imnet"],
    ]
    overlays = (SPARSE, stage("render_views", views=6), stage("compute_sdf", of=["volume", "boundary-0.01"]))
    load_study(default({"experiments": wanted}, *overlays))


def test_files_of_a_prepared_set_are_not_asked_for_what_stages_would_make():
    prepared = {"source": {"kind": "prepared", "path": "set", "categories": ["chair"]}}
    load_study(default(prepared, experiment(), stage("sample_surface", count=9)))


# --- categories


def reads(*rows: tuple[str, str]) -> dict:
    listed = [{"category": category, "interior": interior} for category, interior in rows]
    return stage("make_watertight", interior_of=listed)


def test_readings_of_categories_name_each_once_and_as_the_source_does():
    path = "stages.make_watertight.interior_of"
    (line,) = mistakes(reads(("chiar", "solid")))
    assert line.startswith(f"{path}: 'chiar' is no ShapeNet category; did you mean chair")
    assert mistakes(reads(("chair", "solid"), ("03001627", "hollow"))) == [f"{path}: '03001627' stands twice"]
    assert mistakes(reads(("chair", "full"))) == [
        f"{path}.0.interior: input should be 'hollow' or 'solid', received 'full'"
    ]
    unknown = merge(reads(("chair", "solid")), directory(categories=["cups", "pans"]))
    assert mistakes(unknown) == [f"{path}: 'chair' is no category of the source; those are cups, pans"]
    load_study(default(reads(("pans", "solid")), directory(categories=["cups", "pans"])))


# --- all of them


def test_all_mistakes_are_told_at_once():
    lines = mistakes({"sed": 1, "seed": -1, **stage("voxelize", resolutions=["x", 0]), **directory(pth=1)})
    assert [line.split(":")[0] for line in lines] == [
        "seed",
        "source.pth",
        "stages.voxelize.resolutions.0",
        "stages.voxelize.resolutions.1",
        "sed",
    ]


def test_a_huge_wrong_value_is_shortened():
    lines = mistakes({"seed": [["x" * 10_000] * 1000] * 1000})
    assert len(lines) == 1 and len(lines[0]) < 5000


@pytest.mark.parametrize("number", [4256520, 0o4256520])
def test_a_synset_without_quotes_is_explained(number):
    """YAML 1.1 reads 04256520 as octal."""
    hint = f'YAML read a synset without quotes as the number {number}; write "04256520" with quotes, received {number}'
    assert mistakes(shapenet(categories=[number])) == [f"source.categories.0: {hint}"]
    shards = {"shards": {"categories": [{"category": number, "shards": 2}]}}
    assert mistakes(shards) == [f"shards.categories.0.category: {hint}"]


def test_shards_of_a_category_that_does_not_exist_are_refused():
    (line,) = mistakes({"shards": {"categories": [{"category": "chiar", "shards": 2}]}})
    assert line.startswith("shards.categories: 'chiar' is no ShapeNet category; did you mean chair")


def test_a_number_that_yaml_reads_as_text_is_a_number(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("experiments:\n  - {name: mine, method: onet, training: {learning_rate: 1e-4}}\n")
    overlay = read_yaml(path)
    assert overlay["experiments"][0]["training"]["learning_rate"] == "1e-4"
    assert load_study(default(overlay))[1][0].training.learning_rate == 1e-4


# --- YAML files


def refused(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "study.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as raised:
        read_yaml(path)
    assert str(raised.value).startswith(str(path))
    return str(raised.value).removeprefix(str(path))


def test_the_same_key_twice_is_an_error_with_its_line(tmp_path):
    assert refused(tmp_path, "seed: 1\nstore:\n  path: a\n  path: b\n") == (
        ", line 4: the key 'path' stands twice in one mapping"
    )
    assert refused(tmp_path, "seed: 1\ndataset: x\n'seed': 2\n").startswith(", line 3: the key 'seed' stands twice")
    assert refused(tmp_path, "list:\n - {a: 1, b: 2}\n - {a: 1, b: 2, a: 3}\n").startswith(", line 3: the key 'a'")


def test_the_same_key_in_different_mappings_is_fine(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("a: {x: 1}\nb: {x: 1, a: 2}\n")
    assert read_yaml(path) == {"a": {"x": 1}, "b": {"x": 1, "a": 2}}


def test_merge_keys_may_be_overridden(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("base: &base {x: 1, y: 2}\nlist: [&inner {<<: *base, x: 3}]\nmore: {<<: *inner, y: 4}\n")
    assert read_yaml(path)["list"] == [{"x": 3, "y": 2}]
    assert read_yaml(path)["more"] == {"x": 3, "y": 4}


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    expected = ": expected keys and values, as in `dataset: mine`, found"
    assert refused(tmp_path, "- a\n- b\n") == f", line 1, column 1{expected} a list"
    assert (
        refused(tmp_path, "# a\n\n  just text\n  on two lines\n") == f", line 3, column 3{expected} text without them"
    )
    assert refused(tmp_path, b"\xff\xfe\x00") == ": not text in UTF-8 (byte 0); is this a configuration?"
    assert refused(tmp_path, "[" * 100_000) == ": nested too deeply"


TAB = "a tab; YAML is indented by spaces"
PLACES = {
    "source:\n\tkind: demo\n": f", line 2, column 1: {TAB}",
    "source:\n  kind: demo\n \tpath: x\n": f", line 3, column 2: {TAB}",
    "dataset: a\nseed:\t1\n": f", line 2, column 6: {TAB}",
    "a: b: c\n": ", line 1, column 5: a colon where none is expected; indent the line as its neighbours, or quote the "
    "text",
    "seed: 0\nnow comes prose\nseed: 1\n": ", line 2, column 1: expected `key: value`, found text without a colon",
    "dataset: [mine\n": ", line 2, column 1: expected ',' or ']', but got '<stream end>'",
    "dataset: 'mine\n": ", line 2, column 1: found unexpected end of stream",
}


@pytest.mark.parametrize("text", PLACES)
def test_a_mistake_in_a_file_is_told_with_its_line_and_column(tmp_path, text):
    assert refused(tmp_path, text) == PLACES[text]


def test_a_file_that_is_not_there_is_told_with_the_one_that_may_be_meant(tmp_path):
    (tmp_path / "my_study.yaml").write_text("seed: 1\n")
    for name, expected in (
        ("mystudy.yaml", f"in {tmp_path}; did you mean --configfile {tmp_path / 'my_study.yaml'}?"),
        ("other.yaml", f"in {tmp_path}; type --configfile and the path of yours"),
        ("gone/a.yaml", f"{tmp_path / 'gone' / 'a.yaml'}: its folder {tmp_path / 'gone'} does not exist"),
    ):
        with pytest.raises(ConfigError) as raised:
            read_yaml(tmp_path / name)
        assert str(raised.value).startswith(f"there is no file {tmp_path / name}") and expected in str(raised.value)
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        read_yaml(tmp_path)


def test_an_empty_file_is_no_overlay(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_a_file_too_large_for_a_configuration_is_refused_unread(tmp_path):
    assert refused(tmp_path, "a: " + "x" * 2**20) == ": larger than 1 MB; is this a configuration?"


def test_objects_are_not_made(tmp_path):
    assert "could not determine a constructor" in refused(tmp_path, "a: !!python/object/apply:os.system [ls]\n")


def test_aliases_cannot_grow_without_end(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    expected = ", its aliases stand for more than 100,000 values, or for themselves"
    assert refused(tmp_path, "\n".join(lines)) == expected
    assert refused(tmp_path, "a: &a [*a]") == expected
    assert refused(tmp_path, "a: &a {b: *a}") == expected


def test_a_few_aliases_are_fine(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("a: &a [1, 2]\nb: [*a, *a]\n")
    assert read_yaml(path) == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


# --- merging

scalars = st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
configs = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(scalars, lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8),
    max_size=3,
)


@settings(max_examples=300, deadline=None)
@given(configs, configs)
def test_files_merge_as_snakemake_merges_them(base, over):
    from snakemake.utils import update_config

    expected = copy.deepcopy(base)
    update_config(expected, copy.deepcopy(over))
    before = copy.deepcopy((base, over))
    assert merge(base, over) == expected
    assert (base, over) == before


def test_lists_are_replaced_whole_and_mappings_key_by_key():
    study, _ = load_study(default(stage("sample_boundary", sigmas=[0.05])))
    assert study.stages.sample_boundary.sigmas == (0.05,)
    assert study.stages.sample_boundary.count == Study().stages.sample_boundary.count


def test_a_blocks_own_keys_lie_over_its_presets():
    block = expand_preset({"name": "mine", "preset": "deepsdf", "training": {"steps": 7}})
    preset = read_yaml(PRESETS / "deepsdf.yaml")["experiments"][0]
    assert block["name"] == "mine" and block["method"] == "deepsdf"
    assert block["training"] == {**preset["training"], "steps": 7}
    assert "preset" not in block


# --- which experiments there are


def names(config: dict) -> list[str]:
    return [e.name for e in load_study(config)[1]]


def test_without_a_list_the_demo_compares_its_own():
    listed = [block["name"] for block in read_yaml(DEFAULT)["demo"]["experiments"]]
    assert listed and names(default()) == [*listed, MEAN_SHAPE]


def test_without_a_list_other_sources_get_poisson():
    assert names(default(OWN_MESHES)) == ["poisson", MEAN_SHAPE]


def test_a_list_of_its_own_replaces_the_demos():
    assert names(default(experiment())) == ["mine", MEAN_SHAPE]


def test_the_share_of_rejected_shapes_depends_on_the_source():
    assert load_study(default())[0].max_rejected == 0.2
    assert load_study(default(OWN_MESHES))[0].max_rejected == 1.0
    assert load_study(default(OWN_MESHES, {"limits": {"max_rejected": 0.1}}))[0].max_rejected == 0.1


# --- presets


def everything(config: dict) -> dict:
    return Plan(*load_study(config)).everything()


@pytest.mark.parametrize("path", PRESET_FILES, ids=names_of(PRESET_FILES))
def test_a_preset_over_the_default_is_valid_and_compares_what_it_lists(path):
    preset = read_yaml(path)
    listed = [block["name"] for block in preset.get("experiments", default()["demo"]["experiments"])]
    plan = Plan(*load_study(default(preset)))
    assert list(plan.experiments) == [*listed, MEAN_SHAPE]
    assert all(plan.fingerprint(name) for name in plan.works())


@pytest.mark.parametrize("path", PRESETS_OF_METHODS, ids=names_of(PRESETS_OF_METHODS))
def test_the_preset_of_a_method_bears_its_name(path):
    """The others that it may list are those that it builds on, and variants of itself."""
    blocks = {block["name"]: block for block in read_yaml(path)["experiments"]}
    parents = {blocks[path.stem][key] for key in ("parent",) if key in blocks[path.stem]}
    variants = {name for name in blocks if name.startswith(path.stem)}
    assert set(blocks) == variants | parents


def test_a_study_names_presets_that_exist():
    for path in STUDIES:
        for block in read_yaml(path)["experiments"]:
            assert block["preset"] in names_of(PRESETS_OF_METHODS)


OVERLAYS = {path.stem: [read_yaml(path), OWN_MESHES] for path in (*PRESETS_OF_METHODS, *DATA_ONLY)}
OVERLAYS |= {path.stem: [read_yaml(path)] for path in STUDIES}
OVERLAYS["a directory"] = [OWN_MESHES]


@pytest.mark.parametrize("name", OVERLAYS)
def test_nothing_of_the_demo_is_left_under_an_overlay(name):
    """With any source but the demo, the default's demo decides as little as if it had never been written."""
    without_demo = {key: value for key, value in read_yaml(DEFAULT).items() if key not in ("demo", "source")}
    for overlay in OVERLAYS[name]:
        without_demo = merge(without_demo, overlay)
    config = default(*OVERLAYS[name])
    assert everything(config) == everything(without_demo)
    assert "demo" not in everything(config) and everything(config)["source"]["kind"] != "demo"
    plan = Plan(*load_study(config))
    assert "make_demo_archive" not in plan.works()
    bare = Plan(*load_study(without_demo))
    assert {n: plan.fingerprint(n) for n in plan.works()} == {n: bare.fingerprint(n) for n in bare.works()}


# --- the default file


def keys_outside_lists(node: yaml.Node, path: str = "") -> list[tuple[str, int]]:
    """(key path, line) of all keys that do not stand inside a list."""
    found = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            found.append((f"{path}{key.value}", key.start_mark.line))
            found += keys_outside_lists(value, f"{path}{key.value}.")
    return found


def test_every_key_of_the_default_has_a_comment():
    text = DEFAULT.read_text(encoding="utf-8")
    lines = text.split("\n")
    keys = keys_outside_lists(yaml.compose(text))
    assert len(keys) > 40
    bare = [key for key, line in keys if "#" not in lines[line] and not lines[line - 1].strip().startswith("#")]
    assert bare == []


INTENDED_DIFFERENCES = {"demo.experiments"}


def test_the_default_file_says_what_the_settings_default_to():
    """Whoever leaves a key out gets what the default file shows."""

    def flat(value: dict, path: str = "") -> dict:
        rows = {}
        for key, inner in value.items():
            rows |= flat(inner, f"{path}{key}.") if isinstance(inner, dict) else {f"{path}{key}": inner}
        return rows

    written, built_in = flat(read_yaml(DEFAULT)), flat(Study().model_dump(mode="json"))
    assert {key for key, value in written.items() if built_in[key] != value} == INTENDED_DIFFERENCES


# --- the schema

REGENERATE = "type:  make schema   (isomill schema > resources/schema/workflow_config.schema.json)"


def test_the_schema_in_the_repository_is_the_settings_own():
    written = json.loads(SCHEMA.read_text(encoding="utf-8")) if SCHEMA.is_file() else None
    assert written == json_schema(), f"the settings changed and the schema did not; {REGENERATE}"


def test_the_command_prints_the_schema_byte_for_byte():
    command = [sys.executable, "-m", "pipeline", "schema"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed == SCHEMA.read_text(encoding="utf-8"), REGENERATE
    assert "isomill schema > resources/schema/workflow_config.schema.json" in (ROOT / "Makefile").read_text()


@pytest.fixture(scope="module")
def schema():
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


@pytest.mark.parametrize("path", [None, *PRESET_FILES], ids=["the default", *names_of(PRESET_FILES)])
def test_the_schema_accepts_the_default_and_every_preset_over_it(schema, path):
    assert list(schema.iter_errors(default(read_yaml(path) if path else {}))) == []


@pytest.mark.parametrize("overlay", [OWN_MESHES, shapenet(), experiment(), experiment(preset="onet-pointcloud")])
def test_the_schema_accepts_what_the_settings_accept(schema, overlay):
    load_study(default(overlay))
    assert list(schema.iter_errors(default(overlay))) == []


@pytest.mark.parametrize(
    "overlay",
    [{"sed": 1}, {"seed": -1}, stage("sample_surface", cuont=1), directory(pth=1), experiment(model={"hiden": 1})],
)
def test_the_schema_refuses_what_the_settings_refuse(schema, overlay):
    assert list(schema.iter_errors(default(overlay)))


def undescribed(node: dict, path: str = "") -> list[str]:
    """Properties of the schema that say nothing about themselves and name no block that does."""
    properties = node.get("properties", {}).items()
    found = [f"{path}.{name}" for name, inner in properties if not inner.keys() & {"description", "$ref"}]
    for name, inner in node.get("$defs", {}).items():
        found += undescribed(inner, name)
    return found


def test_every_key_of_the_schema_is_described():
    schema = json_schema()
    del schema["$defs"]["preset_experiment"]
    assert len(schema["$defs"]) > 20
    assert undescribed(schema) == []


def test_descriptions_do_not_depend_on_what_is_loaded_already():
    """The schema is made from the heads of modules, whether the modules themselves are there or not."""
    program = (
        "import pipeline.samples.surface, pipeline.report.page; from pipeline.cli.main import main; main(['schema'])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(printed) == json_schema()
