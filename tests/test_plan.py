"""The plan: which stages a study has, and exactly which of them an edit touches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import PurePosixPath

import pytest

from pipeline import plan as plans
from pipeline.config import PRESETS, ROOT, ConfigError, load_study, merge, read_yaml
from pipeline.plan import Plan

ONET = {"name": "onet", "method": "onet"}
DEEPSDF = {"name": "deepsdf", "method": "deepsdf"}
POISSON = {"name": "poisson", "method": "poisson"}
BASE = {"source": {"kind": "demo"}, "experiments": [ONET, DEEPSDF, POISSON]}

REPORT = {"make_report", "record_provenance"}
TRAINED = {"train_model/onet", "train_model/deepsdf", "train_model/mean-shape"}
GENERATED = {f"generate_meshes/{name}" for name in ("onet", "deepsdf", "poisson", "mean-shape")}
BOUNDARIES = {"sample_boundary/0.1", "sample_boundary/0.01"}


def plan_of(*overlays: dict) -> Plan:
    config = BASE
    for overlay in overlays:
        config = merge(config, overlay)
    return Plan(*load_study(config))


def fingerprints(plan: Plan) -> dict[str, str]:
    return {name: plan.fingerprint(name) for name in plan.works()}


@pytest.fixture(scope="module")
def base() -> Plan:
    plan = plan_of()
    fingerprints(plan)  # once, before any test changes what is installed
    return plan


def changed(one: Plan, other: Plan) -> set[str]:
    """Stages whose fingerprint differs, and those that only one of two plans has."""
    return {name for name, _ in set(fingerprints(one).items()) ^ set(fingerprints(other).items())}


def stage(name: str, **keys) -> dict:
    return {"stages": {name: keys}}


def experiment(block: dict, **keys) -> dict:
    blocks = [merge(b, keys) if b is block else b for b in BASE["experiments"]]
    return {"experiments": blocks}


# --- what is in the DAG


def test_all_stages_of_the_data_stand_in_the_order_of_its_path(base):
    assert base.instances == [
        "extract_meshes",
        "make_watertight",
        "scale_to_off",
        "sample_surface",
        "sample_boundary/0.01",
        "sample_boundary/0.1",
        "sample_volume",
        "compute_sdf",
        "voxelize/64",
    ]


def test_stages_that_nothing_needs_are_not_in_the_dag():
    """Poisson needs points alone; the evaluation the mesh and the volume; the mean shape the voxels."""
    plan = plan_of({"experiments": [POISSON]})
    stages = {name.split("/")[0] for name in plan.instances}
    assert not stages & {"sample_boundary", "compute_sdf"}
    assert plan.instances[-3:] == ["sample_surface", "sample_volume", "voxelize/64"]
    assert plan.trained == ["mean-shape"]
    onet = plan_of({"experiments": [ONET]})
    assert onet.instances == plan.instances
    assert onet.trained == ["onet", "mean-shape"]


def test_signed_distances_bring_the_points_they_are_taken_at():
    plan = plan_of(stage("sample_boundary", sigmas=[0.07, 0.02, 1e-5]))
    boundaries = ["sample_boundary/0.02", "sample_boundary/0.07", "sample_boundary/1e-05"]
    assert [name for name in plan.instances if name.startswith("sample_boundary")] == boundaries
    assert plan.upstream("compute_sdf") == {
        "mesh": "scale_to_off",
        "sets:volume": "sample_volume",
        "sets:boundary-0.07": "sample_boundary/0.07",
        "sets:boundary-0.02": "sample_boundary/0.02",
        "sets:boundary-1e-05": "sample_boundary/1e-05",
    }
    assert plan.work("sample_boundary/1e-05")["settings"]["sigma"] == 1e-5
    assert sorted(plan.training_instances("deepsdf")) == [*sorted(["compute_sdf", *boundaries]), "sample_volume"]


def test_every_stage_comes_after_what_it_reads(base):
    for position, name in enumerate(base.instances):
        assert set(base.upstream(name).values()) <= set(base.instances[:position])


def test_a_directory_without_categories_is_one():
    plan = plan_of({"source": {"kind": "directory", "path": "m"}})
    assert plan.categories == ["all"] and plan.archives == []
    named = plan_of({"source": {"kind": "directory", "path": "m", "categories": ["cups", "pans"]}})
    assert named.categories == ["cups", "pans"]


def test_archives_are_fetched_where_their_addresses_are_given():
    archives = [{"category": name, "url": f"https://example.org/{name}.zip"} for name in ("chair", "table")]
    source = {"kind": "shapenet", "categories": ["chair", "table"], "archives": archives}
    plan = Plan(*load_study({"source": source}))
    assert plan.archives == ["03001627", "04379243"]
    assert plan.work("download_source")["settings"]["archives"]["04379243"]["url"].endswith("table.zip")
    whole = {"kind": "shapenet", "categories": ["chair"], "archives": [{"category": "all", "url": "a.zip"}]}
    assert Plan(*load_study({"source": whole})).archives == ["ShapeNetCore.v2"]


# --- shards and paths


def test_categories_have_their_own_number_of_shards_by_either_of_their_names():
    for name in ("chair", "03001627"):
        plan = plan_of({"shards": {"per_category": 2, "categories": [{"category": name, "shards": 3}], "test": 4}})
        assert [s for c, s in plan.shards if c == "03001627"] == ["0", "1", "2"]
        assert [s for c, s in plan.shards if c == "04379243"] == ["0", "1"]
        assert plan.test_shards == ["0", "1", "2", "3"]


def test_thirteen_categories_with_many_shards_are_planned():
    study = read_yaml(PRESETS / "shapenet13.yaml")
    plan = plan_of(study, {"shards": {"per_category": 500}})
    listed = {row["category"]: row["shards"] for row in study["shards"]["categories"]}
    assert len(plan.categories) == 13
    assert len(plan.shards) == sum(listed.values()) + 500 * (13 - len(listed))
    assert len(set(plan.ledgers("sample_surface"))) == len(plan.shards)


def all_paths(plan: Plan) -> list[str]:
    paths = [plan.catalogue, *map(plan.test_members, plan.test_shards)]
    paths += [plan.members(*shard) for shard in plan.shards]
    paths += [path for name in plan.instances for path in (*plan.ledgers(name), plan.check(name))]
    return [*paths, *{plan.settings_file(name) for name in plan.works()}]


def test_all_paths_are_relative_and_distinct_below_the_folder_of_the_study():
    paths = all_paths(plan_of({"dataset": "mine", "shards": {"per_category": 3, "test": 2}}))
    assert len(set(paths)) == len(paths)
    for path in map(PurePosixPath, paths):
        assert path.parts[:2] == ("results", "mine") and ".." not in path.parts


def test_the_folder_of_the_listing_is_named_after_what_decides_it(base):
    for overlay in ({"demo": {"shapes": 30}}, {"shards": {"per_category": 2}}, {"shards": {"test": 2}}):
        assert plan_of(overlay).listing != base.listing
    for overlay in ({"seed": 5}, stage("sample_surface", count=3000), {"demo": {"experiments": [POISSON]}}):
        assert plan_of(overlay).listing == base.listing


def test_the_content_of_split_lists_decides_the_listing(tmp_path):
    """The configuration names only their place."""
    path = tmp_path / "splits.csv"
    overlay = {"source": {"split": {"kind": "files", "path": str(path)}}}
    one, other, again = (_planned(path, overlay, rows) for rows in ("", "03001627,a,test\n", ""))
    assert one.listing == again.listing != other.listing
    assert changed(one, other) == {"list_shapes"} | REPORT
    assert changed(one, again) == set()


def test_split_lists_that_are_not_there_are_one_message(tmp_path):
    overlay = {"source": {"split": {"kind": "files", "path": str(tmp_path / "gone.csv")}}}
    with pytest.raises(ConfigError, match=r"source\.split\.path: the lists at .*gone\.csv cannot be read \(No such"):
        plan_of(overlay)


def _planned(path, overlay: dict, rows: str) -> Plan:
    """The plan at a moment: fingerprints are taken once, while the lists hold these rows."""
    path.write_text(f"category,id,split\n{rows}")
    plan = plan_of(overlay)
    fingerprints(plan)
    return plan


AE = {"name": "ae", "method": "imnet"}
GAN = {"name": "gan", "method": "imnet_gan", "parent": "ae"}
UNCONDITIONAL = {"observation": {"kind": "nothing"}, "latent": 8, "decoder": "simple"}


def test_works_that_keep_meshes_in_the_store_say_so():
    plan = plan_of({"experiments": [AE, GAN]})
    formats = {name: plan.work(name).get("format") for name in ("generate_meshes/ae", "sample_shapes/gan")}
    assert formats == {"generate_meshes/ae": "off", "sample_shapes/gan": "off"}


def test_quick_evaluation_leaves_out_generators_that_observe_nothing_of_a_shape():
    """IM-GAN's field is that of a new shape; the unconditional ONet infers a latent from labelled points."""
    plan = plan_of({"experiments": [AE, GAN, {**ONET, "name": "new", "model": UNCONDITIONAL}]})
    assert plan.generators == ["gan", "new"]
    assert plan.quick == ["ae", "new"] and "evaluate_fields/gan" not in plan.works()
    assert "sample_volume" in plan.quick_instances("new")


# --- what an edit touches

ANSWERED_BY_DEEPSDF = {f"{stage}/deepsdf" for stage in ("generate_meshes", "encode_shapes", "evaluate_fields")}
DEEPSDF_ALL = {"train_model/deepsdf"} | ANSWERED_BY_DEEPSDF
ANSWERED_BY_ONET = {f"{stage}/onet" for stage in ("generate_meshes", "encode_shapes", "evaluate_fields")}
ONET_ALL = {"train_model/onet"} | ANSWERED_BY_ONET

EDITS = {
    "seed": (
        {"seed": 1},
        {"sample_surface", "sample_volume", "evaluate_meshes"}
        | BOUNDARIES
        | TRAINED
        | GENERATED
        | ANSWERED_BY_DEEPSDF
        | ONET_ALL
        | REPORT,
    ),
    "dataset": ({"dataset": "other"}, REPORT),
    "the demo's shapes": ({"demo": {"shapes": 30}}, {"make_demo_archive", "download_source", "list_shapes"} | REPORT),
    "the demo's own experiments": ({"demo": {"experiments": [POISSON]}}, set()),
    "split": ({"source": {"split": {"train": 0.6, "val": 0.2}}}, {"list_shapes"} | REPORT),
    "shards of categories": ({"shards": {"per_category": 2}}, {"list_shapes"} | REPORT),
    "shards of test shapes": ({"shards": {"test": 2}}, {"list_shapes"} | REPORT),
    "largest file": (stage("extract_meshes", max_faces=10), {"extract_meshes"} | REPORT),
    "voxels of watertight": (stage("make_watertight", resolution=64), {"make_watertight"} | REPORT),
    "acceptance": (stage("make_watertight", acceptance={"samples": 9}), {"make_watertight"} | REPORT),
    "box": (stage("scale_to_off", box="raw"), {"scale_to_off"} | REPORT),
    "points on the surface": (stage("sample_surface", count=900), {"sample_surface"} | REPORT),
    "stored normals": (stage("sample_surface", storage={"normals": "oct16"}), {"sample_surface"} | REPORT),
    "one sigma": (
        stage("sample_boundary", sigmas=[0.1, 0.02]),
        {
            "sample_boundary/0.01",
            "sample_boundary/0.02",
            "compute_sdf",
        }
        | DEEPSDF_ALL
        | REPORT,
    ),
    "points near the surface": (stage("sample_boundary", count=9), BOUNDARIES | REPORT),
    "points in the volume": (stage("sample_volume", count=9), {"sample_volume"} | REPORT),
    "padding": (stage("sample_volume", padding=0.2), {"sample_volume"} | REPORT),
    "stored distances": (stage("compute_sdf", storage={"sdf": "float32"}), {"compute_sdf"} | REPORT),
    "point sets": (stage("compute_sdf", of=["volume"]), {"compute_sdf"} | REPORT),
    "one more grid": (stage("voxelize", resolutions=[64, 16]), {"voxelize/16"} | REPORT),
    "network": (experiment(ONET, model={"hidden": 8}), ONET_ALL | REPORT),
    "observation": (
        experiment(ONET, model={"observation": {"noise": 0.0}}),
        ONET_ALL | REPORT,
    ),
    "baseline": (experiment(POISSON, model={"depth": 5}), {"generate_meshes/poisson"} | REPORT),
    "steps": (experiment(DEEPSDF, training={"steps": 9}), {"train_model/deepsdf"} | REPORT),
    "inference": (experiment(DEEPSDF, inference={"iterations": 9}), ANSWERED_BY_DEEPSDF | REPORT),
    "extraction": (experiment(ONET, extraction={"depth": 1}), {"generate_meshes/onet"} | REPORT),
    "which weights": (experiment(ONET, extraction={"checkpoint": "last"}), ANSWERED_BY_ONET | REPORT),
    "shapes together": (experiment(ONET, extraction={"batch_shapes": 4}), ANSWERED_BY_ONET | REPORT),
    "device": (experiment(ONET, runtime={"device": "cpu"}), set()),
    "checkpoints": (experiment(DEEPSDF, runtime={"checkpoint_minutes": 1, "tensorboard": False}), set()),
    "points of the evaluation": ({"evaluation": {"samples": 9}}, {"evaluate_meshes", "summarise"} | REPORT),
    "gallery": ({"report": {"gallery": 1}}, REPORT),
    "one more experiment": (
        {"experiments": [*BASE["experiments"], {**POISSON, "name": "again"}]},
        {"generate_meshes/again"} | REPORT,
    ),
    "one experiment less": (
        {"experiments": [ONET, POISSON]},
        {"compute_sdf"} | DEEPSDF_ALL | BOUNDARIES | REPORT,
    ),
    "the order of experiments": ({"experiments": [POISSON, ONET, DEEPSDF]}, REPORT),
    "seconds per shape": ({"limits": {"seconds": 5}}, set()),
    "memory per shape": ({"limits": {"memory_mb": 500}}, set()),
    "nothing to compare allowed": ({"allow_empty": True}, {"check_tested"}),
    "share of rejected": ({"limits": {"max_rejected": 0.5}}, {"check_rejected"}),
    "place of the store": ({"store": {"path": "elsewhere"}}, set()),
    "shared stores": ({"store": {"shared": ["theirs"]}}, set()),
    "place of downloads": ({"download": {"folder": "elsewhere"}}, set()),
    "retries": ({"download": {"retries": 1}}, set()),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_touches_exactly_the_stages_it_decides(base, name):
    overlay, expected = EDITS[name]
    assert changed(base, plan_of(overlay)) == expected


@pytest.mark.parametrize("name", EDITS)
def test_a_settings_file_of_equal_name_has_equal_content(base, name):
    """An existing file is not written again, so a job would otherwise work by what another configuration said."""
    edited = plan_of(EDITS[name][0])
    for work in set(base.works()) & set(edited.works()):
        if base.fingerprint(work) == edited.fingerprint(work):
            one, other = base.work(work), edited.work(work)
            assert one | {"seed": other["seed"]} == other
            assert one["seed"] == other["seed"] or not one["random"]


@pytest.mark.parametrize("key", ["checkpoint", "resolution_0"])
def test_a_child_follows_the_weights_of_its_parent_and_not_how_its_meshes_are_taken(key):
    value = {"checkpoint": "last", "resolution_0": 16}[key]
    one, other = (plan_of({"experiments": [block, GAN]}) for block in (AE, {**AE, "extraction": {key: value}}))
    touched = {name for name in changed(one, other) if name.endswith("/gan")}
    childs = {f"{stage}/gan" for stage in ("train_model", "sample_shapes")}
    assert touched == (childs if key == "checkpoint" else set())
    assert other.work("train_model/gan")["settings"]["parent"]["checkpoint"] == {"checkpoint": "last"}.get(key, "best")


def test_experiments_that_differ_by_name_alone_share_everything():
    plan = plan_of({"experiments": [ONET, {**ONET, "name": "again"}]})
    for stage_name in ("train_model", "generate_meshes"):
        assert plan.fingerprint(f"{stage_name}/onet") == plan.fingerprint(f"{stage_name}/again")
        assert plan.work(f"{stage_name}/onet") == plan.work(f"{stage_name}/again")


def test_renaming_an_experiment_changes_no_fingerprint(base):
    renamed = fingerprints(plan_of(experiment(ONET, name="another")))
    for name, digest in fingerprints(base).items():
        if name not in REPORT:
            assert renamed[name.replace("/onet", "/another")] == digest


def reversed_keys(value):
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


def test_the_weights_that_a_training_starts_from_decide_by_their_content(tmp_path):
    file = tmp_path / "resnet18.pth"
    image = {"name": "onet", "method": "onet", "model": {"observation": {"kind": "view", "imagenet": str(file)}}}
    with pytest.raises(
        ConfigError, match=r"experiment onet: the weights to start from, .*resnet18\.pth, cannot be read"
    ):
        plan_of({"experiments": [image]}).fingerprint("train_model/onet")
    file.write_bytes(b"one")
    before = plan_of({"experiments": [image]})
    fingerprints(before)
    file.write_bytes(b"other")
    assert {"train_model/onet", "generate_meshes/onet"} <= changed(before, plan_of({"experiments": [image]}))


def test_the_reading_of_a_category_reaches_its_stage_and_no_other():
    """By folder names, as the shapes of the ledgers have them; the common reading is not repeated."""
    rows = [{"category": "chair", "interior": "solid"}, {"category": "table", "interior": "hollow"}]
    plan = plan_of(stage("make_watertight", interior_of=rows))
    work = plan.work("make_watertight")
    assert work["by_category"] == {"03001627": {"interior": "solid"}}
    assert "interior_of" not in work["settings"] and work["settings"]["interior"] == "hollow"
    assert work["fingerprint"] == plan_of().work("make_watertight")["fingerprint"]  # other shapes keep their keys
    assert changed(plan_of(), plan) == {"make_watertight"} | REPORT
    folder = {"source": {"kind": "directory", "path": "m", "categories": ["cups", "pans"]}}
    named = plan_of(
        folder, stage("make_watertight", interior="solid", interior_of=[{"category": "cups", "interior": "hollow"}])
    )
    assert named.work("make_watertight")["by_category"] == {"cups": {"interior": "hollow"}}
    for instance in plan.instances:
        assert instance == "make_watertight" or plan.work(instance)["by_category"] == {}


def test_secrets_in_addresses_are_not_shown():
    """Of archives and of weights alike; the jobs that fetch them have the whole address."""
    secret = "https://user:password@example.org/{}?token=secret"
    source = {
        "kind": "shapenet",
        "categories": ["chair"],
        "archives": [{"category": "chair", "url": secret.format("a.zip")}],
    }
    weights = {**ONET, "weights": {"url": secret.format("onet.pt")}}
    own = {**ONET, "name": "own", "weights": {"path": "onet.pt"}}
    plan = Plan(*load_study({"source": source, "experiments": [weights, own, ONET | {"name": "trained"}]}))
    shown = plan.everything()
    assert shown["source"]["archives"][0]["url"] == "https://example.org/a.zip"
    assert shown["experiments"][0]["weights"]["url"] == "https://example.org/onet.pt"
    assert shown["experiments"][1]["weights"] == {"path": "onet.pt", "url": None, "sha256": None}
    for name in ("make_report", "record_provenance"):
        assert "password" not in json.dumps(plan.work(name)) and "token" not in json.dumps(plan.work(name))
    assert plan.work("fetch_weights/onet")["settings"]["weights"]["url"] == secret.format("onet.pt")


def test_the_order_of_keys_changes_no_fingerprint():
    config = read_yaml(ROOT / "workflow_config.yaml")
    turned = reversed_keys(config)
    assert list(turned) != list(config)
    assert fingerprints(Plan(*load_study(turned))) == fingerprints(Plan(*load_study(config)))


def test_a_written_default_is_the_same_as_none(base):
    assert changed(base, plan_of(stage("sample_surface", count=100_000, stratified=False))) == set()


def test_a_record_is_json_and_reads_back_as_it_was(base):
    for name in base.works():
        assert json.loads(json.dumps(base.work(name)))["fingerprint"] == base.work(name)["fingerprint"]
    assert json.loads(json.dumps(base.runtime())) == base.runtime()


def test_what_decides_no_result_stands_in_the_runtime():
    overlay = experiment(ONET, runtime={"device": "cpu", "threads": 3})
    runtime = plan_of(overlay, {"limits": {"seconds": 5}, "store": {"path": "s", "shared": ["t"]}}).runtime()
    assert runtime["experiments"]["onet"]["threads"] == 3
    assert runtime["limits"]["seconds"] == 5
    assert runtime["store"] == {"path": "s", "shared": ["t"]}


# --- pinned libraries


@pytest.fixture
def pin(tmp_path, monkeypatch):
    """Replaces one line of the lock file."""
    text = plans.LOCK.read_text(encoding="utf-8")

    def replace(old: str, new: str) -> Plan:
        assert f"\n{old}\n" in text
        (tmp_path / "requirements.lock").write_text(text.replace(f"\n{old}\n", f"\n{new}\n"))
        monkeypatch.setattr(plans, "LOCK", tmp_path / "requirements.lock")
        plans.pinned_versions.cache_clear()
        return plan_of()

    yield replace
    plans.pinned_versions.cache_clear()


@pytest.mark.parametrize("build", ["+cpu", "+cu128"])
def test_another_build_of_a_library_changes_no_fingerprint(base, pin, build):
    torch = f"torch=={plans.pinned_versions()['torch']}"
    assert changed(base, pin(torch, torch + build)) == set()


def test_another_version_of_a_library_touches_the_stages_it_decides(base, pin):
    expected = {name for name in base.works() if "libigl" in base.work(name)["libraries"]}
    assert "make_watertight" in expected and not expected & {"sample_volume", "train_model/onet"}
    libigl = f"libigl=={plans.pinned_versions()['libigl']}"
    assert changed(base, pin(libigl, "libigl==99.0")) == expected


def test_a_library_that_decides_results_must_be_pinned(pin):
    plan = pin(f"libigl=={plans.pinned_versions()['libigl']}", "# libigl")
    with pytest.raises(ConfigError, match=r"requirements\.lock does not pin libigl, which decides results"):
        plan.fingerprint("make_watertight")


# --- cost


def test_planning_loads_no_heavy_library():
    program = (
        "import sys; from pipeline.cli.study import read_plan; plan = read_plan([]);"
        "[plan.fingerprint(name) for name in plan.works()]; plan.runtime();"
        "print(*sys.modules)"
    )
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "pipeline.plan" in loaded
    heavy = {"numpy", "torch", "scipy", "pandas", "open3d", "skimage", "trimesh", "matplotlib", "snakemake", "requests"}
    assert not heavy & set(loaded)
